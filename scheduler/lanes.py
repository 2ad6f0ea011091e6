"""The queue as the policy keeps it: groups of jobs that ask the same of a card, and within them lanes of one user and one priority. Pure.

A lane's jobs wait in the order of submission, so only its first one needs a rank, and a decision looks at lanes instead of at 100,000 jobs.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from farm.model import Card, Job, StageKind, Tier
from farm.planning.eligibility import Verdict
from farm.planning.precedence import AGEING_S, PATIENCE
from farm.planning.tiers import tier_now
from scheduler.shares import Shares
from scheduler.turns import Offers, Turns

BURST = 16
BURST_S = 1.0
"""So many jobs alike of one user that came within so many seconds for each are a batch, named or not: no person sends them one by one."""
SLOW_S = 60.0
"""What is left of a burst is no longer one when so many seconds lie between its jobs: others have come after it."""

Judge = Callable[[Job, Card], Verdict]
"""`farm.planning.eligibility` with the farm's view bound: whether a card can take a job, why not, with which plan, how long."""
Loading = Callable[[str, Card], float]
"""Seconds that a card takes to load a model (by name) that it does not hold."""


@dataclass(slots=True, eq=False)
class Lane:
    """Jobs of one group, user and priority, in the order of submission; `batch` for those that were submitted under a batch's name.

    `served` is when one of them last got a card. `since` is from when on the lane waits: then, or when its first job came. `burst`: they
    came by the dozen, and what is left of them still is of that.
    """

    key: object
    group: "Group"
    user: str
    priority: int
    batch: bool
    jobs: list[tuple[int, str]] = field(default_factory=list)
    served: float = float("-inf")
    since: float = 0.0
    burst: bool = False
    _came: dict[str, float] = field(default_factory=dict)

    @property
    def bulk(self) -> bool:
        """Whether nobody waits for its single jobs: they are a batch by name, or came in a burst."""
        return self.batch or self.burst

    @property
    def tier(self) -> Tier:
        """The tier of its jobs."""
        return self.group.tier

    def add(self, seq: int, job_id: str, created_at: float) -> None:
        """A job joins, at its place in the order of submission."""
        insort(self.jobs, (seq, job_id))
        self._came[job_id] = created_at
        self.note()

    def remove(self, seq: int, job_id: str) -> None:
        """A job leaves."""
        del self.jobs[bisect_left(self.jobs, (seq, job_id))]
        del self._came[job_id]
        self.note()

    def note(self) -> None:
        """Works out `since` and `burst` anew."""
        if not self.jobs:
            return
        first, last = self._came[self.jobs[0][1]], self._came[self.jobs[-1][1]]
        self.since = max(first, self.served)
        if self.burst:
            self.burst = last - first <= SLOW_S * len(self.jobs)
        else:
            self.burst = len(self.jobs) >= BURST and last - first <= BURST_S * len(self.jobs)

    def level(self, now: float) -> int:
        """Its priority, and what waiting has added to it."""
        return self.priority + int(max(0.0, now - self.since) // AGEING_S)

    def due(self) -> float:
        """When it should have its turn at the latest: short work soon, long work later."""
        return self.since + PATIENCE * self.group.nominal_s


def rank(lane: Lane, shares: Shares, now: float, place: int = 0) -> tuple[float, float, bool, float, int]:
    """What goes first: the smallest. Level, then share, single jobs before batches, then what is due; of batches the longest.

    Of a lane from which `place` jobs were taken, as if they had just been.
    """
    own = -lane.group.nominal_s if lane.bulk else lane.due()
    level = lane.level(now)
    if place:
        level = lane.priority
        own = own if lane.bulk else max(own, now + PATIENCE * lane.group.nominal_s)
    return (-level, shares.of(lane.user), lane.bulk, own, lane.jobs[place][0])


@dataclass(slots=True, eq=False)
class Group:
    """Jobs with equal requirements. `sample` stands for all of them before the judge; `excluded` cards they shall not go to.

    `nominal_s` and `usual_s` are those of its offers.
    """

    key: object
    sample: Job
    excluded: frozenset[str]
    lanes: dict[object, Lane] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    nominal_s: float = 0.0
    usual_s: float = 0.0
    _offers: Offers | None = None

    @property
    def model(self) -> str | None:
        """The model that its jobs run; None for what is done to a rendered clip, which needs none."""
        return self.sample.settings.model if self.sample.stage is StageKind.GENERATE else None

    @property
    def tier(self) -> Tier:
        """The tier of the work that its jobs wait with."""
        return tier_now(self.sample)

    def forget(self, card_id: str | None = None) -> None:
        """Judges this card anew, or all."""
        self._offers = None
        if card_id is None:
            self.verdicts.clear()
        else:
            self.verdicts.pop(card_id, None)

    def offers(self, cards: Mapping[str, Card], turns: Turns, judge: Judge, loading: Loading) -> Offers:
        """The cards that may take its jobs."""
        if self._offers is None:
            found = []
            for card_id, card in cards.items():
                if card_id in self.excluded:
                    continue
                verdict = self.verdicts.get(card_id)
                if verdict is None:
                    verdict = self.verdicts[card_id] = judge(self.sample, card)
                if verdict.eligible and verdict.plan is not None:
                    load_s = 0.0 if self.model is None else loading(self.model, card)
                    found.append((verdict.seconds, card_id, load_s))
            found.sort()
            ids = tuple(card_id for _, card_id, _ in found)
            self._offers = Offers(
                np.array([turns.slot[card_id] for card_id in ids], dtype=np.int64),
                np.array([seconds for seconds, _, _ in found], dtype=np.float64),
                np.array([load_s for _, _, load_s in found], dtype=np.float64),
                ids,
                frozenset(ids),
                turns.number_of(self.model or ""),
            )
            self.nominal_s, self.usual_s = self._offers.nominal_s, self._offers.usual_s
        return self._offers
