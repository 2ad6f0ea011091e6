"""Which card gets which job: pure and incremental. Events move it; `decide` reads it. No clock, no store, no Ray.

The rules, and why they are so, are in docs/decisions/0011-the-scheduling-policy.md. In short: lanes of jobs are ranked by priority and
ageing, then by the users' shares, then by what is due; the first lane's job gets the card that finishes it first, and rather waits for a
busy card than take a free one that would finish it later.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from farm.model import Card, CardKind, Job, MemoryPlan, Tier
from scheduler.lanes import Group, Judge, Lane, Loading, Offer
from scheduler.shares import Shares
from scheduler.spread import Spread
from scheduler.turns import Turns

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
        self._lanes: dict[object, Lane] = {}
        self._jobs: dict[str, tuple[Job, int, Lane]] = {}
        self._cards: dict[str, Card] = {}
        self._bands: Counter[Tier] = Counter()
        self._free: set[str] = set()
        self._ends: dict[str, float] = {}
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
        name = (key, job.submitted_by, job.priority, batch is not None)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(name, group, job.submitted_by, job.priority, batch is not None)
            group.lanes += 1
        lane.add(seq, job.id, job.created_at)
        self._shares.enter(lane.user, lane.tier)
        self._jobs[job.id] = (job, seq, lane)

    def remove_job(self, job_id: str) -> None:
        """A job waits no longer."""
        found = self._jobs.pop(job_id, None)
        if found is None:
            return
        _, seq, lane = found
        lane.remove(seq, job_id)
        self._shares.leave(lane.user, lane.tier)
        if not lane.jobs:  # months of jobs leave many kinds behind
            del self._lanes[lane.key]
            lane.group.lanes -= 1
            if not lane.group.lanes:
                del self._groups[lane.group.key]

    def change_priority(self, job_id: str, priority: int) -> None:
        """A waiting job moves in the queue."""
        found = self._jobs.get(job_id)
        if found is not None:
            batch = "" if found[2].bulk else None
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
            if self._count_band(before, -1) | self._count_band(card, +1):
                self.forget_verdicts()  # who may serve what depends on which bands the farm has
            else:
                self.forget_verdicts(card.id)
        if model is not None:
            self._models[card.id] = model
        self._ends.pop(card.id, None)
        if free:
            self._free.add(card.id)
        else:
            self._free.discard(card.id)
            if busy_until is not None:
                self._ends[card.id] = busy_until

    def unload(self, card_id: str) -> None:
        """The card's worker holds no model any more: it was replaced, or has forgotten it after a failure."""
        self._models.pop(card_id, None)

    def remove_card(self, card_id: str) -> None:
        """A card is there no longer."""
        self._free.discard(card_id)
        self._ends.pop(card_id, None)
        self._models.pop(card_id, None)
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
        turns = Turns(now, self._free, self._ends, self._models)
        waits: set[Lane] = set()
        while self._free:
            kept = self._kept_for_quality(waits)
            lanes = [
                lane for lane in self._lanes.values() if lane not in waits and self._may_start(lane, kept)
            ]
            if not lanes:
                break
            lane = min(lanes, key=lambda one: self._rank(one, now))
            best = self._best_free(lane, turns, kept)
            for rival in self._rivals(lane, lanes, best, turns, kept):
                found = self._pick(rival, self._offer_of(rival, best.card_id), turns, kept)
                if found is not None:
                    picks.append(found)
                    break
            else:
                usable = self._usable(lane, kept)
                turns.book(lane.group, self._offers(lane), len(lane.jobs), usable)
                waits.add(lane)
        return picks

    # --- how it decides ---
    def _offers(self, lane: Lane) -> list[Offer]:
        return lane.group.offers(self._cards, self._judge, self._loading)

    def _able(self, lane: Lane) -> frozenset[str]:
        return lane.group.able(self._cards, self._judge, self._loading)

    def _rank(self, lane: Lane, now: float) -> tuple[float | str, ...]:
        """What goes first: the smallest."""
        own = -lane.group.nominal_s if lane.bulk else lane.due()
        return (-lane.level(now), self._shares.of(lane.user), lane.bulk, own, lane.jobs[0][0])

    def _gives_way(self, lane: Lane) -> bool:
        """Whether quality cards take the lane's jobs only while no quality work waits that they could start."""
        job = lane.group.sample
        return job.tier is Tier.PREVIEW and self._bands[Tier.PREVIEW] > 0 and not (job.anywhere or job.draft)

    def _kept_for_quality(self, waits: set[Lane]) -> set[str]:
        """Quality cards that could start quality work which waits, and which no other card would finish sooner."""
        if not self._bands[Tier.QUALITY]:
            return set()
        groups = {
            lane.group for lane in self._lanes.values() if lane.tier is Tier.QUALITY and lane not in waits
        }
        kept: set[str] = set()
        for group in groups:
            kept |= group.able(self._cards, self._judge, self._loading)
        return {card_id for card_id in kept if self._cards[card_id].band is Tier.QUALITY}

    def _may_start(self, lane: Lane, kept: set[str]) -> bool:
        able = self._able(lane)
        few, many = (self._free, able) if len(self._free) < len(able) else (able, self._free)
        if kept and self._gives_way(lane):
            return any(card_id in many and card_id not in kept for card_id in few)
        return any(card_id in many for card_id in few)

    def _offer_of(self, lane: Lane, card_id: str) -> Offer:
        load_s = self._loading(lane.group.model, self._cards[card_id])
        return Offer(lane.group.verdicts[card_id].seconds, card_id, load_s)

    def _usable(self, lane: Lane, kept: set[str]) -> Callable[[str], bool]:
        """Which cards the lane may hope for."""
        if kept and self._gives_way(lane):
            return lambda card_id: card_id not in kept
        return lambda _card_id: True

    def _best_free(self, lane: Lane, turns: Turns, kept: set[str]) -> Offer:
        """The free card that would finish one of the lane's jobs first."""
        usable = self._usable(lane, kept)
        best: tuple[float, Offer] | None = None
        for offer in self._offers(lane):
            if best is not None and offer.seconds >= best[0]:
                break
            if offer.card_id in self._free and usable(offer.card_id):
                needs = offer.seconds + turns.load_s(lane.group, offer)
                if best is None or (needs, offer.card_id) < (best[0], best[1].card_id):
                    best = (needs, offer)
        assert best is not None  # noqa: S101 - the lane may start
        return best[1]

    def _rivals(
        self, lane: Lane, lanes: list[Lane], best: Offer, turns: Turns, kept: set[str]
    ) -> Iterator[Lane]:
        """The lanes that suit this card better than `lane`, of the same level, the best first; then `lane` itself."""
        if len(lanes) > 1:
            level = lane.level(turns.now)
            able = [
                other
                for other in lanes
                if other.bulk == lane.bulk
                and best.card_id in self._able(other)
                and other.level(turns.now) == level
                and not (best.card_id in kept and self._gives_way(other))
            ]
            ranked = self._by_spread(able, best, turns) if lane.bulk else self._by_model(able, best, turns)
            for other in ranked:
                if other is lane:
                    break
                yield other
        yield lane

    def _by_model(self, lanes: list[Lane], best: Offer, turns: Turns) -> list[Lane]:
        """As they are due, but one whose model the card holds goes before those that are due by less than `AFFINITY` loads earlier."""
        if len({lane.group.model for lane in lanes}) == 1:
            return []  # none is better off than the first

        def rank(lane: Lane) -> tuple[float, float, int]:
            change = AFFINITY * turns.load_s(lane.group, self._offer_of(lane, best.card_id))
            return (self._shares.of(lane.user) + change, lane.due() + change, lane.jobs[0][0])

        return sorted(lanes, key=rank)

    def _by_spread(self, lanes: list[Lane], best: Offer, turns: Turns) -> list[Lane]:
        """Batches, among those whose user is not far ahead: what this card should take so that all cards end together.

        Then what needs no other model, then the longest: so that short work is left to fill the gaps at the end.
        """
        behind = min(self._shares.of(lane.user) for lane in lanes)
        ahead = {lane.user: 0.0 for lane in lanes}
        for lane in self._lanes.values():
            if lane.bulk and lane.user in ahead:
                ahead[lane.user] = max(ahead[lane.user], lane.group.nominal_s * len(self._able(lane)))
        fair = [lane for lane in lanes if self._shares.of(lane.user) - ahead[lane.user] <= behind]
        self._keep_spread(turns)

        def rank(lane: Lane) -> tuple[bool, bool, float, float, int]:
            seconds = lane.group.verdicts[best.card_id].seconds
            load_s = turns.load_s(lane.group, self._offer_of(lane, best.card_id))
            wanted = self._spread.wants(best.card_id, lane.group)
            slower = 0.0 if wanted else (seconds + load_s) / lane.group.usual_s
            return (not wanted, load_s > 0, slower, -lane.group.nominal_s, lane.jobs[0][0])

        return sorted(fair, key=rank)

    def _keep_spread(self, turns: Turns) -> None:
        waiting: Counter[Group] = Counter()
        for lane in self._lanes.values():
            if lane.bulk:
                waiting[lane.group] += len(lane.jobs)
        if self._spread.stale(waiting, len(self._free) + len(self._ends)):
            offers = {group: group.offers(self._cards, self._judge, self._loading) for group in waiting}
            there = [*self._free, *self._ends]
            busy_s = {card_id: (turns.begins(card_id) or turns.now) - turns.now for card_id in there}
            self._spread.solve(waiting, offers, busy_s)

    def _pick(self, lane: Lane, best: Offer, turns: Turns, kept: set[str]) -> Pick | None:
        group = lane.group
        load_s = turns.load_s(group, best)
        by = turns.now + load_s + best.seconds
        ahead = turns.done_elsewhere(
            group, self._offers(lane), best.card_id, by, len(lane.jobs), self._usable(lane, kept)
        )
        if ahead >= len(lane.jobs):
            return None
        job = self._jobs[lane.jobs[ahead][1]][0]
        verdict = group.verdicts[best.card_id]
        assert verdict.plan is not None  # noqa: S101 - it is an offer
        pick = Pick(job, self._cards[best.card_id], verdict.plan, verdict.seconds, verdict.peak_gib, load_s)
        self._shares.charge(lane.user, lane.tier, group.nominal_s)
        if lane.bulk:
            self._spread.take(best.card_id, group, best.seconds)
        lane.served = turns.now
        self.remove_job(job.id)
        self._free.discard(best.card_id)
        self._ends[best.card_id] = by
        self._models[best.card_id] = group.model
        return pick


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
