"""How often predictions held: of attempts as the store has them, and of made-up histories."""

import math
from dataclasses import replace
from statistics import NormalDist

import pytest

from benchmarks import intervals
from farm.model import Attempt, AttemptStatus
from farm.planning.calibration import Calibration, Foretold, calibration, foretold
from farm.planning.spans import SHARE, Span, Z, spread

RENDERED = Attempt(
    "A1", "J1", 1, "n1", "GPU-1", "RTX 2060", AttemptStatus.FINISHED, 1.0,
    stage_seconds={"load": 40.0, "denoise": 90.0, "encode": 10.0},
    predicted_s=100.0, predicted_low_s=80.0, predicted_high_s=125.0, predicted_basis="measured",
)  # fmt: skip


def told(took: float) -> Foretold:
    return Foretold(Span(80.0, 100.0, 125.0), took)


def test_the_truth_is_what_the_prediction_was_about() -> None:
    """Loading the model is no part of it, so that 40 s more of it do not count against the prediction."""
    assert foretold(RENDERED) == Foretold(Span(80.0, 100.0, 125.0), 100.0, "measured")


@pytest.mark.parametrize(
    "attempt",
    [
        replace(RENDERED, status=AttemptStatus.FAILED),
        replace(RENDERED, status=AttemptStatus.LOST),
        replace(RENDERED, disturbed=True),
        replace(RENDERED, stage_seconds={}),
        replace(RENDERED, predicted_low_s=None),
        replace(RENDERED, predicted_s=None),
    ],
)
def test_what_was_not_foretold_or_not_rendered_alone_says_nothing(attempt: Attempt) -> None:
    assert foretold(attempt) is None


def test_shares_below_within_and_above() -> None:
    found = calibration(told(took) for took in (50.0, 80.0, 100.0, 125.0, 126.0, 200.0, 90.0, 110.0))
    assert found == Calibration(
        8,
        within=pytest.approx(5 / 8),
        quicker=pytest.approx(1 / 8),
        slower=pytest.approx(2 / 8),
        median_error=pytest.approx((0.2 + 26 / 126) / 2),
    )
    assert calibration([]) == Calibration(0)


def test_an_interval_of_four_fifths_holds_four_fifths_of_a_normal_distribution() -> None:
    assert NormalDist().cdf(Z) - NormalDist().cdf(-Z) == pytest.approx(SHARE, abs=1e-4)
    assert spread(100.0, 0.0) == Span(100.0, 100.0, 100.0)
    assert spread(100.0, 0.3).high == pytest.approx(
        100.0 * math.exp(0.3 * NormalDist().inv_cdf(0.9)), abs=0.01
    )


@pytest.mark.parametrize(
    "world", [world for world in intervals.WORLDS if world.must], ids=lambda world: world.name
)
def test_intervals_hold_in_made_up_histories(world: intervals.World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "CARDS", 200)
    by_age = intervals.judge(world)
    every = calibration(one for ones in by_age.values() for one in ones)
    assert every.renders == 200 * intervals.RENDERS
    assert every.within is not None
    assert every.within >= intervals.LEAST
    assert every.median_error is not None
    assert every.median_error < 0.25
