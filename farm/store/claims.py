"""How a card gets a job: claimed in one transaction, so that of two that want it one wins."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from farm.model import Attempt, AttemptStatus, Basis, JobStatus, MemoryPlan, StageKind
from farm.states import JobMove, after, sources
from farm.store import schema
from farm.store.rows import attempt_from_row, plan_to_json


@dataclass(frozen=True, slots=True)
class Assignment:
    """The planner's word: this attempt of this job's `stage` on this card."""

    attempt_id: str
    job_id: str
    node_id: str
    card_id: str
    card_name: str
    plan: MemoryPlan
    stage: StageKind = StageKind.GENERATE
    predicted_s: float | None = None
    predicted_gib: float | None = None
    predicted_low_s: float | None = None
    predicted_high_s: float | None = None
    predicted_basis: Basis | None = None


def claim(connection: Connection, assignments: Sequence[Assignment], now: float) -> list[Attempt]:
    """Claims each assignment's job and card, in a handful of statements for all; the attempts that won, as in `Writer.assign`."""
    claimed = _won(connection, assignments)
    if not claimed:
        return []
    attempts = schema.attempts
    tried = _tried(connection, [item.job_id for item in claimed])
    rows = [
        {
            "id": item.attempt_id,
            "job_id": item.job_id,
            "number": tried.get(item.job_id, 0) + 1,
            "stage": item.stage,
            "node_id": item.node_id,
            "card_id": item.card_id,
            "card_name": item.card_name,
            "status": AttemptStatus.ASSIGNED,
            "memory_plan": plan_to_json(item.plan),
            "assigned_at": now,
            "stage_seconds": {},
            "predicted_s": item.predicted_s,
            "predicted_gib": item.predicted_gib,
            "predicted_low_s": item.predicted_low_s,
            "predicted_high_s": item.predicted_high_s,
            "predicted_basis": item.predicted_basis,
        }
        for item in claimed
    ]
    connection.execute(sa.insert(attempts), rows)
    told = [
        {
            "job_id": item.job_id,
            "attempt_id": item.attempt_id,
            "at": now,
            "what": "assigned",
            "detail": f"to {item.card_name}",
        }
        for item in claimed
    ]
    connection.execute(sa.insert(schema.story), told)
    ids = [item.attempt_id for item in claimed]
    found = connection.execute(sa.select(attempts).where(attempts.c.id.in_(ids))).mappings()
    made = {row["id"]: attempt_from_row(row) for row in found}
    return [made[attempt_id] for attempt_id in ids]


def _won(connection: Connection, assignments: Sequence[Assignment]) -> list[Assignment]:
    """Those whose job was queued and is running now, and whose card does not work. The transaction has the write lock."""
    jobs, attempts = schema.jobs, schema.attempts
    cards = {item.card_id for item in assignments}
    # Literally the condition of the index of live attempts, or SQLite reads the whole history of each card.
    working = sa.select(attempts.c.card_id).where(attempts.c.card_id.in_(cards), schema.LIVE)
    taken = set(connection.scalars(working))
    wanted: dict[str, Assignment] = {}
    for item in assignments:
        if item.card_id not in taken and item.job_id not in wanted:
            wanted[item.job_id] = item
            taken.add(item.card_id)
    won = set(
        connection.scalars(
            sa.update(jobs)
            .where(
                jobs.c.id.in_(wanted),
                sa.tuple_(jobs.c.id, jobs.c.stage).in_(
                    [(item.job_id, item.stage) for item in wanted.values()]
                ),
                jobs.c.status.in_(sources(JobMove.ASSIGN)),
                jobs.c.cancel_requested.is_(False),
            )
            .values(status=after(JobStatus.QUEUED, JobMove.ASSIGN), unplaceable=None)
            .returning(jobs.c.id)
        )
    )
    return [item for job_id, item in wanted.items() if job_id in won]


def _tried(connection: Connection, job_ids: Sequence[str]) -> dict[str, int]:
    """The number of each job's last attempt, of those that have one."""
    attempts = schema.attempts
    found = connection.execute(
        sa.select(attempts.c.job_id, sa.func.max(attempts.c.number))
        .where(attempts.c.job_id.in_(job_ids))
        .group_by(attempts.c.job_id)
    )
    return {job_id: number for job_id, number in found}  # noqa: C416 - rows are not pairs to mypy
