"""Places in the ring: nothing is overwritten before it has computed, whatever the sizes. By simulation of every pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import ConfigurationError
from farm.planning.ring import lay_out, smallest_ring

SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=12)


@given(SIZES, st.integers(0, 200))
def test_what_a_unit_waits_for_is_all_that_it_overwrites(sizes: list[int], more: int) -> None:
    slots = lay_out(sizes, max(sizes) + more)
    count = len(sizes)
    held: dict[int, tuple[int, int]] = {}  # absolute number of a unit's turn -> its bytes
    for turn in range(3):
        for position, slot in enumerate(slots):
            number = turn * count + position
            assert slot.end - slot.start == sizes[position]
            assert slot.end <= max(sizes) + more
            done = turn * count + slot.after  # by the promise, all turns up to this one have computed
            for other, (start, end) in held.items():
                if start < slot.end and slot.start < end:
                    assert other <= done, (number, other, done)
            held = {
                other: span
                for other, span in held.items()
                if not (span[0] < slot.end and slot.start < span[1])
            }
            held[number] = (slot.start, slot.end)


@given(SIZES)
def test_in_the_smallest_ring_a_copy_runs_beside_the_unit_before(sizes: list[int]) -> None:
    ring = smallest_ring(sizes)
    slots = lay_out(sizes, ring)
    assert all(slot.after < position - 1 for position, slot in enumerate(slots) if position)
    assert ring <= 3 * max(sizes) + max(sizes) // 8


def test_a_ring_smaller_than_a_unit_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="A ring of 9 bytes cannot hold a unit of 10"):
        lay_out([4, 10], 9)


def test_nothing_streams_through_no_ring() -> None:
    assert lay_out([], 0) == []
    assert smallest_ring([]) == 0
