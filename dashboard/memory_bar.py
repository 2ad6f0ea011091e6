"""How a card's memory is shared out now, as a bar. Pure."""

from dataclasses import dataclass
from typing import Literal

from dashboard.words import gib

Part = Literal["ours", "others", "free"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the bar: from `start` on, `share` wide (both 0 to 100), and in words."""

    part: Part
    start: float
    share: float
    text: str


@dataclass(frozen=True, slots=True)
class MemoryBar:
    """A card's memory in segments that fill the bar; `text` says it all in a sentence."""

    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        """For who cannot see the bar."""
        return ", ".join(segment.text for segment in self.segments)


def memory_bar(
    vram_gib: float | None, usable_gib: float | None, planned_gib: float | None, *, answers: bool = True
) -> MemoryBar | None:
    """The bar of a card that has `vram_gib`, of which a render may use `usable_gib` and the present one plans `planned_gib`.

    What no render may use is the driver's and other programs'. Of a card that does not answer nobody knows what is
    free. None where the card's memory is not known, or it has none of its own.
    """
    if not vram_gib or usable_gib is None:
        return None
    usable = min(usable_gib, vram_gib)
    ours = min(planned_gib or 0.0, usable)
    sizes: tuple[tuple[Part, float, str], ...] = (
        ("ours", ours, "planned for this render"),
        ("free", usable - ours, "free" if answers else "usable when last heard"),
        ("others", vram_gib - usable, "driver and other programs"),
    )
    segments = []
    start = 0.0
    for part, size, what in sizes:
        if size < 0.05:
            continue
        share = 100 * size / vram_gib
        segments.append(Segment(part, round(start, 2), round(share, 2), f"{gib(size)} {what}"))
        start += share
    return MemoryBar(tuple(segments))
