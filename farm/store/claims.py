"""How a card gets a job: claimed in one transaction, so that of two that want it one wins."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from farm.model import Attempt, AttemptStatus, Basis, JobStatus, MemoryPlan, StageKind
from farm.states import JobMove, after, sources
from farm.store import schema
from farm.store.rows import plan_to_json


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


_ATTEMPTS, _JOBS = schema.attempts, schema.jobs
# Made once: put together anew, these statements took a third of the time of an assignment (`benchmarks/assign.py`).
# Literally with the condition of the index of live attempts, or SQLite reads the whole history of each card.
_WORKING = sa.select(_ATTEMPTS.c.card_id).where(
    _ATTEMPTS.c.card_id.in_(sa.bindparam("cards", expanding=True)), schema.LIVE
)
_TRIES = (
    sa.select(_ATTEMPTS.c.job_id, sa.func.max(_ATTEMPTS.c.number))
    .where(_ATTEMPTS.c.job_id.in_(sa.bindparam("ids", expanding=True)))
    .group_by(_ATTEMPTS.c.job_id)
)
_TAKE = (
    sa.update(_JOBS)
    .where(
        _JOBS.c.id.in_(sa.bindparam("ids", expanding=True)),
        _JOBS.c.stage == sa.bindparam("at_stage"),
        _JOBS.c.status.in_(sources(JobMove.ASSIGN)),
        _JOBS.c.cancel_requested.is_(False),
    )
    .values(status=after(JobStatus.QUEUED, JobMove.ASSIGN), unplaceable=None)
    .returning(_JOBS.c.id)
)
_ADD = sa.insert(_ATTEMPTS)
_TELL = sa.insert(schema.story)


def claim(connection: Connection, assignments: Sequence[Assignment], now: float) -> list[Attempt]:
    """Claims each assignment's job and card, in a handful of statements for all; the attempts that won, as in `Writer.assign`."""
    attempts = [
        Attempt(
            id=item.attempt_id,
            job_id=item.job_id,
            number=tries + 1,
            node_id=item.node_id,
            card_id=item.card_id,
            card_name=item.card_name,
            status=AttemptStatus.ASSIGNED,
            assigned_at=now,
            stage=item.stage,
            memory_plan=item.plan,
            predicted_s=item.predicted_s,
            predicted_gib=item.predicted_gib,
            predicted_low_s=item.predicted_low_s,
            predicted_high_s=item.predicted_high_s,
            predicted_basis=item.predicted_basis,
        )
        for item, tries in _won(connection, assignments)
    ]
    if attempts:
        connection.execute(_ADD, [_row(attempt) for attempt in attempts])
        connection.execute(_TELL, [_told(attempt) for attempt in attempts])
    return attempts


def _won(connection: Connection, assignments: Sequence[Assignment]) -> list[tuple[Assignment, int]]:
    """Those whose job was queued and is running now, and whose card does not work, with the number of the job's last attempt (0: none).

    The transaction has the write lock.
    """
    taken = set(connection.scalars(_WORKING, {"cards": list({item.card_id for item in assignments})}))
    wanted: dict[str, Assignment] = {}
    for item in assignments:
        if item.card_id not in taken and item.job_id not in wanted:
            wanted[item.job_id] = item
            taken.add(item.card_id)
    won: list[str] = []
    for stage in {item.stage for item in wanted.values()}:
        ids = [job_id for job_id, item in wanted.items() if item.stage == stage]
        won += connection.scalars(_TAKE, {"ids": ids, "at_stage": stage})
    tries = dict.fromkeys(won, 0)
    for job_id, last in connection.execute(_TRIES, {"ids": won}):
        tries[job_id] = last
    return [(item, tries[job_id]) for job_id, item in wanted.items() if job_id in tries]


def _row(attempt: Attempt) -> dict[str, object]:
    """A new attempt's row; what it leaves out is the schema's default."""
    return {
        "id": attempt.id,
        "job_id": attempt.job_id,
        "number": attempt.number,
        "stage": attempt.stage,
        "node_id": attempt.node_id,
        "card_id": attempt.card_id,
        "card_name": attempt.card_name,
        "status": attempt.status,
        "memory_plan": plan_to_json(attempt.memory_plan),
        "assigned_at": attempt.assigned_at,
        "stage_seconds": {},
        "predicted_s": attempt.predicted_s,
        "predicted_gib": attempt.predicted_gib,
        "predicted_low_s": attempt.predicted_low_s,
        "predicted_high_s": attempt.predicted_high_s,
        "predicted_basis": attempt.predicted_basis,
    }


def _told(attempt: Attempt) -> dict[str, object]:
    """The line of its job's story."""
    return {
        "job_id": attempt.job_id,
        "attempt_id": attempt.id,
        "at": attempt.assigned_at,
        "what": "assigned",
        "detail": f"to {attempt.card_name}",
    }
