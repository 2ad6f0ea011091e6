"""Clips between stages whose job will not ask for them again: first struck from the job, then deleted. The scheduler's to write.

Between the two stands a list, so that a head that dies in between deletes them later, and a file that meanwhile serves another job stays.
"""

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from farm.model import JobStatus
from farm.store import schema

KEPT_S = 3 * 86_400.0
"""For so long a failed or cancelled job keeps what its finished stages left: who looks at it after a weekend can still go on from there.
A later retry begins at the beginning."""


class Leftovers:
    """On an engine opened with `writes=True`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def let_go(self, now: float) -> int:
        """Strikes the clips of jobs that are finished, or ended otherwise `KEPT_S` ago; how many.

        Not of one that a person has just asked to try again: the scheduler has not taken that in yet.
        """
        jobs, stages, asked = schema.jobs, schema.stage_artifacts, schema.requests
        given_up = sa.and_(
            jobs.c.status.in_((JobStatus.FAILED, JobStatus.CANCELLED)), jobs.c.finished_at <= now - KEPT_S
        )
        over = sa.select(jobs.c.id).where(
            sa.or_(jobs.c.status == JobStatus.FINISHED, given_up),
            ~sa.exists().where(asked.c.job_id == jobs.c.id),
        )
        with self._engine.begin() as connection:
            return strike(connection, stages.c.job_id.in_(over), now)

    def waiting(self) -> list[str]:
        """The files that may go, as far as any job is concerned. One that a job has come to need again is taken off the list."""
        jobs, stages, leftovers = schema.jobs, schema.stage_artifacts, schema.leftovers
        named = sa.union_all(
            sa.select(stages.c.sha256),
            *(
                sa.select(column).where(column.is_not(None))
                for column in (jobs.c.input_sha256, jobs.c.video_sha256, jobs.c.thumbnail_sha256)
            ),
        )
        with self._engine.begin() as connection:
            if connection.scalar(sa.select(leftovers.c.sha256).limit(1)) is None:
                return []  # else all jobs are looked at
            connection.execute(sa.delete(leftovers).where(leftovers.c.sha256.in_(named)))
            return list(connection.scalars(sa.select(leftovers.c.sha256).order_by(leftovers.c.since)))

    def gone(self, sha256: str) -> None:
        """The file is deleted."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(schema.leftovers).where(schema.leftovers.c.sha256 == sha256))


def strike(connection: Connection, which: sa.ColumnElement[bool], now: float) -> int:
    """Strikes these rows of `stage_artifacts`, and lists their files; how many rows."""
    struck = connection.scalars(
        sa.delete(schema.stage_artifacts).where(which).returning(schema.stage_artifacts.c.sha256)
    ).all()
    leftovers = schema.leftovers
    listed = set(connection.scalars(sa.select(leftovers.c.sha256).where(leftovers.c.sha256.in_(struck))))
    if fresh := set(struck) - listed:
        connection.execute(sa.insert(leftovers), [{"sha256": sha256, "since": now} for sha256 in fresh])
    return len(struck)
