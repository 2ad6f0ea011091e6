"""The next pick: which lane's turn it is, which free card would have its job done first, and whether the job rather waits. Pure.

The rules, and why they are so, are in docs/decisions/0011-the-scheduling-policy.md.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from farm.model import Tier
from farm.planning.precedence import AFFINITY
from scheduler.lanes import Group, Lane, rank
from scheduler.scene import Scene
from scheduler.spread import Spread
from scheduler.turns import UNKNOWN, Flags, Numbers

BULK_AFFINITY = 60.0
"""As `AFFINITY`, for batches, whose users mind a quarter of an hour less: changing costs a sixtieth."""


class Chosen(NamedTuple):
    """The job at this place in the lane on this card, which then is at work until `ends` (wall seconds); `load_s` of that is loading."""

    lane: Lane
    place: int
    card_id: str
    ends: float
    load_s: float


@dataclass(slots=True)
class Waits:
    """Lanes whose jobs all rather wait for busy cards than take the free one that is best for them (`idle`, by lane), in one decision."""

    idle: dict[Lane, str] = field(default_factory=dict)
    jobs: Counter[Group] = field(default_factory=Counter)


class Choice:
    """How things stand between two picks. Made anew for each, from a scene that the last pick has changed."""

    def __init__(self, scene: Scene, spread: Spread, waits: Waits, now: float) -> None:
        self._scene = scene
        self._spread = spread
        self._waits = waits
        self._now = now
        self._begins: Numbers = scene.turns.begins(now)
        self._kept = self._kept_for_quality()
        self._free: dict[Group, Flags] = {}
        """Of each group that may start: which of its offers are free cards for it."""
        self._best: dict[Group, str] = {}
        self._done: dict[tuple[Group, int, float], int] = {}
        lanes: list[Lane] = []
        for group in scene.groups.values():
            slots = scene.offers(group).slots
            mask = scene.turns.free[slots]
            if self._kept is not None and scene.gives_way(group):
                mask &= ~self._kept[slots]
            if mask.any():
                self._free[group] = mask
                lanes += [lane for lane in group.lanes.values() if lane not in waits.idle]
        lanes.sort(key=lambda lane: rank(lane, scene.shares, now))
        self._lanes = lanes

    def next(self) -> Chosen | None:
        """The first job in the queue that should start on a free card. Lanes that rather wait are noted in `waits`."""
        for lane in self._lanes:
            card_id = self._best_free(lane.group)
            for rival in self._rivals(lane, card_id):
                chosen = self._place(rival, card_id)
                if chosen is not None:
                    return chosen
            self._waits.idle[lane] = card_id
            self._waits.jobs[lane.group] += len(lane.jobs)
        return None

    @property
    def frees(self) -> bool:
        """Whether quality work was found to wait for faster cards, so that preview work may have the others: choose again."""
        return self._kept is not None and bool(self._lanes)

    def better(self, lane: Lane, idle: str) -> tuple[str, float] | None:
        """The busy card that would have the lane's first job done before the free one `idle`, and by how many seconds."""
        scene, group = self._scene, lane.group
        offers = scene.offers(group)
        ends = self._begins[offers.slots] + scene.turns.loading(offers) + offers.seconds
        if self._kept is not None and scene.gives_way(group):
            ends[self._kept[offers.slots]] = UNKNOWN
        if not len(ends) or idle not in offers.able:
            return None
        at = int(ends.argmin())
        sooner = float(ends[offers.ids.index(idle)] - ends[at])
        return (offers.ids[at], sooner) if sooner > 0 else None

    def _kept_for_quality(self) -> Flags | None:
        """Quality cards that could start quality work which waits, save what other cards would finish sooner; None where there are none."""
        scene = self._scene
        kept: Flags | None = None
        if scene.bands[Tier.QUALITY]:
            for group in scene.groups.values():
                waiting = any(lane not in self._waits.idle for lane in group.lanes.values())
                if group.tier is Tier.QUALITY and waiting:
                    if kept is None:
                        kept = np.zeros(len(scene.turns.free), dtype=bool)
                    kept[scene.offers(group).slots] = True
        return None if kept is None else kept & scene.turns.quality

    def _best_free(self, group: Group) -> str:
        """The free card that would finish one of the group's jobs first."""
        found = self._best.get(group)
        if found is None:
            offers = self._scene.offers(group)
            needs = np.where(self._free[group], offers.seconds + self._scene.turns.loading(offers), UNKNOWN)
            found = self._best[group] = offers.ids[int(needs.argmin())]
        return found

    def _place(self, lane: Lane, card_id: str) -> Chosen | None:
        """The first of the lane's jobs that other cards would not finish sooner than this one. None if they would finish all of them.

        What lanes that go first, and wait too, will take of those cards is reckoned in shares of what they can do by then. Of a batch
        the card takes a job whenever that is done before all batches are: the others have enough to do.
        """
        scene, group = self._scene, lane.group
        load_s = scene.load_s(group, card_id)
        slot, ends = scene.turns.slot[card_id], self._now + load_s + group.verdicts[card_id].seconds
        ahead = self._done_elsewhere(group, slot, ends)
        if ahead:
            able = scene.offers(group).able
            share = sum(
                min(1.0, jobs / max(1, self._done_elsewhere(other, slot, ends)))
                for other, jobs in self._waits.jobs.items()
                if other is not group and not lane.bulk and not scene.offers(other).able.isdisjoint(able)
            )
            ahead = max(0, int(ahead * max(0.0, 1.0 - share)) - self._waits.jobs[group])
        if ahead >= len(lane.jobs):
            if not lane.bulk or ends > self._spread.until(scene, self._begins, self._now):
                return None
            ahead = 0
        return Chosen(lane, ahead, card_id, ends, load_s)

    def _done_elsewhere(self, group: Group, slot: int, by: float) -> int:
        """How many of the group's jobs the other cards would have finished before `by`."""
        key = (group, slot, by)
        found = self._done.get(key)
        if found is None:
            kept = self._kept if self._scene.gives_way(group) else None
            offers = self._scene.offers(group)
            found = self._done[key] = self._scene.turns.done_by(offers, self._begins, by, slot, kept)
        return found

    # --- which lane suits a card best ---
    def _rivals(self, lane: Lane, card_id: str) -> Iterator[Lane]:
        """The lanes that suit this card better than `lane`, of the same level, the best first; then `lane` itself."""
        better = self._by_spread(lane, card_id) if lane.bulk else self._by_model(lane, card_id)
        for other in better:
            if other is lane:
                break
            yield other
        yield lane

    def _alike(self, lane: Lane, card_id: str, model: str | None = None) -> list[Lane]:
        """The lanes of the same level that may have this card too; with `model`, those that run it."""
        scene, level = self._scene, lane.level(self._now)
        kept = self._kept is not None and bool(self._kept[scene.turns.slot[card_id]])
        groups = {
            group
            for group in self._free
            if (model is None or group.model == model)
            and card_id in scene.offers(group).able
            and not (kept and scene.gives_way(group))
        }
        return [
            other
            for other in self._lanes
            if other.group in groups
            and other not in self._waits.idle
            and other.bulk == lane.bulk
            and other.level(self._now) == level
        ]

    def _by_model(self, lane: Lane, card_id: str) -> list[Lane]:
        """Those whose model the card holds go before one that is due, or whose user is behind, by less than `AFFINITY` loads."""
        shares, load_s = self._scene.shares, self._scene.load_s(lane.group, card_id)
        held = self._scene.models.get(card_id)
        if not load_s or held is None:
            return []
        most = AFFINITY * load_s

        def soon(other: Lane) -> bool:
            if other.user == lane.user:
                return other.due() < lane.due() + most
            return shares.of(other.user) < shares.of(lane.user) + most

        warm = [other for other in self._alike(lane, card_id, held) if soon(other)]
        return sorted(warm, key=lambda one: (shares.of(one.user), one.due(), one.jobs[0]))

    def _by_spread(self, lane: Lane, card_id: str) -> list[Lane]:
        """Batches, among those whose user is not far ahead: what this card should take so that all cards end together.

        Then what needs no other model, then the longest: so that short work is left to fill the gaps at the end. A user may be ahead by one
        of their longest jobs on each card, for long work must begin early if short work is to be left, and by what makes a load worth it.
        """
        scene, lanes = self._scene, self._alike(lane, card_id)
        if len({one.group for one in lanes}) == 1:
            return []
        behind = min(scene.shares.of(one.user) for one in lanes)
        ahead: dict[str, float] = {}
        for one in lanes:
            width = one.group.nominal_s * len(scene.offers(one.group).ids)
            model, stay = one.group.model, 0.0
            if model is not None and scene.models.get(card_id) == model:
                stay = BULK_AFFINITY * scene.loading(model, scene.cards[card_id])
            ahead[one.user] = max(ahead.get(one.user, 0.0), width, stay)
        fair = [one for one in lanes if scene.shares.of(one.user) - ahead[one.user] <= behind]
        self._spread.keep(scene, self._begins, self._now)
        order: dict[Group, tuple[bool, bool, float, float]] = {}
        for group in {one.group for one in fair}:
            load_s = scene.load_s(group, card_id)
            wanted = self._spread.wants(card_id, group)
            slower = 0.0 if wanted else (group.verdicts[card_id].seconds + load_s) / group.usual_s
            order[group] = (not wanted, load_s > 0, slower, -group.nominal_s)
        return sorted(fair, key=lambda one: (order[one.group], scene.shares.of(one.user), one.jobs[0]))
