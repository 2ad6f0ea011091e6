"""When each job will be done and what it waits for, told at a bounded rate. The playing forward itself is `farm.planning.queue`.

The order is by priority and submission. What else the policy weighs (shares, models that are loaded) moves a job by some places; the next
telling shows it.
"""

import heapq
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from farm.clock import Clock
from farm.feed import Expected, QueueChanged, QueuePlace, QueueRate
from farm.model import Attempt, Card, Job
from farm.planning.eligibility import FarmView, Verdict, why_waiting
from farm.planning.kinds import kind_of
from farm.planning.learned import NOISE, UNLEARNED
from farm.planning.queue import EXACT, Pace, Place, Waiting, forecast
from farm.planning.spans import Span, Z, spread
from scheduler.board import Board
from scheduler.policy import Policy

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""The shortest time between two tellings."""
SHARE = 50.0
"""A telling is followed by so many times what it took: however long the queue, it costs 2 % of the scheduler's time."""
MOST = 2000
"""The most jobs that are placed one by one, with many cards."""
JUDGED = 2000
"""The most new (kind, card) pairs that one telling judges: some 50 ms. The rest come with the next."""
OF_PACE = 0.1
"""How far what is left of a render may be off once its steps are being counted, as a standard deviation of the logarithm."""
LEAST_LEFT = 0.05
"""What is left at least of a render that takes longer than was foretold, as a share of that."""
WORKING = frozenset({"idle", "busy", "starting"})
"""The states of a card that takes work, now or soon."""
STANDING = {
    "busy": "is busy",
    "starting": "is starting",
    "not answering": "does not answer",
    "trouble": "is in trouble",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs that are alike for every card: of one kind, and kept from the same cards."""

    name: str
    excluded: frozenset[str]

    @property
    def label(self) -> str:
        """Its name for the feed: that of `kind_of`, and the cards it is kept from."""
        return " ".join([self.name, *(f"-{card_id}" for card_id in sorted(self.excluded))])


class Outlook:
    """One per scheduler. `view` gives the farm's view, `running` the live attempts with their jobs, `judge` the filters' word."""

    def __init__(
        self,
        policy: Policy,
        board: Board,
        clock: Clock,
        *,
        judge: Callable[[Job, Card], Verdict],
        view: Callable[[], FarmView],
        running: Callable[[], Iterable[tuple[Attempt, Job]]],
    ) -> None:
        self._policy = policy
        self._board = board
        self._clock = clock
        self._judge = judge
        self._view = view
        self._running = running
        self._verdicts: dict[tuple[Kind, str], Verdict] = {}
        self._next = -math.inf

    def forget(self, card_id: str | None = None) -> None:
        """What is thought of a card, or of all, is no longer so."""
        if card_id is None:
            self._verdicts.clear()
        else:
            self._verdicts = {key: verdict for key, verdict in self._verdicts.items() if key[1] != card_id}

    def tell(self) -> None:
        """Plays the queue forward and tells it, unless that was done just now."""
        began = self._clock.monotonic()
        if began < self._next:
            return
        try:
            self._board.queue(self._look())
        except Exception:  # what is told of the future must not end what goes on now
            log.exception("the queue's future could not be told")
        ended = self._clock.monotonic()
        self._next = ended + max(EVERY_S, SHARE * (ended - began))

    def _look(self) -> QueueChanged:
        now, cards = self._clock.now(), self._policy.cards
        able = [card for card in cards if self._takes_work(card.id)]
        exact = min(MOST, max(EXACT, 2 * len(able)))
        first = heapq.nsmallest(exact, self._policy.jobs(), key=lambda job: (-job.priority, job.created_at))
        kinds = {job.id: Kind(kind_of(job), self._policy.excluded(job.id)) for job in first}
        samples = {kinds[job.id]: job for job in first}
        self._drop_other_kinds(samples)
        self._judge_new(samples, cards)
        running = [(attempt, job, self._left(attempt)) for attempt, job in self._running()]
        busy = {card.id: Pace(0.0) for card in able}
        busy |= {attempt.card_id: left for attempt, _, left in running if attempt.card_id in busy}
        paces = {kind: self._paces(kind, sample, able) for kind, sample in samples.items()}
        found = forecast([Waiting(job.id, kinds[job.id]) for job in first], busy, paces, exact=exact)
        rates = {
            kind.name: QueueRate(
                round(now + rate.at_s, 1), round(rate.each_s, 3), round(math.exp(Z * rate.off), 3)
            )
            for kind, rate in found.rates.items()
            if not kind.excluded
        }
        return QueueChanged(
            made_at=now,
            waiting=self._policy.waiting,
            placed=len(first),
            places=(
                *(_at_work(attempt, job, left, now) for attempt, job, left in running),
                *(_waits(place, kinds[place.id], now) for place in found.places),
            ),
            rates=rates if self._policy.waiting > len(first) else {},
            why={kind.label: self._why(kind, cards) for kind in samples},
        )

    def _takes_work(self, card_id: str) -> bool:
        live = self._board.cards.get(card_id)
        return live is not None and live.state in WORKING

    def _drop_other_kinds(self, samples: Mapping[Kind, Job]) -> None:
        if len(self._verdicts) > 4 * JUDGED:
            self._verdicts = {key: verdict for key, verdict in self._verdicts.items() if key[0] in samples}

    def _judge_new(self, samples: Mapping[Kind, Job], cards: list[Card]) -> None:
        """Judges what was not judged yet, the first kinds first."""
        left = JUDGED
        for kind, sample in samples.items():
            for card in cards:
                if (kind, card.id) in self._verdicts or card.id in kind.excluded:
                    continue
                if not left:
                    return
                self._verdicts[kind, card.id] = self._judge(sample, card)
                left -= 1

    def _paces(self, kind: Kind, sample: Job, able: list[Card]) -> dict[str, Pace]:
        book, model = self._view().learned, sample.settings.model
        found: dict[str, Pace] = {}
        for card in able:
            verdict = self._verdicts.get((kind, card.id))
            if verdict is not None and verdict.eligible:
                learned = book.get((card.id, model), UNLEARNED)
                found[card.id] = Pace(verdict.seconds, learned.of_card, learned.of_render)
        return found

    def _left(self, attempt: Attempt) -> Pace:
        """What is left of a render: by its own steps once it has made some, else by what was foretold."""
        live = self._board.live_job(attempt.job_id)
        foretold = attempt.predicted_s or 0.0
        if live is not None and live.eta_s is not None and live.seconds_per_step is not None:
            beside = (
                max(0.0, foretold - live.total * live.seconds_per_step) / 2
            )  # half of it comes after the steps
            return Pace(live.eta_s + beside, 0.0, OF_PACE)
        since = attempt.started_at if attempt.started_at is not None else self._clock.now()
        off = _off(attempt)
        return Pace(max(foretold - (self._clock.now() - since), LEAST_LEFT * foretold), off, NOISE)

    def _why(self, kind: Kind, cards: list[Card]) -> str:
        found = [
            (card, verdict) for card in cards if (verdict := self._verdicts.get((kind, card.id))) is not None
        ]
        states = {
            card.id: STANDING.get(live.state, "")
            for card in cards
            if (live := self._board.cards.get(card.id))
        }
        return why_waiting(found, states)


def _off(attempt: Attempt) -> float:
    if not attempt.predicted_s or not attempt.predicted_high_s:
        return UNLEARNED.of_card
    return math.log(attempt.predicted_high_s / attempt.predicted_s) / Z


def _at_work(attempt: Attempt, job: Job, left: Pace, now: float) -> QueuePlace:
    span = spread(left.seconds, math.hypot(left.of_card, left.of_render))
    return QueuePlace(job.id, kind_of(job), None, _expected(span, now), attempt.card_id)


def _waits(place: Place, kind: Kind, now: float) -> QueuePlace:
    done = None if place.done is None else _expected(place.done, now)
    return QueuePlace(place.id, kind.label, place.position, done, place.card_id)


def _expected(span: Span, now: float) -> Expected:
    return Expected(round(now + span.likely), round(now + span.low), round(now + span.high))
