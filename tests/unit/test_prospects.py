"""Whether a job that failed may hope for another card: none that is gone for good, and none that it shall not go to again."""

from dataclasses import replace

import pytest

from farm.model import Card, CardKind, Job, JobStatus, MemoryPlan, StageKind, Tier
from farm.planning.eligibility import Verdict
from farm.states import JobMove
from scheduler.exclusions import Exclusions
from scheduler.outcomes import Outcome
from scheduler.policy import Policy
from scheduler.prospects import Prospects
from tests.storage import SETTINGS

JOB = Job("J", JobStatus.QUEUED, SETTINGS, Tier.PREVIEW, "ab", 1.0)
SHUN = Outcome(JobMove.REQUEUE, avoid_card=True, verdict="broke")
REST = replace(SHUN, rest_s=600.0)
UNABLE = "too-small"


class Farm:
    """Cards a, b and c can take the job, one cannot; those in `away` are gone for good, those in `kept` are at their owners'."""

    def __init__(self) -> None:
        self.away: set[str] = set()
        self.kept: set[str] = set()
        self.policy = Policy(self.judge)
        self.exclusions = Exclusions(self.policy)
        for name in ("a", "b", "c", UNABLE):
            self.policy.set_card(Card(name, "n1", CardKind.CUDA, name), free=False)
        self.prospects = Prospects(
            self.policy, self.exclusions, self.judge, lambda card: card.id in self.away
        )

    def judge(self, _job: Job, card: Card) -> Verdict:
        able, kept = card.id != UNABLE, card.id in self.kept
        reasons = () if able and not kept else ("is kept for its owner",) if able else ("too small",)
        return Verdict(not reasons, reasons, MemoryPlan() if able else None, 1.0, able=able)

    def fails(self, name: str, outcome: Outcome = SHUN) -> None:
        self.exclusions.take(JOB.id, name, outcome, 0.0)


@pytest.fixture
def farm() -> Farm:
    return Farm()


def test_rivals_are_the_other_cards_that_could_take_it(farm: Farm) -> None:
    assert farm.prospects.rivals(JOB, "a") == 2
    farm.fails("b")
    assert farm.prospects.rivals(JOB, "a") == 1
    farm.fails("c", REST)
    assert farm.prospects.rivals(JOB, "a") == 1, "it goes there again after a while"


def test_cards_that_are_gone_for_good_are_nobody_s_rivals(farm: Farm) -> None:
    """A job that failed on the last PC waited for ever for one that had been thrown away."""
    farm.away = {"b", "c"}
    assert farm.prospects.rivals(JOB, "a") == 0
    assert farm.prospects.rivals(JOB, "b") == 1


def test_a_card_that_its_owner_has_for_now_is_hoped_for(farm: Farm) -> None:
    """A job that ran out of memory failed for good, though a larger card was to be free again once its owner's game was over."""
    farm.kept = {"b", "c"}
    assert farm.prospects.rivals(JOB, "a") == 2
    farm.fails("a")
    assert not farm.prospects.none_left(JOB)


def test_a_larger_card_is_one_that_holds_more_of_a_render(farm: Farm) -> None:
    """In single precision a render is twice as large; what its owner's programs hold of a card comes back."""
    cuda = CardKind.CUDA
    for card in (
        Card("a", "n1", cuda, "RTX 2060", 6.0, 5.4, compute_capability=(7, 5)),
        Card("b", "n1", cuda, "GTX 1080", 8.0, 7.4, compute_capability=(6, 1)),
        Card("c", "n1", cuda, "RTX 2070", 8.0, 5.0, compute_capability=(7, 5), others_gib=2.4),
        Card("cpu", "n1", CardKind.CPU, "CPU"),
    ):
        farm.policy.set_card(card, free=False)
    assert farm.prospects.no_larger(JOB, "a") == {"a", "b", "cpu", UNABLE}
    assert farm.prospects.larger(JOB, "a") == 1
    assert farm.prospects.larger(JOB, "b") == 2
    assert farm.prospects.larger(JOB, "c") == 0
    farm.fails("c")
    assert farm.prospects.larger(JOB, "a") == 0
    assert farm.prospects.larger(JOB, "cpu") == 0, "what a CPU renders runs out of its PC's memory"
    assert farm.prospects.larger(replace(JOB, stage=StageKind.INTERPOLATE), "b") == 0


def test_none_is_left_once_it_failed_on_all_that_could_and_are_still_there(farm: Farm) -> None:
    assert not farm.prospects.none_left(JOB)
    farm.fails("a")
    farm.fails("b")
    assert not farm.prospects.none_left(JOB)
    farm.away = {"c"}
    assert farm.prospects.none_left(JOB)
