"""How often predictions held: of attempts as the store has them, and of made-up histories."""

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

import pytest
import sqlalchemy as sa

from benchmarks import intervals
from farm.ids import new_id
from farm.model import FailureClass, MemoryPlan
from farm.planning.calibration import Calibration, Foretold, calibration
from farm.planning.spans import SHARE, Span, Z, spread
from farm.states import AttemptMove, JobMove
from farm.store.claims import Assignment
from farm.store.writer import Result
from tests.storage import Storage, open_storage


def told(took: float) -> Foretold:
    return Foretold(Span(80.0, 100.0, 125.0), took)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


def begun(store: Storage, low: float | None = 80.0) -> str:
    """An attempt that renders, of which 100 s were foretold; returns its id."""
    (card,) = store.add_cards(1)
    assignment = Assignment(
        new_id(), store.submit().id, "n1", card.id, card.name, MemoryPlan(),
        predicted_s=100.0, predicted_low_s=low, predicted_high_s=125.0, predicted_basis="measured",
    )  # fmt: skip
    assert store.writer.assign([assignment], 1.0)
    store.writer.progress(assignment.attempt_id, AttemptMove.RUN, 2.0, 1)
    return assignment.attempt_id


def test_the_truth_is_what_the_prediction_was_about_and_the_newest_comes_first(store: Storage) -> None:
    """Loading the model is no part of it, so that 40 s more of it do not count against the prediction."""
    for at, took in enumerate((90.0, 110.0)):
        spent = {"load": 40.0, "denoise": took - 10.0, "encode": 10.0}
        attempt = begun(store)
        assert store.writer.finish(attempt, Result("a", "b", spent, None, 3.0), 4.0 + at)
    span = Span(80.0, 100.0, 125.0)
    assert store.reader.foretold(10) == [Foretold(span, 110.0, "measured"), Foretold(span, 90.0, "measured")]
    assert store.reader.foretold(1) == [Foretold(span, 110.0, "measured")]


def test_what_was_not_foretold_or_not_rendered_alone_says_nothing(store: Storage) -> None:
    spent = {"denoise": 90.0}
    untold = begun(store, low=None)
    assert store.writer.finish(untold, Result("a", "b", spent, None, 3.0), 4.0)
    disturbed = begun(store)
    store.writer.note(disturbed, 2, "A game took the card.", 3.0, disturbed=True)
    assert store.writer.finish(disturbed, Result("a", "b", spent, None, 3.0), 4.0)
    resumed = begun(store)
    store.writer.note(resumed, 2, "It went on after step 20.", 3.0, resumed_step=20)
    assert store.writer.finish(resumed, Result("a", "b", spent, None, 3.0), 4.0)
    unmeasured = begun(store)
    assert store.writer.finish(unmeasured, Result("a", "b", {}, None, 3.0), 4.0)
    failed = begun(store)
    store.writer.fail(failed, FailureClass.INTERNAL, "It broke.", 4.0, then=JobMove.REQUEUE)
    assert store.reader.foretold(10) == []


def test_predictions_are_found_without_a_look_at_every_attempt(store: Storage) -> None:
    """The Cards page took 70 ms with 100,000 attempts, 46 of them to find that none of them had been foretold."""
    said: list[str] = []
    engine = store.reader._engine

    @sa.event.listens_for(engine, "before_cursor_execute")
    def note(*sent: object) -> None:
        said.append(f"{sent[2]}")

    store.reader.foretold(10)
    store.reader.last_foretold()
    asked = [text for text in said if text.startswith("SELECT")]
    assert len(asked) == 2
    with engine.connect() as connection:
        for text in asked:
            values = (1,) * text.count("?")
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
            assert [row[3] for row in plan] == ["SCAN attempts USING INDEX ix_attempts_foretold"], plan


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
