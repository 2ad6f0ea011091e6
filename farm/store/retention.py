"""Which files the jobs have, for whoever decides what is kept."""

import json
from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from farm.artifacts import ArtifactStore
from farm.retention import Going, Kept, Limits, Stock, going
from farm.states import ENDED_JOBS
from farm.store import schema

_ENDED = tuple(str(status) for status in ENDED_JOBS)
STOCK = "stock"
"""The fact that holds what was kept at the last look, as JSON of a `Stock`."""
AFTER_S = 2 * 86_400.0
"""How long the files of removed jobs are looked after: one that was in use for a moment, or that a killed scheduler left, goes later."""


class RetentionReader:
    """Reads all jobs that have files: for 100,000 about a second. For a thread, not for an event loop."""

    def __init__(self, engine: Engine, artifacts: ArtifactStore) -> None:
        self._engine = engine
        self._artifacts = artifacts

    def going(self, limits: Limits, now: float) -> Going:
        """What these limits would delete now."""
        if not limits.any:
            return Going()
        jobs = schema.jobs
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(
                    jobs.c.id,
                    jobs.c.status,
                    jobs.c.starred,
                    jobs.c.finished_at,
                    jobs.c.created_at,
                    jobs.c.input_sha256,
                    jobs.c.video_sha256,
                    jobs.c.thumbnail_sha256,
                ).where(jobs.c.removed_at.is_(None))
            ).all()
            between = _between(connection)
        kept: list[Kept] = []
        needed: set[str] = set()
        for row in rows:
            files = frozenset(
                {row.input_sha256, row.video_sha256, row.thumbnail_sha256, *between.get(row.id, ())} - {None}
            )
            if row.status in _ENDED:
                kept.append(Kept(row.id, row.finished_at or row.created_at, bool(row.starred), files))
            else:
                needed |= files
        sizes = {file: self._artifacts.size(file) for job in kept for file in job.files}
        return going(kept, needed, sizes, limits, now)

    def due(self, before: float) -> int:
        """How many ended jobs still have their files and ended before then (wall seconds), without those that have a star."""
        jobs = schema.jobs
        statement = sa.select(sa.func.count()).select_from(jobs)
        with self._engine.connect() as connection:
            return int(connection.scalar(statement.where(schema.MAY_GO, jobs.c.finished_at < before)) or 0)

    def stock(self) -> Stock | None:
        """What was kept at the scheduler's last look; None where it has not looked yet."""
        facts = schema.facts
        with self._engine.connect() as connection:
            told = connection.scalar(sa.select(facts.c.value).where(facts.c.key == STOCK))
        return None if told is None else Stock(**json.loads(told))

    def left_over(self) -> set[str]:
        """The files of jobs that were removed lately, which no job needs any more."""
        jobs = schema.jobs
        with self._engine.connect() as connection:
            last = connection.scalar(sa.select(sa.func.max(jobs.c.removed_at)))
            if last is None:
                return set()
            lately = jobs.c.removed_at >= last - AFTER_S
            found = _files(connection, lately)
            return found - _files(connection, jobs.c.removed_at.is_(None), among=found)


def _files(
    connection: Connection, of: sa.ColumnElement[bool], among: Collection[str] | None = None
) -> set[str]:
    jobs, stages = schema.jobs, schema.stage_artifacts
    found: set[str] = set()
    for statement in (
        sa.select(jobs.c.input_sha256, jobs.c.video_sha256, jobs.c.thumbnail_sha256).where(of),
        sa.select(stages.c.sha256).join(jobs, jobs.c.id == stages.c.job_id).where(of),
    ):
        for row in connection.execute(statement):
            found.update(file for file in row if file is not None and (among is None or file in among))
    return found


def _between(connection: Connection) -> dict[str, list[str]]:
    """What finished stages left for the next ones, by job."""
    found: dict[str, list[str]] = {}
    for job_id, file in connection.execute(
        sa.select(schema.stage_artifacts.c.job_id, schema.stage_artifacts.c.sha256)
    ):
        found.setdefault(job_id, []).append(file)
    return found
