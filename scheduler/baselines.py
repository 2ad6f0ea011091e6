"""What other farms do, for `farm simulate` to be held against: first come first served, list order, equal shares. Pure.

Each has the policy's events, and the same judge says what may run where. None looks at how fast a card is.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from farm.model import Card, Job
from scheduler.lanes import Group, Judge
from scheduler.policy import Pick, Policy, requirements
from scheduler.turns import Turns


class Planner(Protocol):
    """What a simulation asks of a policy."""

    def add_job(self, job: Job, seq: int, batch: str | None = None) -> None:
        """A job waits."""

    def set_card(
        self, card: Card, *, free: bool, busy_until: float | None = None, model: str | None = None
    ) -> None:
        """A card is there, and takes work or not."""

    def decide(self, now: float) -> list[Pick]:
        """Picks for the free cards."""


@dataclass
class _Kinds:
    """Jobs grouped by what they ask of a card, each group in the order of coming."""

    judge: Judge
    cards: dict[str, Card] = field(default_factory=dict)
    groups: dict[object, Group] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)

    def of(self, job: Job) -> Group:
        key = requirements(job)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(key, job, frozenset())
        return group

    def see(self, card: Card) -> None:
        if self.cards.get(card.id) != card:
            self.cards[card.id] = card
            self.turns.add(card.id, quality=False)
            for group in self.groups.values():
                group.forget()

    def able(self, group: Group) -> frozenset[str]:
        return group.offers(self.cards, self.turns, self.judge, lambda _model, _card: 0.0).able

    def pick(self, group: Group, job: Job, card_id: str) -> Pick:
        verdict = group.verdicts[card_id]
        assert verdict.plan is not None  # noqa: S101 - it is able
        return Pick(job, self.cards[card_id], verdict.plan, verdict.seconds, verdict.peak_gib)


class FirstCome:
    """The queue in the order of coming; each job goes to the first free card that fits: the one that has been free longest.

    With `by_list` that is the first in the list of cards instead, as in SwarmUI's list of backends.
    """

    def __init__(self, judge: Judge, *, by_list: bool = False) -> None:
        self._kinds = _Kinds(judge)
        self._queues: dict[object, deque[tuple[int, Job]]] = {}
        self._free: dict[str, None] = {}
        self._by_list = by_list

    def add_job(self, job: Job, seq: int, batch: str | None = None) -> None:  # noqa: ARG002 - batches are nothing to it
        """A job waits: behind all that came before, also when it comes back."""
        self._queues.setdefault(self._kinds.of(job).key, deque()).append((seq, job))

    def set_card(
        self,
        card: Card,
        *,
        free: bool,
        busy_until: float | None = None,  # noqa: ARG002 - when it ends, or what it holds, is nothing to it
        model: str | None = None,  # noqa: ARG002
    ) -> None:
        """A card is there, and takes work or not."""
        self._kinds.see(card)
        if free:
            self._free.setdefault(card.id)
        else:
            self._free.pop(card.id, None)

    def decide(self, now: float) -> list[Pick]:  # noqa: ARG002 - the order of coming is all it knows
        """The first job that some free card takes gets the first such card; and so on."""
        picks: list[Pick] = []
        while self._free:
            order = list(self._kinds.cards) if self._by_list else list(self._free)
            best: tuple[int, Group, str] | None = None
            for key, queue in self._queues.items():
                if not queue or (best is not None and queue[0][0] >= best[0]):
                    continue
                group = self._kinds.groups[key]
                able = self._kinds.able(group)
                card_id = next((one for one in order if one in self._free and one in able), None)
                if card_id is not None:
                    best = (queue[0][0], group, card_id)
            if best is None:
                break
            _, group, card_id = best
            _, job = self._queues[group.key].popleft()
            del self._free[card_id]
            picks.append(self._kinds.pick(group, job, card_id))
        return picks


class EqualShares:
    """Each job is dealt, when it comes, to the card that was dealt the fewest so far; each card works through its own."""

    def __init__(self, judge: Judge) -> None:
        self._kinds = _Kinds(judge)
        self._own: dict[str, deque[Job]] = {}
        self._dealt: dict[str, int] = {}
        self._free: set[str] = set()

    def add_job(self, job: Job, seq: int, batch: str | None = None) -> None:  # noqa: ARG002 - as it comes
        """A job comes, and is dealt at once."""
        able = self._kinds.able(self._kinds.of(job))
        card_id = min((one for one in self._own if one in able), key=lambda one: self._dealt[one])
        self._dealt[card_id] += 1
        self._own[card_id].append(job)

    def set_card(
        self,
        card: Card,
        *,
        free: bool,
        busy_until: float | None = None,  # noqa: ARG002 - what was dealt was dealt
        model: str | None = None,  # noqa: ARG002
    ) -> None:
        """A card is there, and takes work or not. What was dealt to it waits for it."""
        self._kinds.see(card)
        self._own.setdefault(card.id, deque())
        self._dealt.setdefault(card.id, 0)
        if free:
            self._free.add(card.id)
        else:
            self._free.discard(card.id)

    def decide(self, now: float) -> list[Pick]:  # noqa: ARG002 - it was dealt
        """Each free card takes the next of its own."""
        picks = []
        for card_id in sorted(self._free):
            if self._own[card_id]:
                job = self._own[card_id].popleft()
                picks.append(self._kinds.pick(self._kinds.of(job), job, card_id))
                self._free.discard(card_id)
        return picks


PLANNERS: dict[str, Callable[[Judge, Callable[[str, Card], float]], Planner]] = {
    "farm": Policy,
    "fcfs": lambda judge, _loading: FirstCome(judge),
    "equal-shares": lambda judge, _loading: EqualShares(judge),
    "list-order": lambda judge, _loading: FirstCome(judge, by_list=True),
}
"""By the names that `farm simulate --policy` takes."""
