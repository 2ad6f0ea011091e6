"""Which card gets which job: pure and incremental. Events move it; `decide` reads it. No clock, no store, no Ray.

The rules, and why they are so, are in docs/decisions/0011-the-scheduling-policy.md. In short: lanes of jobs are ranked by priority and
ageing, then by the users' shares, then by what is due; the first lane's job gets the card that finishes it first, and rather waits for a
busy card than take a free one that would finish it later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from farm.model import Card, Job, MemoryPlan, StageKind
from farm.planning.kinds import kind_of
from scheduler.choice import Choice, Chosen, Waits
from scheduler.lanes import Group, Judge, Lane, Loading, rank
from scheduler.order import Kind, Line, Queue
from scheduler.scene import Scene
from scheduler.spread import Spread

TOLD = 100
"""Of how many jobs of a lane it is said that they wait for a better card: more would not be looked at."""


@dataclass(frozen=True, slots=True)
class Pick:
    """The policy's word: this job on this card, under this plan; `seconds` and `peak_gib` as estimated, without `load_s` for the model."""

    job: Job
    card: Card
    plan: MemoryPlan
    seconds: float
    peak_gib: float | None = None
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rather:
    """Why a job waits although a card is free for it: `card`, which is busy, would have it done `sooner_s` before `idle`."""

    card: Card
    idle: Card
    sooner_s: float

    def __str__(self) -> str:
        return (
            f"Waits for {self.card.name}, which is busy: there it is done {_about(self.sooner_s)} sooner "
            f"than on {self.idle.name}, which is free."
        )


