"""How a status changes in the database: by compare-and-set, as the table in `farm.states` has it, within a transaction of the caller's."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from farm.model import AttemptStatus, JobStatus
from farm.states import AttemptMove, JobMove, after, sources
from farm.store import schema


def cancel_asked(connection: Connection, job_id: str) -> bool:
    """Whether a person wants the job to stop."""
    return bool(
        connection.scalar(sa.select(schema.jobs.c.cancel_requested).where(schema.jobs.c.id == job_id))
    )


def move_attempt(
    connection: Connection, attempt_id: str, move: AttemptMove, values: dict[str, object]
) -> str | None:
    """Moves an attempt and sets `values`; its job's id, None where the attempt's status is none that `move` begins at."""
    froms = sources(move)
    row = connection.execute(
        sa.update(schema.attempts)
        .where(schema.attempts.c.id == attempt_id, schema.attempts.c.status.in_(froms))
        .values(status=after(AttemptStatus(froms[0]), move), **values)
        .returning(schema.attempts.c.job_id)
    ).one_or_none()
    return None if row is None else str(row.job_id)


def move_job(connection: Connection, job_id: str, move: JobMove, values: dict[str, object]) -> bool:
    """Moves a job and sets `values`; False where its status is none that `move` begins at."""
    froms = sources(move)
    moved = connection.execute(
        sa.update(schema.jobs)
        .where(schema.jobs.c.id == job_id, schema.jobs.c.status.in_(froms))
        .values(status=after(JobStatus(froms[0]), move), **values)
    ).rowcount
    return bool(moved)


def tell(
    connection: Connection, job_id: str, attempt_id: str | None, now: float, what: str, detail: str = ""
) -> None:
    """Adds a line to a job's story."""
    connection.execute(
        sa.insert(schema.story).values(job_id=job_id, attempt_id=attempt_id, at=now, what=what, detail=detail)
    )
