"""Takes in what nodes say of their cards: keeps it as history, and what each attempt drew with the attempt."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from farm.clock import Clock
from farm.model import Attempt
from farm.store.reader import Reader
from farm.store.telemetry import FIGURES, FINE_S, Figures, Row
from farm.store.writer import Writer
from farm.vitals import Vitals
from farm.wire import NodeReport
from scheduler.energy import EnergyBook

log = logging.getLogger(__name__)

IDLE_EVERY_S = 10.0
"""Of an idle card one reading is kept in each such span, so that none is left out; one at work is read every two seconds."""
WRITE_EVERY_S = 10.0
THIN_EVERY_S = 300.0


@dataclass(slots=True)
class _Span:
    """The readings of one card since `at`."""

    at: float
    seen: list[Vitals] = field(default_factory=list)

    def row(self, card_id: str) -> Row:
        return Row(card_id, FINE_S, self.at, Figures(*(_summed(name, self.seen) for name in FIGURES)))


def _summed(name: str, seen: Sequence[Vitals]) -> float | None:
    told = [float(value) for vitals in seen if (value := getattr(vitals, name)) is not None]
    if not told:
        return None
    return max(told) if name == "temperature_c" else round(fmean(told), 4)


class Telemetry:
    """One per scheduler. `busy(card_id)`: whether the card has an attempt."""

    def __init__(self, writer: Writer, reader: Reader, clock: Clock, busy: Callable[[str], bool]) -> None:
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._busy = busy
        self._energy = EnergyBook()
        self._spans: dict[str, _Span] = {}
        self._heard: dict[str, float] = {}
        self._rows: list[Row] = []
        self._wrote = self._thinned = float("-inf")

    def begin(self, attempt: Attempt, *, handed_over: bool) -> None:
        """An attempt holds its card. One that a former scheduler began has drawn what the history tells."""
        self._energy.begin(attempt.id, attempt.card_id, attempt.assigned_at)
        if not handed_over:
            return
        for row in self._reader.telemetry.of(attempt.card_id, attempt.assigned_at, self._clock.now()):
            if row.figures.power_w is not None:
                seconds = row.span_s - max(0.0, attempt.assigned_at - row.at)
                self._energy.recall(attempt.id, seconds, row.figures.power_w)

    def end(self, attempt_id: str) -> None:
        """An attempt has let its card go."""
        self._energy.end(attempt_id, self._clock.now())

    def take(self, report: NodeReport) -> None:
        """What a node says of its cards. Its wall clock may be wrong: only how old a reading is counts."""
        now = self._clock.now()
        for said in report.cards:
            if said.vitals is not None:
                self._take_one(said.id, now - max(0.0, report.at - said.vitals.at), said.vitals)
        self._settle(now)
        self._write(now)

    def _take_one(self, card_id: str, at: float, vitals: Vitals) -> None:
        if vitals.power_w is not None:
            self._energy.read(card_id, at, vitals.power_w)
        heard = self._heard.get(card_id)
        if heard is not None and (
            at <= heard or (not self._busy(card_id) and at // IDLE_EVERY_S == heard // IDLE_EVERY_S)
        ):
            return
        self._heard[card_id] = at
        start = at // FINE_S * FINE_S
        span = self._spans.get(card_id)
        if span is None or span.at != start:
            if span is not None:
                self._rows.append(span.row(card_id))
            span = self._spans[card_id] = _Span(start)
        span.seen.append(vitals)

    def _settle(self, now: float) -> None:
        for attempt_id, drawn_wh in self._energy.settled(now):
            if drawn_wh is not None:
                self._writer.drew(attempt_id, drawn_wh)

    def _write(self, now: float) -> None:
        if self._rows and now - self._wrote >= WRITE_EVERY_S:
            self._writer.telemetry.keep(self._rows)
            self._rows, self._wrote = [], now
        if now - self._thinned >= THIN_EVERY_S:
            self._writer.telemetry.thin(now)
            self._thinned = now
