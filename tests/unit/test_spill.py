"""Memory that Windows moves to RAM is known by the pace of the steps, and by nothing else."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node_agent.ladder import MemoryReading
from node_agent.spill import MOST_MARGIN_GIB, NEAR_FULL_GIB, SLOWER, Spill, can_spill, find_spill, margin_gib

FULL, ROOMY = MemoryReading(6.0, 0.1, 5.3), MemoryReading(6.0, 1.2, 4.2)
STEADY = [5.0, 2.0, 2.0, 2.1, 1.9, 2.0]


@pytest.mark.parametrize(
    ("paces", "expected", "memory", "spills"),
    [
        ([*STEADY, 20.0, 21.0, 19.0], 2.0, FULL, True),  # all of a sudden
        ([*STEADY, 20.0, 21.0, 19.0], None, FULL, True),  # without any prediction
        ([20.0, 21.0, 19.0, 20.0], 2.0, FULL, True),  # from the start
        ([20.0, 21.0, 19.0, 20.0] * 3, None, FULL, False),  # slow from the start, and nobody knows better
        ([20.0, 21.0, 19.0, 20.0], 6.0, FULL, False),  # a prediction that errs
        ([*STEADY, 20.0, 21.0, 19.0], 2.0, ROOMY, False),  # slow, but not for want of memory: heat, a game
        ([*STEADY, 20.0, 21.0, 19.0], 2.0, None, False),
        ([*STEADY, 20.0, 2.0, 2.0], 2.0, FULL, False),  # one slow step
        (STEADY, 2.0, FULL, False),
        ([40.0, 20.0, 21.0], 2.0, FULL, False),  # too few to say
        ([90.0, 2.0, 2.0, 2.0], 2.0, FULL, False),  # the first step loads kernels
        ([], 2.0, FULL, False),
        ([20.0, 21.0, 19.0, 20.0], 0.0, FULL, False),
    ],
)
def test_a_spill_is_many_times_the_usual_pace_on_a_full_card(
    paces: list[float], expected: float | None, memory: MemoryReading | None, spills: bool
) -> None:
    assert (find_spill(paces, expected, memory) is not None) == spills


def test_a_spill_says_how_slow_it_is_and_what_helps() -> None:
    found = find_spill([*STEADY, 20.0, 21.0, 19.0], 2.5, FULL)
    assert found == Spill(20.0, 2.0)
    assert found.told.startswith(
        "Windows is moving this card's memory to RAM: a step takes 20.0 s instead of 2.0 s. The next renders use 0.5 GiB less"
    )
    assert "Prefer No Sysmem Fallback" in found.told


PACES = st.lists(st.floats(0.01, 100), max_size=30)


@given(PACES, st.none() | st.floats(0.01, 100), st.floats(0, 6))
def test_no_spill_without_a_full_card_and_a_pace_that_fell(
    paces: list[float], expected: float | None, free: float
) -> None:
    found = find_spill(paces, expected, MemoryReading(6.0, free, 0.0))
    if found is not None:
        assert free <= NEAR_FULL_GIB
        assert found.pace_s >= SLOWER * found.usual_s
        assert found.pace_s <= max(paces[-3:])


@given(PACES, st.floats(0.01, 100), st.floats(0.1, 10))
def test_it_does_not_matter_in_which_unit_time_is_told(
    paces: list[float], expected: float, unit: float
) -> None:
    slower = [pace * unit for pace in paces]
    first, second = find_spill(paces, expected, FULL), find_spill(slower, expected * unit, FULL)
    if first is None or second is None:
        nearest = min((first or second or Spill(0, 1)).pace_s / (first or second or Spill(0, 1)).usual_s, 1e9)
        assert first is second or nearest == pytest.approx(SLOWER)
    else:
        assert second.pace_s == pytest.approx(first.pace_s * unit)


def test_the_margin_grows_with_each_spill_and_has_an_end() -> None:
    assert [margin_gib(spills) for spills in (0, 1, 2, 4, 9)] == [0.0, 0.5, 1.0, 2.0, MOST_MARGIN_GIB]


@pytest.mark.parametrize(
    ("version", "spills"),
    [
        ("Linux version 5.15.153.1-microsoft-standard-WSL2 (root@941d701f84f1)", True),
        ("Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org)", False),
    ],
)
def test_only_windows_driver_spills(tmp_path: Path, version: str, spills: bool) -> None:
    """On Linux a full card runs out of memory; a slow render there is slow for another reason."""
    file = tmp_path / "version"
    file.write_text(version)
    assert can_spill(file) == spills
    assert not can_spill(tmp_path / "none")
