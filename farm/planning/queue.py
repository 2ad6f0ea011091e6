"""When each job will be done: the queue played forward in virtual time, card by card. Pure.

The first jobs of the queue are placed one after the other, each on the card that will have it done soonest (list scheduling). That is
cheap while it may be: for each kind of work the cards lie in a heap by when they would finish one, and placing a job moves one card. Cards
only ever become free later, so what a heap remembers is never too late, and is put right when it comes to the top.

What stands behind the first ones is told by rate: when the cards that take such work are free, and how often one of them is done.

The interval: how far a card is off its prediction holds for all of its jobs and adds up; how one render differs from the next evens out.
The whole is taken as log-normal, as a render's seconds are (`farm.planning.learned`).
"""

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from farm.planning.spans import Span, spread

EXACT = 500
"""How many jobs are placed one by one. With 1,000 cards and 20 kinds of work that takes some 30 ms."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long one job takes on a card: `seconds`, and how far that may be off, as standard deviations of its logarithm.

    `of_card` is the same for every job of the card, `of_render` differs from one to the next.
    """

    seconds: float
    of_card: float = 0.0
    of_render: float = 0.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in the queue. `kind` says which cards take it, and how fast: jobs of one kind are alike in that."""

    id: str
    kind: Hashable


@dataclass(frozen=True, slots=True)
class Place:
    """A job's place in the queue, from 1, and the seconds from now until it is done; `card_id` is where it is expected to run.

    Without a card that takes it there is no time and no card.
    """

    id: str
    position: int
    done: Span | None = None
    card_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """For jobs behind those that were placed: done `at_s` from now, and `each_s` later for each further position.

    `off` is the standard deviation of the logarithm of the whole.
    """

    at_s: float
    each_s: float
    off: float

    def done(self, further: int) -> Span:
        """Seconds until the job is done that stands `further` positions behind the last one that was placed."""
        return spread(self.at_s + self.each_s * further, self.off)


@dataclass(frozen=True, slots=True)
class Outlook:
    """The queue's future: `places` of its first jobs in order, `rates` by kind for all behind them."""

    places: tuple[Place, ...] = ()
    rates: Mapping[Hashable, Rate] = field(default_factory=dict)


@dataclass(slots=True)
class _Until:
    """When a card is free: seconds from now, with what is uncertain of it. `of_card` adds up, `variance` of single renders does too."""

    seconds: float
    of_card: float
    variance: float

    def after(self, pace: Pace) -> "_Until":
        return _Until(
            self.seconds + pace.seconds,
            self.of_card + pace.seconds * pace.of_card,
            self.variance + (pace.seconds * pace.of_render) ** 2,
        )

    @property
    def off(self) -> float:
        """The standard deviation of the logarithm of the seconds."""
        return math.sqrt(self.of_card**2 + self.variance) / self.seconds if self.seconds > 0 else 0.0


def forecast(
    queue: Sequence[Waiting],
    busy: Mapping[str, Pace],
    paces: Mapping[Hashable, Mapping[str, Pace]],
    *,
    exact: int = EXACT,
) -> Outlook:
    """Plays the queue forward.

    `queue` has the waiting jobs in order, or as many of its first as are worth a look. `busy` are the cards that take work, each with what
    is left of its present job (0 s for an idle one). `paces` says for each kind which of them take it, and how long.
    """
    free = {card_id: _Until(0.0, 0.0, 0.0).after(left) for card_id, left in busy.items()}
    heaps: dict[Hashable, list[tuple[float, str]]] = {}
    places = []
    for position, job in enumerate(queue[:exact], start=1):
        pace = paces.get(job.kind, {})
        heap = heaps.get(job.kind)
        if heap is None:
            heap = heaps[job.kind] = _by_finish(pace, free)
        card_id = _soonest(heap, pace, free)
        if card_id is None:
            places.append(Place(job.id, position))
            continue
        until = free[card_id] = free[card_id].after(pace[card_id])
        places.append(Place(job.id, position, spread(until.seconds, until.off), card_id))
    return Outlook(tuple(places), _rates(queue, free, paces))


def _by_finish(pace: Mapping[str, Pace], free: Mapping[str, _Until]) -> list[tuple[float, str]]:
    heap = [(free[card].seconds + of.seconds, card) for card, of in pace.items() if card in free]
    heapq.heapify(heap)
    return heap


def _soonest(
    heap: list[tuple[float, str]], pace: Mapping[str, Pace], free: Mapping[str, _Until]
) -> str | None:
    """The card that would have a job of the heap's kind done first."""
    while heap:
        remembered, card_id = heap[0]
        finish = free[card_id].seconds + pace[card_id].seconds
        if finish <= remembered:
            return card_id
        heapq.heapreplace(heap, (finish, card_id))
    return None


def _rates(
    queue: Sequence[Waiting], free: Mapping[str, _Until], paces: Mapping[Hashable, Mapping[str, Pace]]
) -> dict[Hashable, Rate]:
    """By kind. Each card is taken to work through the mix of kinds that it takes, in the proportions of `queue`."""
    counted = Counter(job.kind for job in queue)
    share = {kind: max(counted[kind], 1) for kind in paces}
    number = {card_id: index for index, card_id in enumerate(free)}
    masks = {kind: sum(1 << number[card] for card in pace if card in number) for kind, pace in paces.items()}
    spent, jobs = dict.fromkeys(free, 0.0), dict.fromkeys(free, 0)
    for kind, pace in paces.items():
        for card_id, one in pace.items():
            if card_id in number:
                spent[card_id] += share[kind] * one.seconds
                jobs[card_id] += share[kind]
    rates: dict[Hashable, Rate] = {}
    for kind, pace in paces.items():
        loads = {card: spent[card] / jobs[card] for card in pace if card in number}
        per_second = sum(1 / load for load in loads.values() if load > 0)
        if not per_second:
            continue
        rivals = sum(share[other] for other in paces if masks[other] & masks[kind]) / sum(share.values())
        begin = sum(free[card].seconds / load for card, load in loads.items()) / per_second
        # Cards that end by turns are, in the middle, half a job away from their next end.
        off = sum(math.hypot(pace[card].of_card, free[card].off) for card in loads) / len(loads)
        rates[kind] = Rate(begin + len(loads) / per_second / 2, rivals / per_second, off)
    return rates
