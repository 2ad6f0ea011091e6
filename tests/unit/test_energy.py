"""Watt-hours of an attempt from a card's readings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.energy import GAP_S, WAIT_S, EnergyBook


def book(start: float, end: float, readings: list[tuple[float, float]]) -> EnergyBook:
    made = EnergyBook()
    made.begin("A1", "GPU-1", start)
    for at, watts in readings:
        if at > end:
            made.end("A1", end)
        made.read("GPU-1", at, watts)
    made.end("A1", end)
    return made


def test_steady_power_over_half_a_minute() -> None:
    readings = [(float(at), 180.0) for at in range(0, 40, 2)]
    assert book(5.0, 35.0, readings).settled(36.0) == [("A1", pytest.approx(180 * 30 / 3600, abs=1e-4))]


def test_rising_power_counts_as_a_straight_line_between_readings() -> None:
    assert book(2.0, 8.0, [(0.0, 0.0), (10.0, 100.0)]).settled(10.0) == [
        ("A1", pytest.approx(50 * 6 / 3600, abs=1e-4))
    ]


def test_an_attempt_waits_for_the_reading_after_its_end_and_not_for_ever() -> None:
    made = book(0.0, 10.0, [(0.0, 100.0), (8.0, 100.0)])
    assert made.settled(11.0) == []
    assert made.settled(10.0 + WAIT_S + 0.1) == [("A1", pytest.approx(100 * 10 / 3600, abs=1e-4))]
    assert made.settled(100.0) == [], "each is told once"


def test_a_card_that_tells_no_power_gives_no_figure() -> None:
    assert book(0.0, 10.0, []).settled(100.0) == [("A1", None)]


def test_a_gap_counts_as_the_rest_and_not_as_nothing_or_as_a_line_through_it() -> None:
    before = [(float(at), 200.0) for at in range(0, 21, 2)]
    after = [(float(at), 200.0) for at in range(40, 61, 2)]
    assert GAP_S < 40 - 20
    assert book(0.0, 60.0, before + after).settled(61.0) == [("A1", pytest.approx(200 * 60 / 3600, abs=1e-3))]
    mostly_unknown = [(0.0, 200.0), (2.0, 200.0), (58.0, 200.0), (60.0, 200.0)]
    assert book(0.0, 60.0, mostly_unknown).settled(61.0) == [("A1", None)]


def test_what_a_former_scheduler_read_counts() -> None:
    made = EnergyBook()
    made.begin("A1", "GPU-1", 0.0)
    made.recall("A1", 30.0, 120.0)
    made.read("GPU-1", 30.0, 120.0)
    made.read("GPU-1", 40.0, 120.0)
    made.end("A1", 40.0)
    assert made.settled(40.0) == [("A1", pytest.approx(120 * 40 / 3600, abs=1e-4))]


@given(
    st.lists(st.tuples(st.floats(0.1, 10.0), st.floats(1.0, 400.0)), min_size=2, max_size=30),
    st.floats(0.05, 0.95),
)
def test_two_attempts_one_after_the_other_draw_what_one_over_both_times_draws(
    steps: list[tuple[float, float]], where: float
) -> None:
    readings, at = [], 0.0
    for gap, watts in steps:
        readings.append((at, watts))
        at += gap
    whole = readings[-1][0]
    cut = whole * where
    parts = [book(0.0, cut, readings), book(cut, whole, readings), book(0.0, whole, readings)]
    first, second, both = (made.settled(1e9)[0][1] for made in parts)
    assert first is not None
    assert second is not None
    assert first + second == pytest.approx(both, abs=1e-3)


def test_other_cards_readings_are_not_counted() -> None:
    made = EnergyBook()
    made.begin("A1", "GPU-1", 0.0)
    for at in range(0, 12, 2):
        made.read("GPU-2", float(at), 300.0)
        made.read("GPU-1", float(at), 60.0)
    made.end("A1", 10.0)
    assert made.settled(10.0) == [("A1", pytest.approx(60 * 10 / 3600, abs=1e-4))]
