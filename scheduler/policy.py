"""Which card gets which job: pure and incremental. Events move it; `decide` reads it. No clock, no store, no Ray.

The rules, and why they are so, are in docs/decisions/0011-the-scheduling-policy.md. In short: lanes of jobs are ranked by priority and
ageing, then by the users' shares, then by what is due; the first lane's job gets the card that finishes it first, and rather waits for a
busy card than take a free one that would finish it later.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from farm.model import Card, CardKind, Job, MemoryPlan, Tier
from scheduler.lanes import PATIENCE, Group, Judge, Lane, Loading
from scheduler.shares import Shares
from scheduler.spread import Spread
from scheduler.turns import UNKNOWN, Flags, Numbers, Offers, Turns

AFFINITY = 10.0
"""A card changes its model when that is due by more than so many times the load: changing costs a tenth of its time at most."""


@dataclass(frozen=True, slots=True)
class Pick:
    """The policy's word: this job on this card, under this plan; `seconds` and `peak_gib` as estimated, without `load_s` for the model."""

    job: Job
    card: Card
    plan: MemoryPlan
    seconds: float
    peak_gib: float | None = None
    load_s: float = 0.0


class Policy:
    """The queue and the cards, as the planner sees them. All times are the caller's wall seconds."""

    def __init__(self, judge: Judge, loading: Loading = lambda _model, _card: 0.0) -> None:
        self._judge = judge
        self._loading = loading
        self._groups: dict[object, Group] = {}
        self._jobs: dict[str, tuple[Job, int, Lane]] = {}
        self._cards: dict[str, Card] = {}
        self._bands: Counter[Tier] = Counter()
        self._free: set[str] = set()
        self._turns = Turns()
        self._models: dict[str, str] = {}
        self._excluded: dict[str, frozenset[str]] = {}
        self._shares = Shares()
        self._spread = Spread()

    # --- events ---
    def add_job(self, job: Job, seq: int, batch: str | None = None) -> None:
        """A job waits. `seq` is its place in the order of submission, `batch` the name it was submitted under. Again replaces it."""
        self.remove_job(job.id)
        excluded = self._excluded.get(job.id, frozenset())
        key = (requirements(job), excluded)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(key, job, excluded)
        name = (job.submitted_by, job.priority, batch is not None)
        lane = group.lanes.get(name)
        if lane is None:
            lane = group.lanes[name] = Lane(name, group, job.submitted_by, job.priority, batch is not None)
        lane.add(seq, job.id, job.created_at)
        self._shares.enter(lane.user, lane.tier)
        self._jobs[job.id] = (job, seq, lane)

    def remove_job(self, job_id: str) -> None:
        """A job waits no longer."""
        found = self._jobs.pop(job_id, None)
        if found is None:
            return
        _, seq, lane = found
        group = lane.group
        lane.remove(seq, job_id)
        self._shares.leave(lane.user, lane.tier)
        if not lane.jobs:  # months of jobs leave many kinds behind
            del group.lanes[lane.key]
            if not group.lanes:
                del self._groups[group.key]

    def change_priority(self, job_id: str, priority: int) -> None:
        """A waiting job moves in the queue."""
        found = self._jobs.get(job_id)
        if found is not None:
            batch = "" if found[2].batch else None
            self.add_job(replace(found[0], priority=priority), found[1], batch)

    def exclude(self, job_id: str, card_id: str) -> None:
        """The job failed on this card and shall not go there again."""
        self._excluded[job_id] = self._excluded.get(job_id, frozenset()) | {card_id}

    def forgive(self, job_id: str) -> None:
        """The job may go anywhere again: it ended, or a person asked for a new try."""
        self._excluded.pop(job_id, None)

    def excluded(self, job_id: str) -> frozenset[str]:
        """The cards that the job shall not go to again."""
        return self._excluded.get(job_id, frozenset())

    def note_unplaceable(self, reasons: Mapping[str, str | None]) -> None:
        """Remembers what the store was told of these jobs, so that it is told only what is new."""
        for job_id, reason in reasons.items():
            found = self._jobs.get(job_id)
            if found is not None:
                self._jobs[job_id] = (replace(found[0], unplaceable=reason), found[1], found[2])

    def set_card(
        self, card: Card, *, free: bool, busy_until: float | None = None, model: str | None = None
    ) -> None:
        """A card is there, and takes work or not.

        `busy_until` is when a card at work is expected to be free, None where nobody knows (it does not answer, say): then no job waits for
        it. `model` is what its worker has loaded; None leaves what is known.
        """
        before = self._cards.get(card.id)
        if before != card:
            self._cards[card.id] = card
            self._turns.add(card.id, quality=card.band is Tier.QUALITY)
            if self._count_band(before, -1) | self._count_band(card, +1):
                self.forget_verdicts()  # who may serve what depends on which bands the farm has
            else:
                self.forget_verdicts(card.id)
        if model is not None:
            self._hold(card.id, model)
        self._stand(card.id, free=free, ends=busy_until)

    def _stand(self, card_id: str, *, free: bool, ends: float | None) -> None:
        slot = self._turns.slot[card_id]
        self._turns.free[slot] = free
        self._turns.ends[slot] = UNKNOWN if ends is None else ends
        if free:
            self._free.add(card_id)
        else:
            self._free.discard(card_id)

    def _hold(self, card_id: str, model: str) -> None:
        self._models[card_id] = model
        self._turns.hold(card_id, model)

    def unload(self, card_id: str) -> None:
        """The card's worker holds no model any more: it was replaced, or has forgotten it after a failure."""
        if self._models.pop(card_id, None) is not None:
            self._turns.hold(card_id, None)

    def remove_card(self, card_id: str) -> None:
        """A card is there no longer."""
        self._free.discard(card_id)
        self._models.pop(card_id, None)
        self._turns.remove(card_id)
        gone = self._cards.pop(card_id, None)
        if gone is not None:
            if self._count_band(gone, -1):
                self.forget_verdicts()
            else:
                self.forget_verdicts(card_id)

    def forget_verdicts(self, card_id: str | None = None) -> None:
        """Judges anew from here on, this card or all: the farm's view changed."""
        for group in self._groups.values():
            group.forget(card_id)

    def _count_band(self, card: Card | None, by: int) -> bool:
        """Whether a band comes or goes with this card. A CPU makes up none."""
        if card is None or card.kind is CardKind.CPU:
            return False
        before = self._bands[card.band]
        self._bands[card.band] = before + by
        return (before > 0) != (before + by > 0)

    # --- answers ---
    @property
    def cards(self) -> list[Card]:
        """All known cards."""
        return list(self._cards.values())

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    def job(self, job_id: str) -> Job | None:
        """A waiting job."""
        found = self._jobs.get(job_id)
        return None if found is None else found[0]

    def jobs(self) -> list[Job]:
        """All waiting jobs."""
        return [job for job, _, _ in self._jobs.values()]

    def decide(self, now: float) -> list[Pick]:
        """Picks for the free cards. What is picked waits no longer, and its card is busy for as long as it is expected to take."""
        picks: list[Pick] = []
        waits: set[Lane] = set()
        while self._free:
            round_ = self._round(now, waits)
            if not round_.lanes:
                break
            before = len(waits)
            pick = self._next(round_, waits)
            if pick is not None:
                picks.append(pick)
            elif round_.kept is None or len(waits) == before:
                break  # else quality work was found to wait for faster cards: preview work may have the others
        return picks

    # --- how it decides ---
    def _offers(self, group: Group) -> Offers:
        return group.offers(self._cards, self._turns, self._judge, self._loading)

    def _round(self, now: float, waits: set[Lane]) -> "_Round":
        """How things stand for the next pick: who may start on some free card, in the order of the queue."""
        kept = self._kept_for_quality(waits)
        free: dict[Group, Flags] = {}
        lanes: list[Lane] = []
        for group in self._groups.values():
            slots = self._offers(group).slots
            mask = self._turns.free[slots]
            if kept is not None and self._gives_way(group):
                mask &= ~kept[slots]
            if mask.any():
                free[group] = mask
                lanes += [lane for lane in group.lanes.values() if lane not in waits]
        accounts = self._shares.accounts

        def rank(lane: Lane) -> tuple[float, float, bool, float, int]:
            group = lane.group
            own = -group.nominal_s if lane.bulk else lane.since + PATIENCE * group.nominal_s
            return (-lane.level(now), accounts.get(lane.user, 0.0), lane.bulk, own, lane.jobs[0][0])

        lanes.sort(key=rank)
        return _Round(now, kept, free, lanes, self._turns.begins(now))

    def _next(self, round_: "_Round", waits: set[Lane]) -> Pick | None:
        """The first job in the queue that should start on a free card; lanes whose jobs rather wait for a busy one are put to `waits`."""
        held_back: Counter[Group] = Counter()
        for lane in round_.lanes:
            at = self._best_free(lane.group, round_)
            for rival in self._rivals(lane, at, round_):
                pick = self._pick(rival, at, round_, held_back)
                if pick is not None:
                    return pick
            waits.add(lane)
            held_back[lane.group] += len(lane.jobs)
        return None

    def _gives_way(self, group: Group) -> bool:
        """Whether quality cards take its jobs only while no quality work waits that they could start."""
        job = group.sample
        return job.tier is Tier.PREVIEW and self._bands[Tier.PREVIEW] > 0 and not (job.anywhere or job.draft)

    def _kept_for_quality(self, waits: set[Lane]) -> Flags | None:
        """Quality cards that could start quality work which waits, save what other cards would finish sooner; None where there are none."""
        kept: Flags | None = None
        if self._bands[Tier.QUALITY]:
            for group in self._groups.values():
                if group.sample.tier is Tier.QUALITY and not waits.issuperset(group.lanes.values()):
                    if kept is None:
                        kept = np.zeros(len(self._turns.free), dtype=bool)
                    kept[self._offers(group).slots] = True
        return None if kept is None else kept & self._turns.quality

    def _best_free(self, group: Group, round_: "_Round") -> str:
        """The free card that would finish one of the group's jobs first."""
        found = round_.best.get(group)
        if found is None:
            offers = self._offers(group)
            needs = np.where(round_.free[group], offers.seconds + self._turns.loading(offers), UNKNOWN)
            found = round_.best[group] = offers.ids[int(needs.argmin())]
        return found

    def _rivals(self, lane: Lane, card_id: str, round_: "_Round") -> Iterator[Lane]:
        """The lanes that suit this card better than `lane`, of the same level, the best first; then `lane` itself."""
        better = (
            self._by_spread(lane, card_id, round_) if lane.bulk else self._by_model(lane, card_id, round_)
        )
        for other in better:
            if other is lane:
                break
            yield other
        yield lane

    def _alike(self, lane: Lane, card_id: str, round_: "_Round", model: str | None = None) -> list[Lane]:
        """The lanes of the same level that may have this card too; with `model`, those that run it."""
        slot, level = self._turns.slot[card_id], lane.level(round_.now)
        kept = round_.kept is not None and bool(round_.kept[slot])
        groups = {
            group
            for group in round_.free
            if (model is None or group.model == model)
            and card_id in self._offers(group).able
            and not (kept and self._gives_way(group))
        }
        return [
            other
            for other in round_.lanes
            if other.group in groups and other.bulk == lane.bulk and other.level(round_.now) == level
        ]

    def _by_model(self, lane: Lane, card_id: str, round_: "_Round") -> list[Lane]:
        """Those whose model the card holds go before one that is due, or whose user is behind, by less than `AFFINITY` loads."""
        load_s = self._load_s(lane.group, card_id)
        held = self._models.get(card_id)
        if not load_s or held is None:
            return []
        most = AFFINITY * load_s

        def soon(other: Lane) -> bool:
            if other.user == lane.user:
                return other.due() < lane.due() + most
            return self._shares.of(other.user) < self._shares.of(lane.user) + most

        warm = [other for other in self._alike(lane, card_id, round_, held) if soon(other)]
        return sorted(warm, key=lambda one: (self._shares.of(one.user), one.due(), one.jobs[0]))

    def _by_spread(self, lane: Lane, card_id: str, round_: "_Round") -> list[Lane]:
        """Batches, among those whose user is not far ahead: what this card should take so that all cards end together.

        Then what needs no other model, then the longest: so that short work is left to fill the gaps at the end. A user may be ahead by one
        of their longest jobs on each card: long work must begin early for short work of others to be left.
        """
        lanes = self._alike(lane, card_id, round_)
        if len({one.group for one in lanes}) == 1:
            return []
        behind = min(self._shares.of(one.user) for one in lanes)
        ahead: dict[str, float] = {}
        for one in lanes:
            group = one.group
            ahead[one.user] = max(ahead.get(one.user, 0.0), group.nominal_s * len(self._offers(group).ids))
        fair = [one for one in lanes if self._shares.of(one.user) - ahead[one.user] <= behind]
        self._keep_spread(round_)
        order: dict[Group, tuple[bool, bool, float, float]] = {}
        for group in {one.group for one in fair}:
            load_s = self._load_s(group, card_id)
            wanted = self._spread.wants(card_id, group)
            slower = 0.0 if wanted else (group.verdicts[card_id].seconds + load_s) / group.usual_s
            order[group] = (not wanted, load_s > 0, slower, -group.nominal_s)
        return sorted(fair, key=lambda one: (order[one.group], self._shares.of(one.user), one.jobs[0]))

    def _keep_spread(self, round_: "_Round") -> None:
        waiting = {
            group: jobs
            for group in self._groups.values()
            if (jobs := sum(len(lane.jobs) for lane in group.lanes.values() if lane.bulk))
        }
        there = {card_id: at for card_id, at in self._turns.slot.items() if round_.begins[at] != UNKNOWN}
        if self._spread.stale(waiting, len(there)):
            seconds = {
                group: dict(zip(offers.ids, offers.seconds.tolist(), strict=True))
                for group in waiting
                for offers in [self._offers(group)]
            }
            busy_s = {card_id: float(round_.begins[at]) - round_.now for card_id, at in there.items()}
            self._spread.solve(waiting, seconds, busy_s)

    def _load_s(self, group: Group, card_id: str) -> float:
        held = self._models.get(card_id) == group.model
        return 0.0 if held else self._loading(group.model, self._cards[card_id])

    def _pick(self, lane: Lane, card_id: str, round_: "_Round", held_back: Counter[Group]) -> Pick | None:
        """The lane's job for this card: the first that other cards would not finish sooner. None if they would finish all of them."""
        group, slot = lane.group, self._turns.slot[card_id]
        verdict, load_s = group.verdicts[card_id], self._load_s(group, card_id)
        ends = round_.now + load_s + verdict.seconds
        ahead = self._done_elsewhere(group, slot, ends, round_)
        if ahead:
            share = sum(
                min(1.0, jobs / max(1, self._done_elsewhere(other, slot, ends, round_)))
                for other, jobs in held_back.items()
                if other is not group and not self._offers(other).able.isdisjoint(self._offers(group).able)
            )
            ahead = max(0, int(ahead * max(0.0, 1.0 - share)) - held_back[group])
        if ahead >= len(lane.jobs) or verdict.plan is None:
            return None
        job = self._jobs[lane.jobs[ahead][1]][0]
        pick = Pick(job, self._cards[card_id], verdict.plan, verdict.seconds, verdict.peak_gib, load_s)
        bulk = lane.bulk
        self._shares.charge(lane.user, lane.tier, group.nominal_s)
        if bulk:
            self._spread.take(card_id, group, verdict.seconds)
        lane.served = round_.now
        self.remove_job(job.id)
        self._stand(card_id, free=False, ends=ends)
        self._hold(card_id, group.model)
        return pick

    def _done_elsewhere(self, group: Group, slot: int, by: float, round_: "_Round") -> int:
        """How many of the group's jobs the other cards would have finished before `by`."""
        key = (group, slot, by)
        found = round_.done.get(key)
        if found is None:
            kept = round_.kept if self._gives_way(group) else None
            found = self._turns.done_by(self._offers(group), round_.begins, by, slot, kept)
            round_.done[key] = found
        return found


@dataclass(slots=True)
class _Round:
    """How things stand between two picks. `free` marks, of each group that may start, which of its offers are free cards for it."""

    now: float
    kept: Flags | None
    free: dict[Group, Flags]
    lanes: list[Lane]
    begins: Numbers
    best: dict[Group, str] = field(default_factory=dict)
    done: dict[tuple[Group, int, float], int] = field(default_factory=dict)


def requirements(job: Job) -> tuple[object, ...]:
    """What a job asks of a card: jobs that agree in this are alike to every filter."""
    settings = job.settings
    return (
        settings.model,
        settings.width,
        settings.height,
        settings.frames,
        settings.steps,
        settings.guidance,
        job.tier,
        job.anywhere,
        job.draft,
    )
