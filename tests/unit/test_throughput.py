"""What cards got done, from stored attempts: every figure by value, and none where there was nothing."""

import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from farm.answers.figures import Throughput
from farm.model import FailureClass, MemoryPlan
from farm.states import LIVE_ATTEMPTS, JobMove
from farm.store import schema
from farm.store.claims import Assignment
from farm.store.engine import open_engine
from farm.store.throughput import _HELD_NOW, Done, ThroughputReader
from farm.store.writer import Result
from tests.storage import SETTINGS, Storage, open_storage

HOUR = 3600.0
SINCE = 100 * HOUR


class Card:
    """A card of a store of its own, whose attempts a test lists as (begin, end, what became of it)."""

    def __init__(self, directory: Path) -> None:
        self.store: Storage = open_storage(directory)
        self.card, self.idle = self.store.add_cards(2)
        self.reader = ThroughputReader(open_engine(self.store.url, writes=False))
        self.made = 0

    def begin(self, at: float, **changes: int) -> str:
        self.made += 1
        job = self.store.submit(replace(SETTINGS, **changes), now=at)
        name = f"A{self.made}"
        claim = Assignment(name, job.id, "n1", self.card.id, self.card.name, MemoryPlan())
        assert self.store.writer.assign([claim], at)
        return name

    def finish(self, at: float, until: float, denoise_s: float | None = None, **changes: int) -> None:
        parts = {"load": 1.0} if denoise_s is None else {"load": 1.0, "denoise": denoise_s}
        name = self.begin(at, **changes)
        self.store.writer.finish(name, Result("ab" * 32, "cd" * 32, parts, 0.5, until), until)

    def done(self, until: float, part_s: float | None = None) -> Done:
        return self.reader.done([self.card.id, self.idle.id], SINCE, until, part_s)[self.card.id]


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def test_every_figure_of_a_busy_span(card: Card) -> None:
    """Two clips of 16 and 8 frames, one failure, one cancelled, within four hours."""
    card.finish(SINCE + 600, SINCE + 900, denoise_s=250.0, frames=16, steps=50)
    card.finish(SINCE + 1000, SINCE + 1300, denoise_s=150.0, frames=8, steps=30)
    name = card.begin(SINCE + 2000)
    card.store.writer.fail(name, FailureClass.INTERNAL, "It broke.", SINCE + 2060, then=JobMove.GIVE_UP)
    name = card.begin(SINCE + 3000)
    card.store.writer.cancelled(name, SINCE + 3060)
    done = card.done(SINCE + 4 * HOUR)
    assert done.clips == 2
    assert done.clips_per_hour == pytest.approx(0.5)
    assert done.frames_per_minute == pytest.approx(24 / 240)
    assert done.seconds_per_step == pytest.approx(400 / 80)
    assert done.success_rate == pytest.approx(2 / 3)
    assert done.utilization == pytest.approx((300 + 300 + 60 + 60) / (4 * HOUR))
    assert done.wh_per_clip is None


def test_an_attempt_that_went_on_from_a_checkpoint_made_only_the_steps_that_were_left(card: Card) -> None:
    name = card.begin(SINCE + 600, steps=50)
    assert card.store.writer.note(name, 1, "Goes on after step 30.", SINCE + 601, resumed_step=30)
    card.store.writer.finish(
        name, Result("ab" * 32, "cd" * 32, {"denoise": 40.0}, 0.5, SINCE + 650), SINCE + 650
    )
    assert card.done(SINCE + HOUR).seconds_per_step == pytest.approx(40 / 20)


def test_energy_is_the_mean_over_the_clips_of_which_it_is_known(card: Card) -> None:
    """The figure was there and never worked out. A clip whose card tells no power is none that was made for nothing."""
    for begin, drawn_wh in ((100, 1.5), (200, None), (300, 2.5)):
        name = card.begin(SINCE + begin)
        card.store.writer.finish(
            name, Result("ab" * 32, "cd" * 32, {}, 0.5, SINCE + begin + 50), SINCE + begin + 50
        )
        if drawn_wh is not None:
            card.store.writer.drew(name, drawn_wh)
    failed = card.begin(SINCE + 400)
    card.store.writer.lose(failed, "Gone.", SINCE + 410)
    card.store.writer.drew(failed, 9.0)
    done = card.done(SINCE + HOUR, 300.0)
    assert (done.clips, done.wh_per_clip) == (3, 2.0)


def test_what_ended_before_or_ends_later_is_not_of_the_span(card: Card) -> None:
    card.finish(SINCE - 200, SINCE - 100)
    card.finish(SINCE + HOUR - 50, SINCE + HOUR)
    assert card.done(SINCE + HOUR).clips == 0
    assert card.done(SINCE + HOUR + 1).clips == 1


