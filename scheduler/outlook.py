"""When each job will be done and what it waits for, told at a bounded rate. The playing forward itself is `farm.planning.queue`.

The order is the policy's. What it weighs besides once a card is free (models that are loaded, how batches are spread) moves a job by some
places; the next telling shows it.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from farm.clock import Clock
from farm.feed import Expected, LiveCard, QueueChanged, QueuePlace, QueueRate
from farm.model import Attempt, Card, Job
from farm.planning.eligibility import FarmView, Verdict, why_waiting
from farm.planning.kinds import kind_of
from farm.planning.learned import NOISE, UNLEARNED, Learned, learned_for
from farm.planning.queue import EXACT, Pace, Place, Waiting, forecast
from farm.planning.spans import Span, Z, spread
from scheduler.board import Board
from scheduler.policy import Policy
from scheduler.watch import DRAINED

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""The shortest time between two tellings."""
SHARE = 50.0
"""A telling is followed by so many times what it took: however long the queue, it costs 2 % of the scheduler's time."""
MOST = 1000
"""The most jobs that are placed one by one, with many cards."""
JUDGED = 10_000
"""The most new (kind, card) pairs that one telling judges: some 0.3 s. The rest come with the next."""
OF_PACE = 0.1
"""How far what is left of a render may be off once its steps are being counted, as a standard deviation of the logarithm."""
LEAST_LEFT = 0.05
"""What is left at least of a render that takes longer than was foretold, as a share of that."""
WORKING = frozenset({"idle", "busy", "starting"})
"""The states of a card that takes work, now or soon."""
STANDING = {
    "idle": "",
    "busy": "is busy",
    "starting": "is starting",
    "not answering": "does not answer",
    "trouble": "is in trouble",
    "kept": "is kept for its owner",
}
"""What to say of a card in a state; of one that is not here, that it "is" so: "is drained", "is paused"."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Jobs that are alike for every card, `sample` for all of them: of one kind, and kept from the same cards."""

    name: str
    excluded: frozenset[str]
    sample: Job


@dataclass(frozen=True, slots=True)
class _Now:
    """What is looked at, copied, so that the looking may take its time in a thread while the scheduler goes on."""

    at: float
    first: list[Job]
    waiting: int
    cards: list[Card]
    states: dict[str, str]
    running: list[tuple[Attempt, Job, Pace]]
    book: Mapping[tuple[str, str], Learned]
    verdicts: dict[str, dict[str, Verdict]]


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
        self._verdicts: dict[str, dict[str, Verdict]] = {}  # by label of a kind, and card
        self._next = -math.inf
        self._looking = False

    def forget(self, card_id: str | None = None) -> None:
        """What is thought of a card, or of all, is no longer so."""
        # A look that is under way keeps to the old ones, and adds to them in vain.
        kept = (
            {} if card_id is None else {label: found.copy() for label, found in list(self._verdicts.items())}
        )
        for found in kept.values():
            found.pop(card_id or "", None)
        self._verdicts = kept

    @property
    def due(self) -> bool:
        """Whether it is time to tell again."""
        return not self._looking and self._clock.monotonic() >= self._next

    async def tell(self) -> None:
        """Plays the queue forward and tells it, if that is due."""
        if not self.due:
            return
        self._looking = True
        began = self._clock.monotonic()
        try:
            self._board.queue(await asyncio.to_thread(self._look, self._now()))
        except Exception:  # what is told of the future must not end what goes on now
            log.exception("the queue's future could not be told")
        finally:
            self._looking = False
            ended = self._clock.monotonic()
            self._next = ended + max(EVERY_S, SHARE * (ended - began))

    def _now(self) -> _Now:
        now = self._clock.now()
        return _Now(
            now,
            self._policy.in_order(now, min(MOST, max(EXACT, 2 * len(self._policy.cards)))),
            self._policy.waiting,
            self._policy.cards,
            {card_id: _stands(live) for card_id, live in self._board.cards.items()},
            [(attempt, job, self._left(attempt)) for attempt, job in self._running()],
            self._view().learned,
            self._verdicts,
        )

    def _look(self, now: _Now) -> QueueChanged:
        able = [card for card in now.cards if now.states.get(card.id) in WORKING]
        first, exact = now.first, len(now.first)
        kinds, labels = self._kinds(first)
        self._judge_new(now, kinds)
        busy = {card.id: Pace(0.0) for card in able}
        busy |= {attempt.card_id: left for attempt, _, left in now.running if attempt.card_id in busy}
        paces = {label: _paces(now, label, kind, able) for label, kind in kinds.items()}
        queue = [Waiting(job.id, label) for job, label in zip(first, labels, strict=True)]
        found = forecast(queue, busy, paces, exact=exact)
        waits = [_waits(place, label, now.at) for place, label in zip(found.places, labels, strict=True)]
        behind = now.waiting > len(first)
        return QueueChanged(
            made_at=now.at,
            waiting=now.waiting,
            placed=len(first),
            places=(*(_at_work(attempt, job, left, now.at) for attempt, job, left in now.running), *waits),
            rates={
                label: QueueRate(
                    round(now.at + rate.at_s, 1), round(rate.each_s, 3), round(math.exp(Z * rate.off), 3)
                )
                for label, rate in found.rates.items()
                if behind and not kinds[label].excluded
            },
            why={label: why for label, kind in kinds.items() if (why := _why(now, label, kind)) is not None},
        )

    def _kinds(self, jobs: list[Job]) -> tuple[dict[str, _Kind], list[str]]:
        """The kinds by label, and each job's label: the name of `kind_of`, and the cards that it is kept from."""
        kinds: dict[str, _Kind] = {}
        labels = []
        for job in jobs:
            name, excluded = kind_of(job), self._policy.excluded(job.id)
            label = " ".join([name, *(f"-{card_id}" for card_id in sorted(excluded))]) if excluded else name
            kinds.setdefault(label, _Kind(name, excluded, job))
            labels.append(label)
        return kinds, labels

    def _judge_new(self, now: _Now, kinds: Mapping[str, _Kind]) -> None:
        """Judges what was not judged yet, the first kinds first, and drops kinds that are gone."""
        for label in [label for label in now.verdicts if label not in kinds]:
            del now.verdicts[label]
        left = JUDGED
        for label, kind in kinds.items():
            known = now.verdicts.setdefault(label, {})
            for card in now.cards:
                if card.id in known or card.id in kind.excluded:
                    continue
                if not left:
                    return
                known[card.id] = self._judge(kind.sample, card)
                left -= 1

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
        left = max(foretold - (self._clock.now() - since), LEAST_LEFT * foretold)
        return Pace(left, _off(attempt), NOISE)


