"""What is said of jobs that no card could ever serve, by the kinds of the queue."""

from dataclasses import replace

import pytest

from farm.model import Card, CardKind, Job, JobStatus, MemoryPlan, Tier
from farm.planning.eligibility import Verdict
from farm.states import JobMove
from scheduler.exclusions import Exclusions
from scheduler.outcomes import Outcome
from scheduler.placing import Placing
from scheduler.policy import Policy
from tests.storage import SETTINGS

KINDS, EACH = 5, 200


class Farm:
    """A policy with jobs of five kinds, a judge that notes what it is asked, and a word on each kind that a test may change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.policy = Policy(lambda _job, _card: Verdict(True, (), MemoryPlan(), 1.0))
        self.exclusions = Exclusions(self.policy)
        self.reasons: dict[int, str | None] = {}
        self.asked: list[tuple[int, list[str]]] = []
        self.walked: list[int] = []
        self.placing = Placing(self.policy, self.exclusions, self.why)
        jobs_of = self.policy.jobs_of

        def counted(group: object) -> list[Job]:
            found = jobs_of(group)  # type: ignore[arg-type]  # the policy's own groups
            self.walked.append(len(found))
            return found

        monkeypatch.setattr(self.policy, "jobs_of", counted)
        for name in ("c1", "c2"):
            self.policy.set_card(Card(name, "n1", CardKind.CPU, name), free=False)
        for number in range(KINDS * EACH):
            settings = replace(SETTINGS, frames=8 + number % KINDS)
            self.policy.add_job(
                Job(f"J{number}", JobStatus.QUEUED, settings, Tier.PREVIEW, "ab", 1.0), number
            )

    def why(self, job: Job, cards: list[Card]) -> str | None:
        self.asked.append((job.settings.frames, [card.id for card in cards]))
        return self.reasons.get(job.settings.frames)

    def anew(self) -> set[str]:
        """The farm has changed and its jobs are told; those that are looked at."""
        self.asked.clear()
        self.walked.clear()
        jobs = self.placing.anew()
        self.policy.note_unplaceable({job.id: self.placing.why(job) for job in jobs})
        return {job.id for job in jobs}


@pytest.fixture
def farm(monkeypatch: pytest.MonkeyPatch) -> Farm:
    return Farm(monkeypatch)


def test_a_change_of_the_farm_costs_a_question_for_each_kind_and_walks_only_the_kinds_that_are_told_otherwise(
    farm: Farm,
) -> None:
    """Every waiting job was walked at each change of a card: 0.15 s of the scheduler's time with 100,000 jobs."""
    assert len(farm.anew()) == KINDS * EACH, "nothing was said yet"
    assert len(farm.asked) == KINDS
    assert farm.anew() == set()
    assert (len(farm.asked), farm.walked) == (KINDS, [])
    farm.reasons[9] = "no card is large enough"
    told = farm.anew()
    assert (len(farm.asked), farm.walked) == (KINDS, [EACH])
    assert told == {f"J{number}" for number in range(1, KINDS * EACH, KINDS)}
    assert farm.policy.job("J1").unplaceable == "no card is large enough"  # type: ignore[union-attr]  # it waits
    assert farm.anew() == set()
    del farm.reasons[9]
    assert farm.anew() == told
    assert farm.policy.job("J1").unplaceable is None  # type: ignore[union-attr]  # it waits


def test_a_job_that_stays_away_from_a_card_is_judged_by_the_others_and_its_kind_as_before(farm: Farm) -> None:
    farm.anew()
    first = farm.policy.job("J0")
    assert first is not None
    farm.exclusions.take("J0", "c1", Outcome(JobMove.REQUEUE, True, ""), 0.0)
    farm.policy.add_job(first, 0)
    assert farm.anew() == {"J0"}
    assert sorted(farm.asked)[:2] == [(8, ["c1", "c2"]), (8, ["c2"])]
    assert len(farm.asked) == KINDS + 1


def test_a_kind_is_judged_by_all_cards_although_the_job_that_stood_for_it_stays_away_from_one(
    farm: Farm,
) -> None:
    farm.anew()
    (group,) = (group for group in farm.policy.groups if group.sample.id == "J0")
    first = group.sample
    farm.exclusions.take("J0", "c1", Outcome(JobMove.REQUEUE, True, ""), 0.0)
    farm.policy.remove_job("J0")
    assert farm.anew() == set()
    assert (first.settings.frames, ["c1", "c2"]) in farm.asked
