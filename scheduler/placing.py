"""Which waiting jobs no known card could ever serve. Asked by the policy's groups: a queue of 100,000 jobs has some dozen kinds."""

from collections.abc import Callable

from farm.model import Card, Job
from scheduler.exclusions import Exclusions
from scheduler.policy import Policy, requirements

Why = Callable[[Job, list[Card]], str | None]
"""`farm.planning.eligibility.unplaceable` with the farm's view bound."""


class Placing:
    """Remembers what was found of each kind since the farm's cards, or what is thought of them, last changed."""

    def __init__(self, policy: Policy, exclusions: Exclusions, why: Why) -> None:
        self._policy = policy
        self._exclusions = exclusions
        self._why = why
        self._found: dict[object, str | None] = {}

    def anew(self) -> list[Job]:
        """The farm has changed: the waiting jobs of which something else may be to be said now.

        All jobs of a kind were told the same, so that they are looked at one by one only where the word on their kind has changed. Of those
        that stay away from a card each is looked at: for how long differs.
        """
        before, self._found = self._found, {}
        found = []
        for group in self._policy.groups:
            # Not the sample's own cards: it may have left the group since, and be kept from some.
            key = _key(group.sample, frozenset())
            if group.excluded or self._asked(key, group.sample, frozenset()) != before.get(key, _NOTHING):
                found += self._policy.jobs_of(group)
        return found

    def why(self, job: Job) -> str | None:
        """Why no known card could ever serve a waiting job; None where one could, or where there is no card yet."""
        avoid = self._exclusions.shunned(job.id)
        return self._asked(_key(job, avoid), job, avoid)

    def _asked(self, key: object, job: Job, avoid: frozenset[str]) -> str | None:
        if key not in self._found:
            self._found[key] = self._why(job, [card for card in self._policy.cards if card.id not in avoid])
        return self._found[key]


_NOTHING = object()


def _key(job: Job, avoid: frozenset[str]) -> tuple[object, ...]:
    return (requirements(job), avoid)