def _stands(live: LiveCard) -> str:
    """A card's state; of one that is at its last work what comes then: nobody should be told to wait for its end."""
    if live.state == "busy" and live.why is not None:
        return "drained" if live.why == DRAINED else "paused"
    return live.state


def _paces(now: _Now, label: str, kind: _Kind, able: list[Card]) -> dict[str, Pace]:
    verdicts = now.verdicts.get(label, {})
    found: dict[str, Pace] = {}
    for card in able:
        verdict = verdicts.get(card.id)
        if verdict is not None and verdict.eligible:
            learned = learned_for(now.book, kind.sample, card.id)
            found[card.id] = Pace(verdict.seconds, learned.of_card, learned.of_render)
    return found


def _why(now: _Now, label: str, kind: _Kind) -> str | None:
    """Why such jobs wait; None while not every card was judged."""
    verdicts = now.verdicts.get(label, {})
    found = []
    for card in now.cards:
        if card.id in kind.excluded:
            found.append((card, Verdict(False, (f"it failed on {card.name} before",), None, 0.0)))
        elif card.id in verdicts:
            found.append((card, verdicts[card.id]))
        else:
            return None
    return why_waiting(
        found, {card_id: STANDING.get(state, f"is {state}") for card_id, state in now.states.items()}
    )


def _off(attempt: Attempt) -> float:
    if not attempt.predicted_s or not attempt.predicted_high_s:
        return UNLEARNED.of_card
    return math.log(attempt.predicted_high_s / attempt.predicted_s) / Z


def _at_work(attempt: Attempt, job: Job, left: Pace, now: float) -> QueuePlace:
    span = spread(left.seconds, math.hypot(left.of_card, left.of_render))
    return QueuePlace(job.id, kind_of(job), None, _expected(span, now), attempt.card_id)


def _waits(place: Place, label: str, now: float) -> QueuePlace:
    done = None if place.done is None else _expected(place.done, now)
    return QueuePlace(place.id, label, place.position, done, place.card_id)


def _expected(span: Span, now: float) -> Expected:
    return Expected(round(now + span.likely), round(now + span.low), round(now + span.high))
