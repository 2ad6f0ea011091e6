"""Which cards a job may still hope for, once it has failed on some. Pure, but for what it asks."""

from collections.abc import Callable

from farm.model import Card, Job
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

    def none_left(self, job: Job) -> bool:
        """Whether the cards that the job failed on are the only ones that could take it."""
        avoid, cards = self._exclusions.shunned(job.id), self._policy.cards
        if not avoid or any(self._could_take(job, card) for card in cards if card.id not in avoid):
            return False
        return any(self._judge(job, card).eligible for card in cards if card.id in avoid)

    def _could_take(self, job: Job, card: Card) -> bool:
        return not self._gone(card) and self._judge(job, card).eligible
