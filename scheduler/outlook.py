"""When each job will be done and what it waits for, told at a bounded rate.

The order is the policy's (`scheduler.order`). The first jobs are played forward one by one (`farm.planning.queue`), those behind them are
told by the curves of their kinds (`scheduler.tail`). What the policy weighs besides once a card is free (models that are loaded, how
batches are spread) moves a job by some places; the next telling shows it.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median

import numpy as np

from farm.catalogue.interpolators import interpolator
from farm.clock import Clock
from farm.feed import Behind, Expected, Knot, QueueChanged, QueuePlace
from farm.model import Attempt, Card, Job
from farm.planning.eligibility import FarmView, Verdict
from farm.planning.kinds import kind_of
from farm.planning.learned import NOISE, UNLEARNED, Learned, learned_for
from farm.planning.queue import EXACT, Pace, Place, Waiting, evened, forecast
from farm.planning.spans import Span, Z, spread
from farm.planning.waiting import NO_CARD, none_can, state_for, waits_for
from farm.standing import in_words, state_of
from scheduler.board import Board
from scheduler.order import Kind, Order, Queue, in_order
from scheduler.policy import Policy
from scheduler.tail import curves

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""The shortest time between two tellings, unless a kind of job or a card is new."""
SHARE = 50.0
"""A telling is followed by so many times what it took: however long the queue, it costs 2 % of the scheduler's time."""
SHARE_AT_NEWS = 10.0
"""The same where a kind of job or a card is new: of those nothing was told yet."""
MOST = 1000
"""The most jobs that are placed one by one, with many cards."""
LOOKED_AT = 16
"""So many of a kind's fastest cards tell how far the times of its jobs may be off, where none of them is placed one by one."""
OF_PACE = 0.1
"""How far what is left of a render may be off once its steps are being counted, as a standard deviation of the logarithm."""
LEAST_LEFT = 0.05
"""What is left at least of a render that takes longer than was foretold, as a share of that."""
WORKING = frozenset({"idle", "busy", "starting"})
"""The states of a card that takes work, now or soon."""


@dataclass(frozen=True, slots=True)
class _Now:
    """What is looked at, copied, so that the looking may take its time in a thread while the scheduler goes on."""

    at: float
    queue: Queue
    cards: list[Card]
    states: dict[str, str]
    running: list[tuple[Attempt, Job, Pace]]
    book: Mapping[tuple[str, str], Learned]


class Outlook:
    """One per scheduler. `view` gives the farm's view, `running` the live attempts with their jobs, `judge` the filters' word.

    What was judged is the policy's to remember; `judge` is asked only where the policy has forgotten it while the looking went on.
    """

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
        self._ended = -math.inf
        self._took = 0.0
        self._told_of: tuple[int, int] | None = None
        self._looking = False

    def forget(self) -> None:
        """What was told is no longer so, of any card: told anew as soon as that may be."""
        self._told_of = None

    @property
    def due(self) -> bool:
        """Whether it is time to tell again."""
        if self._looking:
            return False
        passed = self._clock.monotonic() - self._ended
        if self._news != self._told_of:
            return passed >= SHARE_AT_NEWS * self._took
        return passed >= max(EVERY_S, SHARE * self._took)

    @property
    def _news(self) -> tuple[int, int]:
        return self._policy.kinds_seen, self._policy.cards_known

    async def tell(self) -> None:
        """Plays the queue forward and tells it, if that is due."""
        if not self.due:
            return
        self._looking = True
        began, self._told_of = self._clock.monotonic(), self._news
        try:
            self._board.queue(await asyncio.to_thread(self._look, self._now()))
        except Exception:  # what is told of the future must not end what goes on now
            log.exception("the queue's future could not be told")
        finally:
            self._looking = False
            self._ended = self._clock.monotonic()
            self._took = self._ended - began

    def _now(self) -> _Now:
        now = self._clock.now()
        return _Now(
            now,
            self._policy.queue(now),
            self._policy.cards,
            {card_id: state_of(live) for card_id, live in self._board.cards.items()},
            [(attempt, job, self._left(attempt)) for attempt, job in self._running()],
            self._view().learned,
        )

    def _look(self, now: _Now) -> QueueChanged:
        order, kinds = in_order(now.queue), now.queue.kinds
        able = {card.id for card in now.cards if now.states.get(card.id) in WORKING}
        placed = min(len(order.jobs), MOST, max(EXACT, 2 * len(now.cards)))
        first = [kinds[kind] for kind in order.kinds[:placed].tolist()]
        busy = {card_id: Pace(0.0) for card_id in able}
        busy |= {attempt.card_id: left for attempt, _, left in now.running if attempt.card_id in able}
        paces = {label: _paces(now, kind, able) for label, kind in {one.label: one for one in first}.items()}
        queue = [
            Waiting(job_id, kind.label) for (_, job_id), kind in zip(order.jobs[:placed], first, strict=True)
        ]
        found = forecast(queue, busy, paces, exact=placed)
        waits = [_waits(place, kind.label, now.at) for place, kind in zip(found.places, first, strict=True)]
        words = {card_id: in_words(state) for card_id, state in now.states.items()}
        told = {kind.label: self._why(now.cards, words, kind) for kind in kinds}
        return QueueChanged(
            made_at=now.at,
            waiting=len(order.jobs),
            placed=placed,
            places=(*(_at_work(attempt, job, left, now.at) for attempt, job, left in now.running), *waits),
            order=tuple(seq for seq, _ in order.jobs[placed:]),
            newest=max((line.jobs[-1][0] for line in now.queue.lines), default=0),
            levels=_levels(order),
            curves=_curves(now, order, placed, found.free, _off_of(found.places, first)),
            why={label: why for label, (why, _) in told.items()},
            behind={label: behind for label, (_, behind) in told.items() if behind is not None},
            apart=_apart(order, kinds, placed),
            smoothing=round(_smoothing(now.book, able), 3),
        )

    def _why(self, cards: list[Card], words: Mapping[str, str], kind: Kind) -> tuple[str, Behind | None]:
        """Why such jobs wait; and if cards are idle for them, why those wait that are not next. `words` say what each card does."""
        if not cards:
            return NO_CARD, None
        states: Counter[str] = Counter()
        name, taken = "", kind.offers.able
        for card in cards:
            if card.id in taken:
                states[words.get(card.id, "")] += 1
            elif (verdict := self._verdict(kind, card)).able:
                states[state_for(card, verdict, words)] += 1
            else:
                continue
            name = name or card.name
        if not states:
            return none_can([(card, self._verdict(kind, card)) for card in cards]), None
        idle = states[""]
        behind = Behind(idle, waits_for(states, name, next_up=False)) if idle else None
        return waits_for(states, name), behind

    def _verdict(self, kind: Kind, card: Card) -> Verdict:
        if card.id in kind.excluded:
            return Verdict(False, (f"it failed on {card.name} before",), None, 0.0)
        return kind.verdicts.get(card.id) or self._judge(kind.sample, card)

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


