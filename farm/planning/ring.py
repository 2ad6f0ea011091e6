"""Where each streamed unit lies in the ring, and what must be done before it may be overwritten. Pure, no torch.

A ring is one block of device memory that the units of a network pass through, in the order in which they compute, once per
pass. Each unit has a fixed place, so that its parameters are bound once and only the bytes behind them change. As many units are
ahead of the one that computes as the ring has room for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from farm.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Slot:
    """A unit's place: bytes `start` to `end` of the ring.

    `after` says when it may be filled for pass `p`: once the unit at that position has computed, in this pass (0 and above), or in
    the one before (negative: position `after + number of units` of pass `p - 1`).
    """

    start: int
    end: int
    after: int


def lay_out(sizes: Sequence[int], ring_bytes: int) -> list[Slot]:
    """Places units of `sizes` bytes, in order of computation, into a ring.

    One after the other; a unit that does not fit into the rest begins again at the start. At least one unit that is being brought in must
    not wait for the one right before it, or nothing would overlap: see `smallest_ring`.

    Raises:
        ConfigurationError: the ring is smaller than the largest unit.
    """
    if sizes and max(sizes) > ring_bytes:
        raise ConfigurationError(
            f"A ring of {ring_bytes:,} bytes cannot hold a unit of {max(sizes):,}.", "Use a larger ring."
        )
    places = _places(sizes, ring_bytes)
    count = len(places)
    slots = []
    for position, (start, end) in enumerate(places):
        # The latest one before it, counted back through this pass and the last, whose bytes it takes. There always is one: itself.
        earlier = (back for back in range(position - 1, position - count - 1, -1))
        after = next(
            back for back in earlier if places[back % count][0] < end and start < places[back % count][1]
        )
        slots.append(Slot(start, end, after))
    return slots


def _places(sizes: Sequence[int], ring_bytes: int) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    at = 0
    for size in sizes:
        if at + size > ring_bytes:
            at = 0
        places.append((at, at + size))
        at += size
    return places


def _side_by_side(places: Sequence[tuple[int, int]]) -> bool:
    """Whether every unit but a pass's first may be filled while the one before it still computes."""
    return all(end <= other or begin >= stop for (begin, end), (other, stop) in pairwise(places))


def smallest_ring(sizes: Sequence[int]) -> int:
    """Bytes with which each copy runs beside the computation of the unit before, to within an eighth of the largest unit.

    Between twice the largest, under which neighbours cannot lie side by side, and three times, with which they always do.
    """
    if not sizes:
        return 0
    largest = max(sizes)
    if len(sizes) == 1:
        return largest
    step = max(1, largest // 8)
    return next(size for size in range(2 * largest, 4 * largest, step) if _side_by_side(_places(sizes, size)))
