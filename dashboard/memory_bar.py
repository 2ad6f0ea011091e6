"""How a card's memory is shared out now, as a bar. Pure; bars are kept, since cards of one kind have the same, and drawn at every look."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from dashboard.words import gib
from farm.answers.machines import CardView

Part = Literal["ours", "others", "free"]

LEAST_GIB = 0.05
"""Less is no segment: it would read as 0.0."""


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


def memory_bar(card: CardView, planned_gib: float | None = None) -> MemoryBar | None:
    """The bar of a card: as its PC reads it, else by what a render may use of it and the present one plans (`planned_gib`).

    None where the card's memory is not known, or it has none of its own.
    """
    used = card.vitals.memory_used_gib if card.vitals is not None else None
    if not card.vram_gib:
        return None
    if used is not None and card.others_gib is not None:
        return read_bar(card.vram_gib, used, card.others_gib)
    if card.usable_gib is None:
        return None
    return planned_bar(
        card.vram_gib, card.usable_gib, planned_gib, answers=card.state in ("idle", "busy", "starting")
    )


@lru_cache(maxsize=1024)
def read_bar(vram_gib: float, used_gib: float, others_gib: float) -> MemoryBar:
    """The bar of a card of which all programs together hold `used_gib`, and those that are not the farm's `others_gib`.

    `static/words.js` makes the same of the newest reading.
    """
    used = min(used_gib, vram_gib)
    others = min(others_gib, used)
    return _bar(
        vram_gib,
        ("ours", used - others, "farm and driver"),
        ("others", others, "other programs"),
        ("free", vram_gib - used, "free"),
    )


@lru_cache(maxsize=1024)
def planned_bar(
    vram_gib: float, usable_gib: float, planned_gib: float | None, *, answers: bool = True
) -> MemoryBar:
    """The bar of a card that nobody has read: of `vram_gib` a render may use `usable_gib`, and the present one plans `planned_gib`.

    What no render may use is the driver's and other programs'. Of a card that does not answer nobody knows what is
    free.
    """
    usable = min(usable_gib, vram_gib)
    ours = min(planned_gib or 0.0, usable)
    return _bar(
        vram_gib,
        ("ours", ours, "planned for this render"),
        ("free", usable - ours, "free" if answers else "usable when last heard"),
        ("others", vram_gib - usable, "driver and other programs"),
    )


def _bar(vram_gib: float, *sizes: tuple[Part, float, str]) -> MemoryBar:
    segments = []
    start = 0.0
    for part, size, what in sizes:
        if size < LEAST_GIB:
            continue
        share = 100 * size / vram_gib
        segments.append(Segment(part, round(start, 2), round(share, 2), f"{gib(size)} {what}"))
        start += share
    return MemoryBar(tuple(segments))
