"""What is going on right now, kept for the feed: the running jobs and the cards."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from farm.feed import CardChanged, FeedMessage, JobChanged, LiveCard, LiveJob, QueueChanged, Snapshot
from farm.model import Attempt, Job, JobStatus, StageKind
from farm.stages import clip_frames
from scheduler.policy import Rather


class Board:
    """Holds the newest word on each running job and known card, and passes changes on."""

    def __init__(self, publish: Callable[[FeedMessage], None]) -> None:
        self._publish = publish
        self._jobs: dict[str, LiveJob] = {}
        self._cards: dict[str, LiveCard] = {}
        self._queue: QueueChanged | None = None
        self._rather: dict[str, tuple[str, str]] = {}

    def snapshot(self) -> Snapshot:
        """All that is going on."""
        return Snapshot(jobs=tuple(self._jobs.values()), cards=tuple(self._cards.values()), queue=self._queue)

    def running(self, job: Job, attempt: Attempt, phase: str) -> None:
        """A card has taken the job. Its progress counts steps, and frames once there is nothing left to generate."""
        generates = attempt.stage is StageKind.GENERATE
        self._put(
            LiveJob(
                id=job.id,
                status=JobStatus.RUNNING,
                total=job.settings.steps if generates else clip_frames(job.settings),
                card_id=attempt.card_id,
                card_name=attempt.card_name,
                attempt_id=attempt.id,
                phase=phase,
                stage=attempt.stage,
            )
        )

    def change(self, job_id: str, **changes: Any) -> None:
        """Something about a running job changed; `changes` are fields of `LiveJob`."""
        found = self._jobs.get(job_id)
        if found is not None:
            self._put(replace(found, **changes))

    def preview_count(self, job_id: str) -> int:
        """How many previews of a running job were published."""
        found = self._jobs.get(job_id)
        return found.preview if found is not None else 0

    def ended(self, job_id: str, status: str, why: str | None = None) -> None:
        """The job runs no longer: it ended, or waits again."""
        self._jobs.pop(job_id, None)
        self._publish(JobChanged(LiveJob(id=job_id, status=status, why=why)))

    def rather(self, why: Mapping[str, Rather], waits: Callable[[str], bool]) -> None:
        """Of jobs that wait although a card is free for them, says for which card, once for each.

        Of those of which that is no longer so, and that `waits` says still wait, it is taken back.
        """
        for job_id, one in why.items():
            if self._rather.get(job_id) != (one.card.id, one.idle.id):
                self._publish(JobChanged(LiveJob(job_id, JobStatus.QUEUED, why=str(one))))
        for job_id in self._rather.keys() - why.keys():
            if waits(job_id):
                self._publish(JobChanged(LiveJob(job_id, JobStatus.QUEUED)))
        self._rather = {job_id: (one.card.id, one.idle.id) for job_id, one in why.items()}

    def card(self, card: LiveCard) -> None:
        """A card is now so; said only when it differs from what was said before."""
        before = self._cards.get(card.id)
        if before is None or _timeless(before) != _timeless(card):
            self._publish(CardChanged(card))
        self._cards[card.id] = card

    def live_job(self, job_id: str) -> LiveJob | None:
        """The newest word on a running job."""
        return self._jobs.get(job_id)

    @property
    def cards(self) -> dict[str, LiveCard]:
        """The newest word on every known card, by its id."""
        return self._cards

    def queue(self, queue: QueueChanged) -> None:
        """The queue now looks so; said only when something about it differs, save the time."""
        before = self._queue
        if before is None or replace(before, made_at=queue.made_at) != queue:
            self._publish(queue)
        self._queue = queue

    def remove_card(self, card_id: str) -> None:
        """The card is of the farm no longer. Whoever listens hears so with the next snapshot."""
        self._cards.pop(card_id, None)

    def _put(self, live: LiveJob) -> None:
        self._jobs[live.id] = live
        self._publish(JobChanged(live))


def _timeless(card: LiveCard) -> LiveCard:
    """A card without what changes by itself: an idle one that is read every two seconds is no news every two seconds."""
    vitals = None if card.vitals is None else replace(card.vitals, at=0.0)
    return replace(card, silent_s=None, vitals=vitals)
