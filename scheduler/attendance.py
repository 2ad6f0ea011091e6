"""Which attempts are seen through now, by whom, and on which card."""

import asyncio

from farm.model import Attempt, Job, StageKind
from scheduler.attend import Attendant
from scheduler.watch import Work


class Attendance:
    """The attendants, by attempt and by card. A card has one at the most."""

    def __init__(self) -> None:
        self._by_attempt: dict[str, Attendant] = {}
        self._by_card: dict[str, Attendant] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, attendant: Attendant) -> None:
        """The attempt's card is held from now on."""
        self._by_attempt[attendant.attempt.id] = self._by_card[attendant.attempt.card_id] = attendant

    def see(self, attempt_id: str, task: asyncio.Task[None]) -> None:
        """The task that sees the attempt through."""
        self._tasks[attempt_id] = task

    def end(self, attempt: Attempt) -> None:
        """The attempt has ended."""
        self._by_attempt.pop(attempt.id, None)
        self._tasks.pop(attempt.id, None)
        self._by_card.pop(attempt.card_id, None)

    @property
    def attempts(self) -> frozenset[str]:
        """The ids of all attempts that are seen through."""
        return frozenset(self._by_attempt)

    @property
    def running(self) -> list[tuple[Attempt, Job]]:
        """All of them, with their jobs."""
        return [(attendant.attempt, attendant.job) for attendant in self._by_attempt.values()]

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What sees them through."""
        return list(self._tasks.values())

    def of_job(self, job_id: str) -> list[Attendant]:
        """Those of a job: one, or none."""
        return [attendant for attendant in self._by_attempt.values() if attendant.job.id == job_id]

    def holder(self, card_id: str) -> str | None:
        """The job that holds a card."""
        found = self._by_card.get(card_id)
        return None if found is None else found.job.id

    def work(self, card_id: str) -> Work | None:
        """What a card is at."""
        found = self._by_card.get(card_id)
        if found is None:
            return None
        generates = found.attempt.stage is StageKind.GENERATE
        return Work(found.ends_at, found.job.settings.model if generates else None)
