"""What nodes say of their cards becomes history of bounded size, and attempts know what they drew."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from farm.model import Attempt, CardKind, MemoryPlan
from farm.store import schema
from farm.store.claims import Assignment
from farm.store.telemetry import FINE_S, SPANS, Figures, Row
from farm.vitals import Vitals
from farm.wire import CardReport, NodeReport
from scheduler.telemetry import IDLE_EVERY_S, Telemetry
from tests.fakes import MovedClock
from tests.storage import Storage, open_storage

START = 1_000_000.0 // 3600 * 3600
SKEW = 3600.0
"""By how much the node's clock is wrong."""


class Station:
    """A scheduler's telemetry on a real store, with one card that reports."""

    def __init__(self, directory: Path) -> None:
        self.store: Storage = open_storage(directory)
        (self.card,) = self.store.add_cards(1)
        self.clock = MovedClock(START)
        self.busy: set[str] = set()
        self.telemetry = self.fresh()

    def fresh(self) -> Telemetry:
        """As after a restart of the scheduler."""
        return Telemetry(self.store.writer, self.store.reader, self.clock, self.busy.__contains__)

    def report(self, seconds: float, watts: float | None = 100.0, every: float = 2.0, **more: float) -> None:
        """The node reports for some seconds."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end - 1e-9:
            self.clock.move(every)
            at = self.clock.seconds + SKEW
            vitals = Vitals(at - 0.5, power_w=watts, **more)  # type: ignore[arg-type]  # names of fields
            card = CardReport(self.card.id, CardKind.CUDA, self.card.name, vitals=vitals)
            self.telemetry.take(NodeReport("n1", "n1", "", at, {}, (card,)))

    def begin(self) -> Attempt:
        job = self.store.submit()
        assignment = Assignment("A1", job.id, "n1", self.card.id, self.card.name, MemoryPlan())
        (attempt,) = self.store.writer.assign([assignment], self.clock.now())
        self.telemetry.begin(attempt, handed_over=False)
        self.busy.add(self.card.id)
        return attempt

    def end(self) -> None:
        self.busy.discard(self.card.id)
        self.telemetry.end("A1")

    def rows(self, span_s: int) -> int:
        with self.store.reader._engine.connect() as connection:
            return int(
                connection.scalar(sa.select(sa.func.count()).where(schema.telemetry.c.span_s == span_s)) or 0
            )

    def energy(self) -> float | None:
        job = self.store.reader.jobs().jobs[0]
        return self.store.reader.attempts(job.id)[0].energy_wh


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def test_readings_become_means_of_ten_seconds(station: Station) -> None:
    station.busy.add(station.card.id)
    station.report(20, 100.0, utilization=0.5, temperature_c=60)
    station.report(20, 200.0, utilization=1.0, temperature_c=70)
    station.report(20)
    rows = station.store.reader.telemetry.of(station.card.id, START, station.clock.now())
    assert [row.at for row in rows][:4] == [START + 10 * index for index in range(4)]
    assert rows[1].figures == Figures(utilization=0.5, temperature_c=60.0, power_w=100.0)
    assert rows[3].figures == Figures(utilization=1.0, temperature_c=70.0, power_w=200.0)
    # The first reading of the hotter half came half a second before the span's end.
    assert all(row.span_s == FINE_S for row in rows)


def test_an_idle_card_s_reading_is_kept_every_ten_seconds(station: Station) -> None:
    station.report(300)
    kept = [span for span in station.telemetry._spans.values() if span.seen]
    assert sum(len(span.seen) for span in kept) == 1
    assert IDLE_EVERY_S == 10.0


def test_an_attempt_knows_what_it_drew_though_its_node_s_clock_is_an_hour_off(station: Station) -> None:
    station.report(10, 10.0)
    station.begin()
    station.report(60, 180.0)
    station.end()
    assert station.energy() is None, "not yet: its last seconds are not read"
    station.report(4, 180.0)
    assert station.energy() == pytest.approx(180 * 60 / 3600, rel=0.03)


def test_a_card_without_a_reading_of_power_draws_nobody_knows_what(station: Station) -> None:
    station.begin()
    station.report(60, None)
    station.end()
    station.report(20, None)
    assert station.energy() is None


def test_a_restarted_scheduler_counts_what_was_drawn_before(station: Station) -> None:
    station.report(10, 10.0)
    attempt = station.begin()
    station.report(60, 180.0)
    station.telemetry = station.fresh()
    station.telemetry.begin(attempt, handed_over=True)
    station.report(60, 180.0)
    station.end()
    station.report(4, 180.0)
    assert station.energy() == pytest.approx(180 * 120 / 3600, rel=0.05)


def test_history_is_rolled_up_and_bounded(station: Station) -> None:
    """Ten days of readings, an hour at a time: no span keeps more rows than its time holds."""
    writer, card = station.store.writer.telemetry, station.card.id
    for hour in range(10 * 24):
        begin = START + hour * 3600
        writer.keep(
            [Row(card, FINE_S, begin + at, Figures(power_w=float(hour))) for at in range(0, 3600, 300)]
        )
        writer.thin(begin + 3600)
    fine, middle, coarse = (station.rows(span) for span, _ in SPANS)
    assert (fine, middle) == (2 * 12, 7 * 24 * 12)
    assert coarse == 10 * 24
    now = START + 10 * 24 * 3600
    reader = station.store.reader.telemetry
    assert [row.figures.power_w for row in reader.of(card, now - 3600, now)] == [239.0] * 12
    week = reader.of(card, now - 7 * 86_400 + 300, now)
    assert (week[0].span_s, week[-1].figures.power_w) == (300, 239.0)
    month = reader.of(card, now - 30 * 86_400, now)
    assert [row.figures.power_w for row in month] == [float(hour) for hour in range(240)]


def test_thinning_twice_or_after_a_restart_changes_nothing(station: Station) -> None:
    writer, card = station.store.writer.telemetry, station.card.id
    writer.keep([Row(card, FINE_S, START + at, Figures(temperature_c=float(at))) for at in range(0, 600, 10)])
    for _ in range(3):
        writer.thin(START + 700)
    rows = station.store.reader.telemetry.of(card, START + 700 - 3 * 3600, START + 700)
    assert [(row.at, row.figures.temperature_c) for row in rows] == [(START, 290.0), (START + 300, 590.0)]


def test_a_card_that_is_forgotten_takes_its_history_with_it(station: Station) -> None:
    writer = station.store.writer.telemetry
    writer.keep([Row(station.card.id, FINE_S, START, Figures(power_w=1.0))])
    with station.store.writer._engine.begin() as connection:
        connection.execute(sa.delete(schema.cards).where(schema.cards.c.id == station.card.id))
    assert station.rows(FINE_S) == 0
    writer.keep([Row(station.card.id, FINE_S, START, Figures(power_w=1.0))])
    assert station.rows(FINE_S) == 0, "a late row of it is no fault"


def test_a_long_time_is_thinned_to_what_a_chart_can_show(station: Station) -> None:
    """A week was 2,016 points and a year 8,760."""
    card = station.card.id
    rows = [
        Row(
            card,
            300,
            START + 300 * part,
            Figures(utilization=0.2 if part % 2 else 0.4, temperature_c=50.0 + part),
        )
        for part in range(12)
        if part not in (6, 7)
    ]
    station.store.writer.telemetry.keep(rows)
    reader = station.store.reader.telemetry
    first, second = reader.parts(card, START - 6 * 86_400, START + 3600, 1800)
    assert (first.at, first.span_s, first.figures.temperature_c) == (START, 1800, 55.0)
    assert first.figures.utilization == pytest.approx(0.3)
    assert (second.at, second.figures.temperature_c, second.figures.power_w) == (START + 1800, 61.0, None)
    assert reader.parts(card, START - 6 * 86_400, START - 3600, 1800) == [], "none, and not nought"


def test_a_silence_lies_between_two_readings_and_is_ten_minutes_long(station: Station) -> None:
    card = station.card.id
    told = [0, 300, 900, 1800, 2100]  # 300 and 900 s: one row is missing; 900 and 1800: two
    station.store.writer.telemetry.keep([Row(card, 300, START + at, Figures()) for at in told])
    reader = station.store.reader.telemetry
    assert reader.silences(card, START - 60, START + 86_400) == [(START + 1200, START + 1800)]
    assert reader.silences("GPU-nobody", START - 60, START + 86_400) == []
