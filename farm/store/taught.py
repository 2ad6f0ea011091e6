"""What the history of a card teaches beside its renders: how long interpolations took there, and loading models."""

from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from farm.model import EARLIER_TRIES, Attempt, AttemptStatus, RenderSettings, StageKind
from farm.store import schema
from farm.store.rows import attempt_from_row, settings_from_json

LOADS_AMONG = 100
"""Among so many of a card's last renders its loads are looked for."""


def newest_with_settings(
    engine: Engine, limit: int, *which: sa.ColumnElement[bool]
) -> list[tuple[Attempt, RenderSettings]]:
    """The last attempts of which all of this holds, by their end, newest first, each with its job's settings."""
    attempts, jobs = schema.attempts, schema.jobs
    statement = (
        sa.select(attempts, jobs.c.settings)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(*which)
        .order_by(attempts.c.finished_at.desc())
        .limit(limit)
    )
    with engine.connect() as connection:
        rows = connection.execute(statement).mappings().all()
    return [(attempt_from_row(row), settings_from_json(row["settings"])) for row in rows]


class TaughtReader:
    """On an engine opened with `writes=False`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def interpolations(self, card_id: str, limit: int) -> list[tuple[Attempt, RenderSettings]]:
        """The last interpolations on a card that were finished and left alone, newest first, each with its job's settings."""
        attempts = schema.attempts
        return newest_with_settings(
            self._engine,
            limit,
            attempts.c.card_id == card_id,
            attempts.c.stage == StageKind.INTERPOLATE,
            attempts.c.status == AttemptStatus.FINISHED,
            attempts.c.disturbed.is_(False),
        )

    def loads(self, card_id: str, model: str) -> list[float]:
        """Seconds from the order to the first step of the last renders for which a card had to load the model, newest first.

        Only where it had done something else before: else the model may have been there, and only some of its weights were moved. Nor
        where the attempt began more than once, or another program was at the card.
        """
        attempts, jobs = schema.attempts, schema.jobs
        statement = (
            sa.select(
                jobs.c.model,
                attempts.c.status,
                attempts.c.disturbed,
                (attempts.c.started_at - attempts.c.assigned_at).label("took"),
                attempts.c.stage_seconds["load"].as_float().label("load"),
                attempts.c.stage_seconds[EARLIER_TRIES].as_float().label("earlier"),
            )
            .join(jobs, jobs.c.id == attempts.c.job_id)
            .where(
                attempts.c.card_id == card_id,
                attempts.c.stage == StageKind.GENERATE,
                attempts.c.finished_at.is_not(None),
            )
            .order_by(attempts.c.finished_at.desc())
            .limit(LOADS_AMONG)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        return [
            float(row.took)
            for row, before in pairwise(rows)
            if row.model == model != before.model
            and row.status == AttemptStatus.FINISHED
            and not row.disturbed
            and row.took is not None
            and row.load is not None
            and row.earlier is None
        ]
