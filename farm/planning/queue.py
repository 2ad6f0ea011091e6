"""When each job will be done: the queue played forward in virtual time, card by card. Pure.

The first jobs of the queue are placed one after the other, each on the card that will have it done soonest (list scheduling). That is
cheap while it may be: for each kind of work the cards lie in a heap by when they would finish one, and placing a job moves one card. Cards
only ever become free later, so what a heap remembers is never too late, and is put right when it comes to the top.

What stands behind the first ones is told by curves, which begin with when each card is free then (`scheduler.tail`).

The interval: how far a card is off its prediction holds for all of its jobs and adds up; how one render differs from the next evens out.
So do cards among each other, since a job goes to whichever is free: what is uncertain of the time before a job begins is less by as much
as the sum of independent rates is more certain than one. The whole is taken as log-normal, as a render's seconds are
(`farm.planning.learned`).
"""

import heapq
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from farm.planning.spans import Span, spread

EXACT = 500
"""How many jobs are placed one by one. With 1,000 cards and 20 kinds of work that takes some 30 ms."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long one job takes on a card: `seconds`, and how far that may be off, as standard deviations of its logarithm.

    `of_card` is the same for every job of the card, `of_render` differs from one to the next.
    """

    seconds: float
    of_card: float = 0.0
    of_render: float = 0.0


@dataclass(frozen=True, slots=True)
class Waiting(Generic[K]):
    """A job in the queue. `kind` says which cards take it, and how fast: jobs of one kind are alike in that."""

    id: str
    kind: K


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
class Outlook:
    """The queue's future: `places` of its first jobs in order, and the seconds until each card has done those of them that it gets."""

    places: tuple[Place, ...] = ()
    free: Mapping[str, float] = field(default_factory=dict)


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

    def evened(self, share: float) -> "_Until":
        """With only `share` of what is uncertain."""
        return _Until(self.seconds, self.of_card * share, self.variance * share**2)

    @property
    def off(self) -> float:
        """The standard deviation of the logarithm of the seconds."""
        return math.sqrt(self.of_card**2 + self.variance) / self.seconds if self.seconds > 0 else 0.0


def forecast(
    queue: Sequence[Waiting[K]],
    busy: Mapping[str, Pace],
    paces: Mapping[K, Mapping[str, Pace]],
    *,
    exact: int = EXACT,
) -> Outlook:
    """Plays the queue forward.

    `queue` has the waiting jobs in order, or as many of its first as are worth a look. `busy` are the cards that take work, each with what
    is left of its present job (0 s for an idle one). `paces` says for each kind which of them take it, and how long.
    """
    free = {card_id: _Until(0.0, 0.0, 0.0).after(left) for card_id, left in busy.items()}
    heaps: dict[K, list[tuple[float, str]]] = {}
    even: dict[K, float] = {}
    places = []
    for position, job in enumerate(queue[:exact], start=1):
        pace = paces.get(job.kind, {})
        heap = heaps.get(job.kind)
        if heap is None:
            heap = heaps[job.kind] = _by_finish(pace, free)
            even[job.kind] = evened(one.seconds for card, one in pace.items() if card in free)
        card_id = _soonest(heap, pace, free)
        if card_id is None:
            places.append(Place(job.id, position))
            continue
        until = free[card_id].evened(even[job.kind]).after(pace[card_id])
        free[card_id] = free[card_id].after(pace[card_id])
        places.append(Place(job.id, position, spread(until.seconds, until.off), card_id))
    return Outlook(tuple(places), {card_id: until.seconds for card_id, until in free.items()})


def evened(seconds: Iterable[float]) -> float:
    """By how much the sum of the rates of cards is more certain than one: 1 for one card, a half for four equal ones."""
    rates = [1 / one for one in seconds if one > 0]
    return math.sqrt(sum(rate**2 for rate in rates)) / sum(rates) if rates else 1.0


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