def _seconds(kind: Kind) -> Iterable[tuple[str, float]]:
    """The seconds of one job on each card that takes it, the fastest first."""
    return zip(kind.offers.ids, kind.offers.seconds.tolist(), strict=True)


def _paces(now: _Now, kind: Kind, able: set[str]) -> dict[str, Pace]:
    found: dict[str, Pace] = {}
    for card_id, seconds in _seconds(kind):
        if card_id in able:
            learned = learned_for(now.book, kind.sample, card_id)
            found[card_id] = Pace(seconds, learned.of_card, learned.of_render)
    return found


def _smoothing(book: Mapping[tuple[str, str], Learned], able: set[str]) -> float:
    """By how much a card in the middle takes longer to interpolate than the catalogue says."""
    name = interpolator().name
    return median([book.get((card_id, name), UNLEARNED).seconds for card_id in able] or [1.0])


def _apart(order: Order, kinds: Sequence[Kind], placed: int) -> dict[str, str]:
    """The kinds of the jobs behind the placed ones that are kept from some card, by the jobs' ids."""
    kept = [number for number, kind in enumerate(kinds) if kind.excluded]
    places = placed + np.flatnonzero(np.isin(order.kinds[placed:], kept))
    return {order.jobs[place][1]: kinds[order.kinds[place]].label for place in places.tolist()}


def _levels(order: Order) -> tuple[tuple[int, int], ...]:
    """Each level that waits, the highest first, with the last position of a job of it."""
    last: dict[int, int] = {level: position for position, level in enumerate(order.levels.tolist(), start=1)}
    return tuple(sorted(last.items(), reverse=True))


def _off_of(places: Sequence[Place], kinds: Sequence[Kind]) -> dict[str, float]:
    """How far the time of a kind's last placed job may be off, as a standard deviation of the logarithm."""
    return {
        kind.label: math.log(place.done.high / place.done.likely) / Z
        for place, kind in zip(places, kinds, strict=True)
        if place.done is not None
    }


def _curves(
    now: _Now, order: Order, placed: int, free: Mapping[str, float], off: Mapping[str, float]
) -> dict[str, tuple[Knot, ...]]:
    kinds = now.queue.kinds
    seconds = [{card_id: of_one for card_id, of_one in _seconds(kind) if card_id in free} for kind in kinds]
    found: dict[str, tuple[Knot, ...]] = {}
    for kind, own, knots in zip(
        kinds, seconds, curves(free, seconds, order.kinds[placed:], placed), strict=True
    ):
        if knots:
            factor = round(math.exp(Z * off.get(kind.label, _foreseen_off(now, kind, own))), 3)
            found[kind.label] = tuple(
                Knot(position, round(now.at + in_s, 1), factor) for position, in_s in knots
            )
    return found


def _foreseen_off(now: _Now, kind: Kind, seconds: Mapping[str, float]) -> float:
    """As `_off_of` for a kind of which none is placed: what is not known of its cards, evened among them."""
    first = list(islice(seconds, LOOKED_AT))
    of_cards = [learned_for(now.book, kind.sample, card_id).of_card for card_id in first]
    return evened(seconds.values()) * math.sqrt(sum(one**2 for one in of_cards) / len(of_cards))


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
