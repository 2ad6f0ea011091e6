"""What `farm bench` measured on this PC's cards: a row, and the file that keeps them until the head has stored them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from farm.catalogue.article import BenchSetting
from farm.model import MemoryPlan, RenderSettings
from farm.stamp import stamp_of

log = logging.getLogger(__name__)

SEED: Final = 1
FPS: Final = 8


@dataclass(frozen=True, slots=True)
class BenchResult:
    """The five dimensions of one row, and what they were measured on. None was not measured.

    `startup_s`: from the process's birth to the loaded model. `first_frame_s` and `total_s`: from there to the first frame in hand and to
    the encoded clip. `peak_gib`: the caching allocator's reserved memory, on a CPU the process's resident set. `rating` is a person's, 1
    to 5. `predicted_s` is the planner's for all denoising steps. `at` is UTC.
    """

    at: str
    card_id: str
    card: str
    model: str
    setting: BenchSetting
    plan: MemoryPlan | None
    startup_s: float | None = None
    first_frame_s: float | None = None
    total_s: float | None = None
    peak_gib: float | None = None
    rating: float | None = None
    predicted_s: float | None = None
    predicted_gib: float | None = None
    torch: str | None = None
    driver: str | None = None
    failure: str | None = None

    @property
    def settings(self) -> RenderSettings:
        """What was rendered, as a job's settings."""
        one = self.setting
        shape = (one.width, one.height, one.frames, one.steps, one.guidance)
        return RenderSettings(self.model, *shape, fps=FPS, seed=SEED)


_ROW = TypeAdapter(BenchResult)


class Changing:
    """Files of rows that others write: read again only when one of them has changed."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._stood: tuple[tuple[int, int] | None, ...] | None = None

    def rows(self) -> list[BenchResult] | None:
        """All rows, newest first; None where they are as they were when this was last asked."""
        stand = tuple(stamp_of(file) for file in self._files)
        if stand == self._stood:
            return None
        self._stood = stand
        return sorted(
            (row for file in self._files for row in read_bench(file)), key=lambda row: row.at, reverse=True
        )


def read_bench(file: Path) -> list[BenchResult]:
    """The rows of the file, newest first; none where there is no file.

    A line that cannot be read is left out and logged: a bench that was killed may leave half of one.
    """
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("The bench's results in %s cannot be read: %s", file, error)
        return []
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_ROW.validate_json(line))
        except ValidationError as error:
            log.warning("Left out line %d of %s: %s", number, file, error.errors()[0]["msg"])
    return found[::-1]
