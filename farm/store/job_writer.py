"""Moves of jobs that no attempt is at: those that wait, and those that have ended."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from farm.model import JobStatus, StageKind
from farm.retention import Stock
from farm.states import ENDED_JOBS, JobMove, after
from farm.store import schema
from farm.store.leftovers import strike
from farm.store.moves import move_job, tell
from farm.store.retention import STOCK


class JobWriter:
    """The part of `Writer` for jobs alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def cancel_queued(self, job_id: str, now: float) -> bool:
        """Ends a job that no card has begun."""
        values: dict[str, object] = {"finished_at": now, "cancel_requested": False}
        return self._move_queued(job_id, JobMove.CANCEL, values, now, "cancelled", "before it began")

    def _move_queued(
        self, job_id: str, move: JobMove, values: dict[str, object], now: float, what: str, detail: str
    ) -> bool:
        """Moves a job that waits, sets `values` and tells it; False where it waits no longer: that move may begin elsewhere too."""
        jobs = schema.jobs
        with self._engine.begin() as connection:
            moved = connection.execute(
                sa.update(jobs)
                .where(jobs.c.id == job_id, jobs.c.status == JobStatus.QUEUED)
                .values(status=after(JobStatus.QUEUED, move), **values)
            ).rowcount
            if moved:
                tell(connection, job_id, None, now, what, detail)
            return bool(moved)

    def note_stock(self, stock: Stock) -> None:
        """Notes what is kept of ended jobs, for those who show it: counting it takes a look at every job."""
        facts = schema.facts
        with self._engine.begin() as connection:
            connection.execute(sa.delete(facts).where(facts.c.key == STOCK))
            connection.execute(sa.insert(facts).values(key=STOCK, value=json.dumps(asdict(stock))))

    def remove_files(self, job_ids: Sequence[str], now: float) -> list[str]:
        """Notes that the files of these ended jobs are deleted, and of which: not of one that is starred, or shall be tried again."""
        jobs, asked = schema.jobs, schema.requests
        removed = []
        with self._engine.begin() as connection:
            for job_id in job_ids:
                changed = connection.execute(
                    sa.update(jobs)
                    .where(
                        jobs.c.id == job_id,
                        jobs.c.status.in_(tuple(str(status) for status in ENDED_JOBS)),
                        jobs.c.starred.is_(False),
                        jobs.c.removed_at.is_(None),
                        ~sa.exists().where(asked.c.job_id == jobs.c.id),
                    )
                    .values(removed_at=now)
                ).rowcount
                if changed:
                    tell(connection, job_id, None, now, "removed", "picture and clip, to make room")
                    removed.append(job_id)
        return removed

    def retry(self, job_id: str, now: float, *, from_the_start: bool = False) -> bool:
        """Queues a failed or cancelled job again. What went wrong before counts no longer.

        It goes on with the stage that it was at. `from_the_start`: with its first one, since what that left is lost.
        """
        with self._engine.begin() as connection:
            attempts = schema.attempts
            tried = sa.select(sa.func.coalesce(sa.func.max(attempts.c.number), 0)).where(
                attempts.c.job_id == job_id
            )
            cleared: dict[str, object] = {
                "finished_at": None,
                "failure": None,
                "cancel_requested": False,
                "retried_after": tried.scalar_subquery(),
            }
            if connection.scalar(sa.select(schema.jobs.c.removed_at).where(schema.jobs.c.id == job_id)):
                return False  # its picture is gone
            if from_the_start:
                cleared["stage"] = StageKind.GENERATE
            moved = move_job(connection, job_id, JobMove.RETRY, cleared)
            if moved and from_the_start:
                strike(connection, schema.stage_artifacts.c.job_id == job_id, now)
            if moved:
                tell(connection, job_id, None, now, "queued", "to be tried again from the beginning")
            return moved

    def give_up_queued(self, job_id: str, reason: str, now: float) -> bool:
        """Fails a job that waits, for a reason that waiting will not mend."""
        values: dict[str, object] = {"finished_at": now, "failure": reason}
        return self._move_queued(job_id, JobMove.GIVE_UP, values, now, "failed", reason)

    def mark_unplaceable(self, reasons: dict[str, str | None]) -> None:
        """Notes on queued jobs why no known card could ever serve them; None takes the note away."""
        if not reasons:
            return
        with self._engine.begin() as connection:
            for job_id, reason in reasons.items():
                connection.execute(
                    sa.update(schema.jobs)
                    .where(schema.jobs.c.id == job_id, schema.jobs.c.status == JobStatus.QUEUED)
                    .values(unplaceable=reason)
                )

    def set_priority(self, job_id: str, priority: int) -> None:
        """Changes where in the queue a job stands."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(schema.jobs).where(schema.jobs.c.id == job_id).values(priority=priority)
            )
