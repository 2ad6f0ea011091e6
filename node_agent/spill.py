"""Does Windows move a card's memory to the PC's RAM? Pure: from step times and the memory in use.

Where a render on Linux runs out of memory, Windows (and WSL, whose driver is Windows') goes on with some of it in RAM, behind the bus: ten
to twenty times slower, and without a word. Only its pace gives it away.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from node_agent.ladder import MemoryReading

SLOWER = 4.0
"""How many times slower than usual steps must become: predictions err by less than this, a hot card by far less."""
NEAR_FULL_GIB = 0.35
"""Less than this free, and the card is full: the driver keeps a few hundred MiB for the desktop."""
STEPS = 3
"""How many steps make a pace; a single slow one may be anything."""

MARGIN_GIB = 0.5
"""How much less of the card is used after each render that spilled."""
MOST_MARGIN_GIB = 2.0
"""Beyond this the memory is some other program's, and giving up more of the card would not help."""


@dataclass(frozen=True, slots=True)
class Spill:
    """Seconds per step now, and as they should be."""

    pace_s: float
    usual_s: float

    @property
    def told(self) -> str:
        """For the attempt's notes."""
        return (
            f"Windows is moving this card's memory to RAM: a step takes {self.pace_s:.1f} s instead of {self.usual_s:.1f} s. "
            f"The next renders use {MARGIN_GIB} GiB less of the card. Close other programs that use it, or set 'CUDA - Sysmem Fallback "
            "Policy' to 'Prefer No Sysmem Fallback' in the NVIDIA Control Panel."
        )


def find_spill(
    paces: Sequence[float], expected_s: float | None, memory: MemoryReading | None
) -> Spill | None:
    """A spill that the last steps show, or None.

    `paces` are the seconds of each step so far, `expected_s` what the planner predicts for one, None where it predicts nothing. Slow from
    the start is judged by the prediction, slow all of a sudden by the first steps (the very first loads kernels and does not count).
    """
    if memory is None or memory.free_gib > NEAR_FULL_GIB or len(paces) < STEPS + 1:
        return None
    usual = [expected_s] if expected_s is not None and expected_s > 0 else []
    if len(paces) >= 2 * STEPS + 1:
        usual.append(median(paces[1 : STEPS + 1]))
    pace = median(paces[-STEPS:])
    if not usual or pace < SLOWER * min(usual):
        return None
    return Spill(pace, min(usual))


def margin_gib(spills: int) -> float:
    """How much less of a card is used after so many renders that spilled, GiB."""
    return min(spills * MARGIN_GIB, MOST_MARGIN_GIB)


def can_spill(version: Path = Path("/proc/version")) -> bool:
    """Whether this PC's driver is Windows': nodes run on Linux, so that is WSL."""
    try:
        return "microsoft" in version.read_text().lower()
    except OSError:
        return False
