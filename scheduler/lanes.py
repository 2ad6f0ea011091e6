"""The queue as the policy keeps it: groups of jobs that ask the same of a card, and within them lanes of one user and one priority. Pure.

A lane's jobs wait in the order of submission, so only its first one needs a rank, and a decision looks at lanes instead of at 100,000 jobs.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from farm.model import Card, Job, Tier
from farm.planning.eligibility import Verdict

AGEING_S = 3600.0
"""So long in vain weighs as much as one step of priority: a lane that gets nothing rises, and falls back once it was served."""
PATIENCE = 4.0
"""A job may wait this many times its own length before a shorter one that came later no longer goes first."""

Judge = Callable[[Job, Card], Verdict]
"""`farm.planning.eligibility` with the farm's view bound: whether a card can take a job, why not, with which plan, how long."""
Loading = Callable[[str, Card], float]
"""Seconds that a card takes to load a model (by name) that it does not hold."""


class Offer(NamedTuple):
    """A card that may take a group's jobs: seconds of one job with the model loaded, and of loading the model."""

    seconds: float
    card_id: str
    load_s: float


@dataclass(slots=True, eq=False)
class Group:
    """Jobs with equal requirements. `sample` stands for all of them before the judge; `excluded` cards they shall not go to."""

    key: object
    sample: Job
    excluded: frozenset[str]
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    lanes: int = 0
    _offers: list[Offer] | None = None
    _able: frozenset[str] = frozenset()
    _usual_s: float = 0.0

    def forget(self, card_id: str | None = None) -> None:
        """Judges this card anew, or all."""
        self._offers = None
        if card_id is None:
            self.verdicts.clear()
        else:
            self.verdicts.pop(card_id, None)

    def offers(self, cards: dict[str, Card], judge: Judge, loading: Loading) -> list[Offer]:
        """The cards that may take its jobs, the fastest first."""
        if self._offers is None:
            found = []
            for card_id, card in cards.items():
                if card_id in self.excluded:
                    continue
                verdict = self.verdicts.get(card_id)
                if verdict is None:
                    verdict = self.verdicts[card_id] = judge(self.sample, card)
                if verdict.eligible and verdict.plan is not None:
                    found.append(Offer(verdict.seconds, card_id, loading(self.model, card)))
            self._offers = sorted(found)
            self._able = frozenset(offer.card_id for offer in found)
            rate = sum(1 / max(offer.seconds, 1e-9) for offer in found)
            self._usual_s = len(found) / rate if found else 0.0
        return self._offers

    def able(self, cards: dict[str, Card], judge: Judge, loading: Loading) -> frozenset[str]:
        """The ids of those cards."""
        self.offers(cards, judge, loading)
        return self._able

    @property
    def model(self) -> str:
        """The model that its jobs run."""
        return self.sample.settings.model

    @property
    def nominal_s(self) -> float:
        """Seconds of one job on the fastest card that may take it: its size, whichever card it meets. Only once `offers` was asked."""
        return self._offers[0].seconds if self._offers else 0.0

    @property
    def usual_s(self) -> float:
        """Seconds of one job on a middling card among those that may take it (the harmonic mean). Only once `offers` was asked."""
        return self._usual_s


@dataclass(slots=True, eq=False)
class Lane:
    """Jobs of one group, user and priority, in the order of submission; `bulk` for those of a batch.

    `served` is when one of them last got a card: since then, or since its first job came, the lane waits.
    """

    key: object
    group: Group
    user: str
    priority: int
    bulk: bool
    jobs: list[tuple[int, str]] = field(default_factory=list)
    arrived: dict[str, float] = field(default_factory=dict)
    served: float = float("-inf")

    @property
    def tier(self) -> Tier:
        """The tier of its jobs."""
        return self.group.sample.tier

    def add(self, seq: int, job_id: str, created_at: float) -> None:
        """A job joins, at its place in the order of submission."""
        insort(self.jobs, (seq, job_id))
        self.arrived[job_id] = created_at

    def remove(self, seq: int, job_id: str) -> None:
        """A job leaves."""
        del self.jobs[bisect_left(self.jobs, (seq, job_id))]
        del self.arrived[job_id]

    def waits_since(self) -> float:
        """When its wait began."""
        return max(self.arrived[self.jobs[0][1]], self.served)

    def level(self, now: float) -> int:
        """Its priority, and what waiting has added to it."""
        return self.priority + int(max(0.0, now - self.waits_since()) // AGEING_S)

    def due(self) -> float:
        """When it should have its turn at the latest: short work soon, long work later."""
        return self.waits_since() + PATIENCE * self.group.nominal_s