def _about(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


class Policy:
    """The queue and the cards, as the planner sees them. All times are the caller's wall seconds."""

    def __init__(self, judge: Judge, loading: Loading = lambda _model, _card: 0.0) -> None:
        self._scene = Scene(judge, loading)
        self._spread = Spread()
        self._jobs: dict[str, tuple[Job, int, Lane]] = {}
        self._excluded: dict[str, frozenset[str]] = {}
        self._kinds_seen = 0
        self.rather: dict[str, Rather] = {}
        """Of the last decision: the jobs that wait although a card is free for them."""

    # --- events ---
    def add_job(self, job: Job, seq: int, batch: str | None = None) -> None:
        """A job waits. `seq` is its place in the order of submission, `batch` the name it was submitted under. Again replaces it."""
        self.remove_job(job.id)
        excluded = self._excluded.get(job.id, frozenset())
        key = (requirements(job), excluded)
        group = self._scene.groups.get(key)
        if group is None:
            group = self._scene.groups[key] = Group(key, job, excluded)
            self._kinds_seen += 1
        name = (job.submitted_by, job.priority, batch is not None)
        lane = group.lanes.get(name)
        if lane is None:
            lane = group.lanes[name] = Lane(name, group, job.submitted_by, job.priority, batch is not None)
        lane.add(seq, job.id, job.created_at)
        self._scene.shares.enter(lane.user, lane.tier)
        self._jobs[job.id] = (job, seq, lane)

    def remove_job(self, job_id: str) -> None:
        """A job waits no longer."""
        found = self._jobs.pop(job_id, None)
        if found is None:
            return
        _, seq, lane = found
        group = lane.group
        lane.remove(seq, job_id)
        self._scene.shares.leave(lane.user, lane.tier)
        if not lane.jobs:  # months of jobs leave many kinds behind
            del group.lanes[lane.key]
            if not group.lanes:
                del self._scene.groups[group.key]

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
        self._scene.see(card)
        if model is not None:
            self._scene.hold(card.id, model)
        self._scene.stand(card.id, free=free, ends=busy_until)

    def unload(self, card_id: str) -> None:
        """The card's worker holds no model any more: it was replaced, or has forgotten it after a failure."""
        if card_id in self._scene.cards:
            self._scene.hold(card_id, None)

    def remove_card(self, card_id: str) -> None:
        """A card is there no longer."""
        self._scene.lose(card_id)

    def forget_verdicts(self, card_id: str | None = None) -> None:
        """Judges anew from here on, this card or all: the farm's view changed."""
        self._scene.forget(card_id)

    # --- answers ---
    @property
    def cards(self) -> list[Card]:
        """All known cards."""
        return list(self._scene.cards.values())

    def card(self, card_id: str) -> Card | None:
        """A card, if it is known."""
        return self._scene.cards.get(card_id)

    @property
    def cards_known(self) -> int:
        """How many cards are known."""
        return len(self._scene.cards)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._jobs)

    def job(self, job_id: str) -> Job | None:
        """A waiting job."""
        found = self._jobs.get(job_id)
        return None if found is None else found[0]

    @property
    def groups(self) -> list[Group]:
        """The kinds of waiting jobs."""
        return list(self._scene.groups.values())

    def jobs_of(self, group: Group) -> list[Job]:
        """The waiting jobs of a kind."""
        return [self._jobs[job_id][0] for lane in group.lanes.values() for _, job_id in lane.jobs]

    def decide(self, now: float) -> list[Pick]:
        """Picks for the free cards. What is picked waits no longer, and its card is busy for as long as it is expected to take."""
        picks: list[Pick] = []
        waits = Waits()
        choice: Choice | None = None
        while self._scene.free:
            choice = Choice(self._scene, self._spread, waits, now)
            before = len(waits.idle)
            chosen = choice.next()
            if chosen is not None:
                picks.append(self._take(chosen, now))
            elif not choice.frees or len(waits.idle) == before:
                break
        self._note_rather(choice, waits)
        return picks

    def _take(self, chosen: Chosen, now: float) -> Pick:
        lane, card_id = chosen.lane, chosen.card_id
        group, scene = lane.group, self._scene
        verdict = group.verdicts[card_id]
        job = self._jobs[lane.jobs[chosen.place][1]][0]
        assert verdict.plan is not None  # noqa: S101 - only such cards are offered
        pick = Pick(job, scene.cards[card_id], verdict.plan, verdict.seconds, verdict.peak_gib, chosen.load_s)
        scene.shares.charge(lane.user, lane.tier, group.nominal_s)
        if lane.bulk:
            self._spread.take(card_id, group, verdict.seconds)
        lane.served = now
        self.remove_job(job.id)
        scene.stand(card_id, free=False, ends=chosen.ends)
        if group.model is not None:
            scene.hold(card_id, group.model)
        return pick

    def _note_rather(self, choice: Choice | None, waits: Waits) -> None:
        self.rather = {}
        for lane, idle in waits.idle.items():
            better = choice.better(lane, idle) if choice is not None and idle in self._scene.free else None
            if better is not None:
                cards = self._scene.cards
                why = Rather(cards[better[0]], cards[idle], better[1])
                self.rather |= dict.fromkeys((job_id for _, job_id in lane.jobs[:TOLD]), why)

    def queue(self, now: float) -> Queue:
        """All that waits, copied, for `scheduler.order` to sort."""
        scene = self._scene
        kinds: list[Kind] = []
        lines: list[Line] = []
        for group in scene.groups.values():
            offers = scene.offers(group)  # before the ranks, which speak of a job's length
            for lane in group.lanes.values():
                level, _, _, due, _ = rank(lane, scene.shares, now)
                then, later = level, due
                if len(lane.jobs) > 1:
                    then, _, _, later, _ = rank(lane, scene.shares, now, 1)
                lines.append(
                    Line(
                        len(kinds),
                        lane.user,
                        lane.bulk,
                        group.nominal_s,
                        (level, due),
                        (then, later),
                        lane.jobs.copy(),
                    )
                )
            kinds.append(Kind(_label(group), group.sample, group.excluded, offers, group.verdicts))
        return Queue(tuple(kinds), tuple(lines), dict(scene.shares.accounts))

    @property
    def kinds_seen(self) -> int:
        """How many kinds have come to wait so far: another number than before says that there is a new one."""
        return self._kinds_seen


def _label(group: Group) -> str:
    """The kind's name, and the cards that it is kept from."""
    return " ".join([kind_of(group.sample), *(f"-{card_id}" for card_id in sorted(group.excluded))])


def requirements(job: Job) -> tuple[object, ...]:
    """What a job asks of a card: jobs that agree in this are alike to every filter."""
    settings = job.settings
    return (
        job.stage,
        (settings.fps, settings.smooth) if job.stage is StageKind.INTERPOLATE else None,
        settings.model,
        settings.width,
        settings.height,
        settings.frames,
        settings.steps,
        settings.guidance,
        job.tier,
        job.anywhere,
        job.needs,
        job.draft,
    )
