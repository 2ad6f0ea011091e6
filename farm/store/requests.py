"""What people ask for: new jobs, and wishes about jobs. The web writes these; the scheduler takes them in."""

from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from farm.auth import TokenKind
from farm.ids import new_id
from farm.model import Artifact, Job, JobStatus, RenderSettings, StageKind, Tier
from farm.store import schema
from farm.store.rows import job_from_row, settings_to_json
from farm.store.search import note_prompt


class RequestKind(StrEnum):
    """What can be asked about a job, or about a node (drain, resume, forget); `SETTINGS` says that the farm's own were changed."""

    CANCEL = "cancel"
    RETRY = "retry"
    PRIORITY = "priority"
    DRAIN = "drain"
    RESUME = "resume"
    FORGET = "forget"
    SETTINGS = "settings"


@dataclass(frozen=True, slots=True)
class Request:
    """A wish that waits for the scheduler, about the job `job_id` or the node `node_id`; `value` is the priority where there is one."""

    id: int
    kind: RequestKind
    job_id: str
    value: int | None
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class NewJob:
    """All that makes a job. `request_sha256` tells a repeated request from another one under the same key."""

    settings: RenderSettings
    tier: Tier
    draft: bool
    picture: Artifact
    preset: str | None = None
    priority: int = 0
    anywhere: bool = False
    needs: tuple[str, ...] = ()
    submitted_by: str = ""
    idempotency_key: str | None = None
    request_sha256: str | None = None
    batch: str | None = None


class KeyReusedError(Exception):
    """The idempotency key was used before for another request."""


class Requests:
    """Writes jobs and wishes, on an engine opened with `writes=True`. Never touches a status."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def submit(self, new: NewJob, now: float) -> tuple[Job, bool]:
        """Stores a queued job; returns it, and whether it is new (False: the same key and request were seen before).

        Raises:
            KeyReusedError: the key was used for another request.
        """
        try:
            with self._engine.begin() as connection:
                row = (
                    connection.execute(
                        sa.insert(schema.jobs)
                        .values(
                            id=new_id(),
                            status=JobStatus.QUEUED,
                            settings=settings_to_json(new.settings),
                            model=new.settings.model,
                            preset=new.preset,
                            tier=new.tier,
                            priority=new.priority,
                            anywhere=new.anywhere,
                            needs=list(new.needs),
                            draft=new.draft,
                            stage=StageKind.GENERATE,
                            input_sha256=new.picture.sha256,
                            input_media_type=new.picture.media_type,
                            created_at=now,
                            submitted_by=new.submitted_by,
                            idempotency_key=new.idempotency_key,
                            request_sha256=new.request_sha256,
                            batch=new.batch,
                        )
                        .returning(schema.jobs)
                    )
                    .mappings()
                    .one()
                )
                note_prompt(connection, row["seq"], new.settings.prompt)
                return job_from_row(row), True
        except IntegrityError:
            if new.idempotency_key is None:
                raise
        return self._repeated(new), False

    def _repeated(self, new: NewJob) -> Job:
        with self._engine.begin() as connection:
            row = (
                connection.execute(
                    sa.select(schema.jobs).where(
                        schema.jobs.c.submitted_by == new.submitted_by,
                        schema.jobs.c.idempotency_key == new.idempotency_key,
                    )
                )
                .mappings()
                .one()
            )
        if row["request_sha256"] != new.request_sha256:
            raise KeyReusedError
        return job_from_row(row)

    def ask(
        self, kind: RequestKind, job_id: str, now: float, *, by: str = "", value: int | None = None
    ) -> None:
        """Leaves a wish for the scheduler. A cancel also marks the job, so that everyone sees that it was asked for."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.insert(schema.requests).values(
                    kind=kind, job_id=job_id, value=value, created_at=now, requested_by=by
                )
            )
            if kind == RequestKind.CANCEL:
                connection.execute(
                    sa.update(schema.jobs)
                    .where(
                        schema.jobs.c.id == job_id,
                        schema.jobs.c.status.in_((JobStatus.QUEUED, JobStatus.RUNNING)),
                    )
                    .values(cancel_requested=True)
                )

    def ask_node(self, kind: RequestKind, node_id: str, now: float, *, by: str = "") -> None:
        """Leaves a wish about a node. What is wished is noted on the node at once: it holds also while nobody schedules.

        A forgotten node's credential is revoked, so that it comes back only with a new code.
        """
        noted: dict[RequestKind, dict[str, float | None]] = {
            RequestKind.DRAIN: {"drained_at": now},
            RequestKind.RESUME: {"drained_at": None},
            RequestKind.FORGET: {"forgotten_at": now, "drained_at": None},
        }
        nodes, tokens = schema.nodes, schema.tokens
        with self._engine.begin() as connection:
            connection.execute(sa.update(nodes).where(nodes.c.id == node_id).values(**noted[kind]))
            if kind == RequestKind.FORGET:
                its_own = (tokens.c.kind == TokenKind.NODE, tokens.c.node_id == node_id)
                connection.execute(
                    sa.update(tokens).where(*its_own, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
                )
            connection.execute(
                sa.insert(schema.requests).values(kind=kind, node_id=node_id, created_at=now, requested_by=by)
            )

    def rate(self, job_id: str, rating: int) -> bool:
        """Stores a person's rating (1 to 5) of a finished clip; False where there is no finished clip."""
        with self._engine.begin() as connection:
            changed = connection.execute(
                sa.update(schema.jobs)
                .where(schema.jobs.c.id == job_id, schema.jobs.c.status == JobStatus.FINISHED)
                .values(rating=rating)
            ).rowcount
            return bool(changed)

    def star(self, job_id: str, *, starred: bool) -> bool:
        """Keeps a job's files for ever, or no longer; False where they are deleted already."""
        with self._engine.begin() as connection:
            changed = connection.execute(
                sa.update(schema.jobs)
                .where(schema.jobs.c.id == job_id, schema.jobs.c.removed_at.is_(None))
                .values(starred=starred)
            ).rowcount
            return bool(changed)

    def waiting(self) -> list[Request]:
        """The wishes that wait, oldest first."""
        with self._engine.begin() as connection:
            rows = (
                connection.execute(sa.select(schema.requests).order_by(schema.requests.c.id)).mappings().all()
            )
        return [
            Request(
                row["id"],
                RequestKind(row["kind"]),
                row["job_id"] or "",
                row["value"],
                row["node_id"] or "",
            )
            for row in rows
        ]

    def done(self, request_ids: list[int]) -> None:
        """Takes wishes away that were dealt with."""
        if request_ids:
            with self._engine.begin() as connection:
                connection.execute(sa.delete(schema.requests).where(schema.requests.c.id.in_(request_ids)))
