"""Which card gets which job: pure and incremental. Events move it; `decide` reads it. No clock, no store, no Ray.

Jobs that ask the same of a card form a group, so that eligibility is judged once per group and card, not once per job.
"""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from farm.model import Card, Job, MemoryPlan, StageKind
from farm.planning.eligibility import Verdict

Judge = Callable[[Job, Card], Verdict]
"""`farm.planning.eligibility` with the farm's view bound: whether a card can take a job, why not, with which plan, how long."""


@dataclass(frozen=True, slots=True)
class Pick:
    """The policy's word: this job on this card, under this plan; `seconds` and `peak_gib` as estimated."""

    job: Job
    card: Card
    plan: MemoryPlan
    seconds: float
    peak_gib: float | None = None


@dataclass(slots=True)
class _Group:
    """Jobs with equal requirements, best first. `sample` stands for all of them before the judge."""

    sample: Job
    excluded: frozenset[str]
    heap: list[tuple[int, int, str]] = field(default_factory=list)
    verdicts: dict[str, Verdict] = field(default_factory=dict)


class Policy:
    """The queue and the cards, as the planner sees them."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._groups: dict[object, _Group] = {}
        self._jobs: dict[str, tuple[Job, int, object]] = {}
        self._cards: dict[str, Card] = {}
        self._free: set[str] = set()
        self._excluded: dict[str, frozenset[str]] = {}

    # --- events ---
    def add_job(self, job: Job, seq: int) -> None:
        """A job waits. `seq` is its place in the order of submission. Adding it again replaces it."""
        self.remove_job(job.id)
        excluded = self._excluded.get(job.id, frozenset())
        key = (requirements(job), excluded)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(job, excluded)
        heapq.heappush(group.heap, (-job.priority, seq, job.id))
        self._jobs[job.id] = (job, seq, key)

    def remove_job(self, job_id: str) -> None:
        """A job waits no longer. Its place in the heap is left to be skipped."""
        self._jobs.pop(job_id, None)

    def change_priority(self, job_id: str, priority: int) -> None:
        """A waiting job moves in the queue."""
        found = self._jobs.get(job_id)
        if found is not None:
            self.add_job(replace(found[0], priority=priority), found[1])

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

    def set_card(self, card: Card, *, free: bool) -> None:
        """A card is there, and takes work or not."""
        if self._cards.get(card.id) != card:
            self._cards[card.id] = card
            self.forget_verdicts()  # who may serve what can depend on all cards of the farm
        if free:
            self._free.add(card.id)
        else:
            self._free.discard(card.id)

    def remove_card(self, card_id: str) -> None:
        """A card is there no longer."""
        self._free.discard(card_id)
        if self._cards.pop(card_id, None) is not None:
            self.forget_verdicts()

    def forget_verdicts(self) -> None:
        """Judges anew from here on: the farm's view changed."""
        for group in self._groups.values():
            group.verdicts.clear()

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

    def decide(self) -> list[Pick]:
        """Picks for the free cards: the first job in the queue that a free card can take gets the fastest such card; and so on."""
        picks: list[Pick] = []
        free = set(self._free)
        while free:
            best: tuple[tuple[int, int], Pick] | None = None
            for key, group in list(self._groups.items()):
                head = self._head(group)
                if head is None:
                    del self._groups[key]  # months of jobs leave many kinds behind
                    continue
                if best is not None and head[0] >= best[0]:
                    continue
                pick = self._fastest(group, head[1], free)
                if pick is not None:
                    best = (head[0], pick)
            if best is None:
                return picks
            pick = best[1]
            picks.append(pick)
            free.discard(pick.card.id)
            self._free.discard(pick.card.id)
            self.remove_job(pick.job.id)
        return picks

    def _head(self, group: _Group) -> tuple[tuple[int, int], Job] | None:
        while group.heap:
            rank, seq, job_id = group.heap[0]
            if self._stands(group, rank, seq, job_id):
                return (rank, seq), self._jobs[job_id][0]
            heapq.heappop(group.heap)
        return None

    def _stands(self, group: _Group, rank: int, seq: int, job_id: str) -> bool:
        """Whether a place in the heap is the job's present one: it may have left, or moved in the queue."""
        found = self._jobs.get(job_id)
        if found is None:
            return False
        job, its_seq, key = found
        return (-job.priority, its_seq) == (rank, seq) and self._groups.get(key) is group

    def _fastest(self, group: _Group, job: Job, free: set[str]) -> Pick | None:
        best: Pick | None = None
        for card_id in sorted(free - group.excluded):
            verdict = self._verdict(group, card_id)
            if (
                verdict.eligible
                and verdict.plan is not None
                and (best is None or verdict.seconds < best.seconds)
            ):
                best = Pick(job, self._cards[card_id], verdict.plan, verdict.seconds, verdict.peak_gib)
        return best

    def _verdict(self, group: _Group, card_id: str) -> Verdict:
        found = group.verdicts.get(card_id)
        if found is None:
            found = group.verdicts[card_id] = self._judge(group.sample, self._cards[card_id])
        return found


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
        job.draft,
    )
