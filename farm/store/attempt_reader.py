"""Questions about attempts: what is at work, what counts for a job, what can be learned from."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from farm.model import (
    EARLIER_TRIES,
    Artifact,
    Attempt,
    AttemptStatus,
    FailureClass,
    JobStatus,
    RenderSettings,
    StageKind,
)
from farm.planning.calibration import Foretold
from farm.planning.learned import seconds_taken
from farm.planning.spans import Span
from farm.store import schema
from farm.store.rows import attempt_from_row
from farm.store.taught import newest_with_settings


class AttemptReader:
    """The part of `Reader` for attempts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def attempts(self, job_id: str) -> list[Attempt]:
        """A job's attempts, first to last."""
        attempts = schema.attempts
        with self._engine.connect() as connection:
            rows = (
                connection.execute(
                    sa.select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
                )
                .mappings()
                .all()
            )
        return [attempt_from_row(row) for row in rows]

    def live_attempts(self) -> list[Attempt]:
        """All attempts that hold a card."""
        with self._engine.connect() as connection:
            rows = connection.execute(_LIVE).mappings().all()
        return [attempt_from_row(row) for row in rows]

    def planned_gib(self) -> dict[str, float | None]:
        """What the attempt that each card has now was planned to take of its memory, GiB; a card without one is absent."""
        with self._engine.connect() as connection:
            return {row.card_id: row.predicted_gib for row in connection.execute(_PLANNED)}

    def stage_artifacts(self, job_id: str) -> dict[StageKind, Artifact]:
        """What the finished stages of a job left for the next ones; none of its last stage, whose clip is the job's."""
        table = schema.stage_artifacts
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(table).where(table.c.job_id == job_id)).all()
        return {StageKind(row.stage): Artifact(row.sha256, row.media_type, row.size) for row in rows}

    def tries(self, job_id: str) -> list[Attempt]:
        """The attempts that count for or against a job: those of its present stage since a person last asked for a new try."""
        return self._tries(schema.jobs.c.id == job_id)

    def tries_of_open_jobs(self) -> dict[str, list[Attempt]]:
        """The attempts that count, of each queued or running job that has any."""
        found: dict[str, list[Attempt]] = {}
        for attempt in self._tries(schema.jobs.c.status.in_((JobStatus.QUEUED, JobStatus.RUNNING))):
            found.setdefault(attempt.job_id, []).append(attempt)
        return found

    def _tries(self, of_jobs: sa.ColumnElement[bool]) -> list[Attempt]:
        jobs, attempts = schema.jobs, schema.attempts
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(attempts)
                .join(jobs, attempts.c.job_id == jobs.c.id)
                .where(of_jobs, attempts.c.number > jobs.c.retried_after, attempts.c.stage == jobs.c.stage)
                .order_by(jobs.c.seq, attempts.c.number)
            ).mappings()
            return [attempt_from_row(row) for row in rows]

    def ended_on(self, card_id: str, limit: int = 50) -> list[Attempt]:
        """The last attempts that ended on a card since it was last cleared of what had failed on it, newest first."""
        attempts, cards = schema.attempts, schema.cards
        cleared = sa.func.coalesce(cards.c.cleared_at, 0.0)
        statement = (
            sa.select(attempts)
            .join(cards, cards.c.id == attempts.c.card_id)
            .where(attempts.c.card_id == card_id, attempts.c.finished_at > cleared)
            .order_by(attempts.c.finished_at.desc())
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [attempt_from_row(row) for row in connection.execute(statement).mappings()]

    def attempts_of_ids(self, attempt_ids: Collection[str]) -> list[Attempt]:
        """Those of these attempts that there are."""
        attempts = schema.attempts
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(attempts).where(attempts.c.id.in_(attempt_ids))).mappings()
            return [attempt_from_row(row) for row in rows]

    def attempts_of(self, job_ids: Collection[str]) -> dict[str, list[Attempt]]:
        """The attempts of each of these jobs that has any, first to last."""
        found: dict[str, list[Attempt]] = {}
        with self._engine.connect() as connection:
            for row in connection.execute(_OF_JOBS, {"ids": list(job_ids)}).mappings():
                found.setdefault(row["job_id"], []).append(attempt_from_row(row))
        return found

    def instructive_attempts(
        self, card_id: str, model: str, limit: int
    ) -> list[tuple[Attempt, RenderSettings]]:
        """The last attempts of a model on a card from which something can be learned, newest first, each with its job's settings.

        Only of the stage that runs the model: what interpolates its clip says nothing of it. Nor do those that went on from a checkpoint,
        and made only a part of their render; but for those that had failed here before, of which the peak may say why.
        """
        attempts, jobs = schema.attempts, schema.jobs
        ran_out = sa.and_(
            attempts.c.status == AttemptStatus.FAILED,
            attempts.c.failure_class == FailureClass.OUT_OF_MEMORY,
        )
        failed_before = attempts.c.stage_seconds[EARLIER_TRIES].as_float().is_not(None)
        told = sa.and_(
            attempts.c.status == AttemptStatus.FINISHED,
            sa.or_(attempts.c.resumed_step.is_(None), failed_before),
        )
        return newest_with_settings(
            self._engine,
            limit,
            attempts.c.card_id == card_id,
            attempts.c.stage == StageKind.GENERATE,
            jobs.c.model == model,
            attempts.c.disturbed.is_(False),
            sa.or_(told, ran_out),
        )

    def last_foretold(self) -> str | None:
        """The newest attempt that `foretold` would tell of: while it is the same one, so is all that `foretold` says."""
        with self._engine.connect() as connection:
            return connection.scalar(_LAST_FORETOLD)

    def foretold(self, limit: int) -> list[Foretold]:
        """What was foretold of the last finished attempts and what they took, newest first.

        Only of whole renders that nothing else had its hand in: what failed or was lost ended early, what was resumed began late.
        """
        attempts = schema.attempts
        statement = (
            sa.select(
                attempts.c.predicted_low_s,
                attempts.c.predicted_s,
                attempts.c.predicted_high_s,
                attempts.c.predicted_basis,
                attempts.c.stage_seconds,
            )
            .where(schema.FORETOLD)
            .order_by(attempts.c.finished_at.desc())
            .limit(limit)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        told = [
            Foretold(Span(low, likely, high), seconds_taken(spent), basis)
            for low, likely, high, basis, spent in rows
        ]
        return [one for one in told if one.took > 0]


# Made once, as those of `farm.store.reader` are.
_LIVE = sa.select(schema.attempts).where(schema.LIVE)
_PLANNED = sa.select(schema.attempts.c.card_id, schema.attempts.c.predicted_gib).where(schema.LIVE)
_OF_JOBS = (
    sa.select(schema.attempts)
    .where(schema.attempts.c.job_id.in_(sa.bindparam("ids", expanding=True)))
    .order_by(schema.attempts.c.number)
)
_LAST_FORETOLD = (
    sa.select(schema.attempts.c.id)
    .where(schema.FORETOLD)
    .order_by(schema.attempts.c.finished_at.desc())
    .limit(1)
)