def test_an_attempt_counts_for_the_utilization_only_within_the_span(card: Card) -> None:
    card.finish(SINCE - 1000, SINCE + 500)
    card.begin(SINCE + HOUR - 300)
    assert card.done(SINCE + HOUR).utilization == pytest.approx((500 + 300) / HOUR)


def test_a_card_that_did_nothing_has_no_figures_not_noughts(card: Card) -> None:
    card.finish(SINCE + 10, SINCE + 20)
    found = card.reader.done([card.card.id, card.idle.id], SINCE, SINCE + HOUR)
    assert found[card.idle.id] == Done(card.idle.id, SINCE, SINCE + HOUR)
    assert card.reader.done([], SINCE, SINCE + HOUR) == {}


def test_failures_alone_give_a_success_rate_and_no_rate_of_clips(card: Card) -> None:
    name = card.begin(SINCE + 10)
    card.store.writer.lose(name, "Gone.", SINCE + 20)
    done = card.done(SINCE + HOUR)
    assert (done.success_rate, done.clips_per_hour, done.seconds_per_step) == (0.0, None, None)


def test_models_without_denoising_have_no_seconds_per_step(card: Card) -> None:
    card.finish(SINCE + 10, SINCE + 20)
    assert card.done(SINCE + HOUR).seconds_per_step is None


def test_a_card_that_joined_within_the_span_is_measured_from_then_on(card: Card) -> None:
    found = card.reader.done([card.card.id], 0.0, 1.0 + HOUR)[card.card.id]
    assert found.since == 1.0  # when `add_cards` let it join
    card.finish(1000.0, 1010.0)
    assert card.reader.done([card.card.id], -9 * HOUR, 1.0 + HOUR)[card.card.id].clips_per_hour == 1.0


def test_parts_count_the_clips_of_each_and_leave_out_the_empty_ones(card: Card) -> None:
    for end in (100.0, 299.9, 300.0, 3500.0):
        card.finish(SINCE + end - 50, SINCE + end)
    assert card.done(SINCE + HOUR, 300.0).parts == {SINCE: 2, SINCE + 300: 1, SINCE + 3300: 1}
    assert card.done(SINCE + HOUR).parts is None


def test_the_words_by_which_the_database_knows_live_attempts_are_those_of_the_states() -> None:
    assert set(re.findall(r"'(\w+)'", str(schema.LIVE))) == {str(status) for status in LIVE_ATTEMPTS}


def test_what_failed_on_a_card_is_found_by_its_index(card: Card) -> None:
    """Else a card that never fails would have all its attempts looked through, for a list of ten."""
    attempts = schema.attempts
    statement = (
        sa.select(attempts)
        .where(attempts.c.card_id == "A", schema.TROUBLED)
        .order_by(attempts.c.finished_at.desc())
    )
    said = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    with card.store.reader._engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}").all()
    assert len(plan) == 1, plan
    assert "ix_attempts_troubled" in plan[0].detail


def test_live_attempts_are_found_by_their_index(card: Card) -> None:
    """They were looked for among all attempts: 20 ms with 100,000 of them, on every first screen."""
    attempts = schema.attempts
    for statement in (
        sa.select(attempts).where(schema.LIVE),
        sa.select(attempts.c.card_id).where(schema.LIVE, attempts.c.card_id.in_(["A", "B"])),
        _HELD_NOW.params(since=SINCE, until=SINCE + 1.0),
    ):
        said = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
        with card.store.reader._engine.connect() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}").all()
        assert "one_live_per" in plan[0].detail, plan


def test_a_windows_figures_are_kept_for_a_while_and_then_found_anew(card: Card) -> None:
    """30 days of 100,000 attempts were summed up for every open page every minute: 0.7 s each."""

    def clips(now: float, *ids: str) -> int:
        return card.reader.window("24h", ids or (card.card.id,), now)[card.card.id].clips

    card.finish(SINCE + 10, SINCE + 20)
    assert clips(SINCE + 30) == 1
    card.finish(SINCE + 30, SINCE + 40)
    assert clips(SINCE + 59) == 1
    assert clips(SINCE + 60) == 2
    card.finish(SINCE + 61, SINCE + 62)
    assert clips(SINCE + 63, card.card.id, card.idle.id) == 3  # another set of cards is another question
    assert clips(SINCE + 50, card.card.id, card.idle.id) == 2  # a clock that was set back


def test_every_figure_of_the_store_is_in_the_answer_under_its_own_name() -> None:
    """The two were copied field by field: a new figure was in one of them only."""
    assert {one.name for one in fields(Done)} <= Throughput.model_fields.keys()
