"""Which cards a job may still hope for, once it has failed on some. Pure, but for what it asks."""

from collections.abc import Callable

from farm.model import Card, CardKind, Job, StageKind
from farm.planning.eligibility import without_its_owner
from farm.planning.memory import width_of
from farm.planning.rules import precision_for
from scheduler.exclusions import Exclusions
from scheduler.lanes import Judge
from scheduler.policy import Policy


class Prospects:
    """`gone` says of a card that nobody should wait for it any more."""

    def __init__(
        self, policy: Policy, exclusions: Exclusions, judge: Judge, gone: Callable[[Card], bool]
    ) -> None:
        self._policy = policy
        self._exclusions = exclusions
        self._judge = judge
        self._gone = gone

    def rivals(self, job: Job, card_id: str) -> int:
        """How many other known cards could take the job, now or when they are back."""
        avoid = self._exclusions.shunned(job.id) | {card_id}
        return sum(self._could_take(job, card) for card in self._policy.cards if card.id not in avoid)

    def larger(self, job: Job, card_id: str) -> int:
        """How many of those hold more of a render than this one, on which it ran out of memory."""
        small = self.no_larger(job, card_id)
        avoid = self._exclusions.shunned(job.id) | small
        return sum(
            self._could_take(job, card) for card in self._policy.cards if small and card.id not in avoid
        )

    def no_larger(self, job: Job, card_id: str) -> frozenset[str]:
        """The cards that hold no more of a render than this one, itself too; none where it is not a GPU's memory that ran out."""
        this = self._policy.card(card_id)
        if this is None or job.stage is not StageKind.GENERATE or not (holds := _holds_gib(this)):
            return frozenset()
        return frozenset(card.id for card in self._policy.cards if _holds_gib(card) <= holds)

    def none_left(self, job: Job) -> bool:
        """Whether the cards that the job failed on are the only ones that could take it."""
        avoid, cards = self._exclusions.shunned(job.id), self._policy.cards
        if not avoid or any(self._could_take(job, card) for card in cards if card.id not in avoid):
            return False
        return any(self._judge(job, card).able for card in cards if card.id in avoid)

    def _could_take(self, job: Job, card: Card) -> bool:
        return not self._gone(card) and self._judge(job, card).able  # what only passes is waited for


def _holds_gib(card: Card) -> float:
    """What a GPU has for a render while its owner is away, GiB of half precision: in single precision everything is twice as large."""
    usable = without_its_owner(card).usable_gib
    return 0.0 if card.kind is CardKind.CPU or usable is None else usable / width_of(precision_for(card))
