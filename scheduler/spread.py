"""Which kinds of batch work each card should take so that all cards end together: a small linear program, solved now and then. Pure.

Kinds of work gain differently from a fast card (a preview has its fixed part, a long clip hardly), so who takes what matters: measured on
forty mixed cards, up to a tenth of the whole time. Jobs alike are one kind and cards alike one class, so there are some hundred unknowns,
and a few milliseconds every fiftieth job. HiGHS through scipy solves it; it is only loaded where batches of several kinds wait.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, log

from scheduler.lanes import Group
from scheduler.scene import Scene
from scheduler.turns import UNKNOWN, Numbers

ALIKE = 0.02
"""Cards whose seconds differ by less for every kind (as a logarithm) are one class."""
NEARLY = 0.01
"""What is dearer by less than this share than the best use of a card is as good: longer jobs then go first."""
EXACT = 1e-6
"""A card that is free this share of the whole time before the end counts as free at the end: HiGHS's own tolerance is 1e-7."""
SHARE = 0.02
LEAST = 16
"""The program is solved anew after this share of the jobs that waited, but not before so many."""


@dataclass(slots=True)
class Spread:
    """Seconds of each kind of work that each class of cards is still to take, by the last solution."""

    _kinds: frozenset[Group] = frozenset()
    _cards: int = 0
    _jobs: int = 0
    _taken: int = 0
    _until: float = -inf
    _class_of: dict[str, int] = field(default_factory=dict)
    _left: dict[tuple[int, Group], float] = field(default_factory=dict)

    def keep(self, scene: Scene, begins: Numbers, now: float) -> None:
        """Solves anew if the last solution no longer fits. `begins` is when each card (by slot) can begin a further job."""
        waiting = scene.in_bulk()
        there = {card_id: at for card_id, at in scene.turns.slot.items() if begins[at] != UNKNOWN}
        if self.stale(waiting, len(there)):
            seconds = {
                group: dict(zip(offers.ids, offers.seconds.tolist(), strict=True))
                for group in waiting
                for offers in [scene.offers(group)]
            }
            self._until = now + self.solve(
                waiting, seconds, {card_id: float(begins[at]) - now for card_id, at in there.items()}
            )

    def until(self, scene: Scene, begins: Numbers, now: float) -> float:
        """When all batches together can be done at the earliest, were jobs divisible."""
        self.keep(scene, begins, now)
        return self._until

    def stale(self, waiting: Mapping[Group, int], cards: int) -> bool:
        """Whether the solution no longer fits: other kinds wait, cards came or went, or enough jobs did."""
        much = max(LEAST, SHARE * self._jobs)
        jobs = sum(waiting.values())
        return (
            waiting.keys() != self._kinds
            or cards != self._cards
            or self._taken >= much
            or abs(self._jobs - self._taken - jobs) > much
        )

    def solve(
        self,
        waiting: Mapping[Group, int],
        offers: Mapping[Group, Mapping[str, float]],
        busy_s: Mapping[str, float],
    ) -> float:
        """Solves anew; returns the seconds until all is done, 0 if there is nothing to do.

        `waiting` is how many jobs of each kind wait, `offers` the seconds of one on each card (by id), `busy_s` the seconds until each card
        that takes work is free.
        """
        self._kinds, self._cards, self._jobs, self._taken = (
            frozenset(waiting),
            len(busy_s),
            sum(waiting.values()),
            0,
        )
        kinds = list(waiting)
        columns: dict[str, dict[int, float]] = defaultdict(dict)
        for number, kind in enumerate(kinds):
            for card_id, needs in offers[kind].items():
                if card_id in busy_s:
                    columns[card_id][number] = needs
        classes: dict[tuple[tuple[int, int], ...], int] = {}
        busy: list[list[float]] = []  # of each class: the seconds until each of its cards is free
        seconds: list[dict[int, float]] = []
        self._class_of = {}
        for card_id, column in columns.items():
            like = tuple((number, round(log(max(value, 1e-9)) / ALIKE)) for number, value in column.items())
            index = classes.setdefault(like, len(classes))
            if index == len(busy):
                busy.append([])
                seconds.append(column)
            busy[index].append(busy_s[card_id])
            self._class_of[card_id] = index
        jobs = [waiting[kind] for kind in kinds]
        self._left, took_s = {}, 0.0
        while (solved := self._solved(jobs, kinds, busy, seconds)) is not None:
            self._left, took_s = solved
            # A class counts as if all its cards were free at the mean of their times. That is exact while each is free before the end; one
            # that is not would take time from the others, or hold the end up, so it is left out. The end only comes nearer by that.
            in_time = [[at for at in cards if at < took_s * (1 - EXACT)] for cards in busy]
            if in_time == busy:
                break
            busy = in_time
        return took_s

    @staticmethod
    def _solved(
        jobs: list[int], kinds: list[Group], busy: list[list[float]], seconds: list[dict[int, float]]
    ) -> tuple[dict[tuple[int, Group], float], float] | None:
        """Least T with: all jobs are done, and no class works longer than T on each card, counted from now. None if nothing can be."""
        from scipy.optimize import linprog  # noqa: PLC0415 - half a second, and only farms with batches need it
        from scipy.sparse import csr_array  # noqa: PLC0415

        pairs = [(index, number) for index, column in enumerate(seconds) for number in column]
        if not pairs:
            return None
        served = sorted({number for _, number in pairs})
        row_of = {number: row for row, number in enumerate(served)}
        unknowns = len(pairs) + 1  # the last is T
        work = csr_array(
            (
                [seconds[index][number] for index, number in pairs] + [-float(len(cards)) for cards in busy],
                (
                    [index for index, _ in pairs] + list(range(len(busy))),
                    list(range(len(pairs))) + [len(pairs)] * len(busy),
                ),
            ),
            shape=(len(busy), unknowns),
        )
        total = csr_array(
            ([1.0] * len(pairs), ([row_of[number] for _, number in pairs], list(range(len(pairs))))),
            shape=(len(served), unknowns),
        )
        found = linprog(
            [0.0] * len(pairs) + [1.0],
            A_ub=work,
            b_ub=[-sum(cards) for cards in busy],
            A_eq=total,
            b_eq=[float(jobs[number]) for number in served],
            method="highs",
        )
        if found.x is None:
            return None
        worth = {number: float(price) for number, price in zip(served, found.eqlin.marginals, strict=True)}
        rent = [-float(price) for price in found.ineqlin.marginals]
        left = {}
        for (index, number), count in zip(pairs, found.x[:-1], strict=True):
            cost = rent[index] * seconds[index][number]
            if count > 1e-6:
                left[index, kinds[number]] = count * seconds[index][number]
            elif worth[number] >= (1 - NEARLY) * cost:
                left[index, kinds[number]] = float("inf")
        return left, float(found.x[-1])

    def wants(self, card_id: str, kind: Group) -> bool:
        """Whether the card should take work of this kind."""
        index = self._class_of.get(card_id)
        return index is not None and self._left.get((index, kind), 0.0) > 0.0

    def take(self, card_id: str, kind: Group, seconds: float) -> None:
        """The card takes a job of this kind."""
        self._taken += 1
        index = self._class_of.get(card_id)
        if index is not None and (index, kind) in self._left:
            self._left[index, kind] -= seconds
