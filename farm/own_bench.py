"""What `farm bench` measured on this PC's cards: the file it keeps, read for the planner."""

import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from farm.catalogue.article import BenchSetting
from farm.model import MemoryPlan, RenderSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Benched:
    """One row of the bench: `total_s` from the loaded model to the encoded clip, `peak_gib` as history records it; None for a failure."""

    card_id: str
    model: str
    setting: BenchSetting
    plan: MemoryPlan | None = None
    total_s: float | None = None
    peak_gib: float | None = None

    @property
    def settings(self) -> RenderSettings:
        """What was rendered, as a job's settings."""
        one = self.setting
        shape = (one.width, one.height, one.frames, one.steps, one.guidance)
        return RenderSettings(self.model, *shape, fps=8, seed=1)


_ROW = TypeAdapter(Benched)


def read_bench(file: Path) -> list[Benched]:
    """The rows of the file, newest first; none where there is no file. A line that cannot be read is left out."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_ROW.validate_json(line))
        except ValidationError as error:
            log.warning("Left out a line of %s: %s", file, error.errors()[0]["msg"])
    return found[::-1]
