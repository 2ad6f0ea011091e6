"""From which cards a job stays away: for good where it failed, for a while where another program was in its way. Pure; holds no clock."""

from collections.abc import Iterable, Sequence

from farm.model import Attempt
from scheduler.outcomes import Outcome, resting, shunned
from scheduler.policy import Policy


class Exclusions:
    """Tells the policy, and remembers which exclusions end by themselves. `now` is monotonic seconds everywhere, save where said."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._rests: dict[tuple[str, str], float] = {}

    def recall(self, job_id: str, tries: Sequence[Attempt], wall: float, now: float) -> None:
        """What a former scheduler had decided, read from the job's attempts; `wall` is wall time, as theirs."""
        self.shun(job_id, shunned(tries))
        for card_id, seconds in resting(tries, wall).items():
            self._rest(job_id, card_id, now + seconds)

    def shun(self, job_id: str, card_ids: Iterable[str]) -> None:
        """The job goes to these cards no more."""
        for card_id in card_ids:
            self._policy.exclude(job_id, card_id)

    def take(self, job_id: str, card_id: str, outcome: Outcome, now: float) -> None:
        """What a failure on a card means for the job's next attempts."""
        if outcome.rest_s is not None:
            self._rest(job_id, card_id, now + outcome.rest_s)
        elif outcome.avoid_card:
            self._policy.exclude(job_id, card_id)

    def shunned(self, job_id: str) -> frozenset[str]:
        """The cards that the job goes to no more; not those that it only stays away from for a while."""
        return frozenset(
            card_id for card_id in self._policy.excluded(job_id) if (job_id, card_id) not in self._rests
        )

    def forgive(self, job_id: str) -> None:
        """The job may go anywhere again."""
        self._policy.forgive(job_id)
        self._rests = {key: until for key, until in self._rests.items() if key[0] != job_id}

    def end_rests(self, now: float) -> list[str]:
        """Ends what is over; the jobs that wait and may go to more cards now."""
        over = [key for key, until in self._rests.items() if until <= now]
        for job_id, card_id in over:
            del self._rests[job_id, card_id]
            still = self._policy.excluded(job_id) - {card_id}
            self._policy.forgive(job_id)
            for other in still:
                self._policy.exclude(job_id, other)
        return [job_id for job_id, _ in over if self._policy.job(job_id) is not None]

    def _rest(self, job_id: str, card_id: str, until: float) -> None:
        self._policy.exclude(job_id, card_id)
        self._rests[job_id, card_id] = until
