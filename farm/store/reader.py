"""Reads the store, on an engine opened with `writes=False`. Nothing here changes anything."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from farm.auth import Credential, TokenKind
from farm.errors import NotFoundError
from farm.model import Attempt, Card, Job, JobStatus, Node
from farm.store import schema, search
from farm.store.attempt_reader import AttemptReader
from farm.store.card_history import CardHistoryReader
from farm.store.registry import find_token
from farm.store.rows import CARD_COLUMNS, card_from_row, job_from_row, node_from_row
from farm.store.taught import TaughtReader
from farm.store.telemetry import TelemetryReader

JobSort = Literal["newest", "oldest", "ended", "rating"]
"""Orders of a list of jobs: by submission, by end (only those that have ended), by rating (only rated ones), each with the newest first."""


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One thing that happened to a job."""

    at: float
    what: str
    detail: str
    attempt_id: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of jobs, newest first; `cursor` leads to the next, None at the end."""

    jobs: list[Job]
    cursor: int | None


class Reader(AttemptReader):
    """Questions to the store."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.telemetry = TelemetryReader(engine)
        self.card_history = CardHistoryReader(engine)
        self.taught = TaughtReader(engine)

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            NotFoundError: there is none of this id.
        """
        with self._engine.connect() as connection:
            row = (
                connection.execute(sa.select(schema.jobs).where(schema.jobs.c.id == job_id))
                .mappings()
                .one_or_none()
            )
        if row is None:
            raise NotFoundError(f"There is no job {job_id}.", "`farm jobs` lists the jobs there are.")
        return job_from_row(row)

    def jobs(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        card: str | None = None,
        q: str | None = None,
        batch: str | None = None,
        ended_since: float | None = None,
        sort: JobSort = "newest",
        cursor: int | None = None,
        limit: int = 50,
    ) -> Page:
        """A page of jobs. `q` looks for words in the prompt, `ended_since` is wall seconds, `cursor` is a former page's of this sort."""
        asked = {
            "status": status,
            "model": model,
            "batch": batch,
            "card": card,
            "ended_since": ended_since,
            "cursor": cursor,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        statement = _some_jobs(frozenset(given), sort)
        with self._engine.connect() as connection:
            if q and sort in ("newest", "oldest") and not given.keys() - {"cursor"}:
                first = search.alone(connection, q, newest=sort == "newest", cursor=cursor, most=limit + 1)
                statement = statement.where(first)
            elif q:
                statement = statement.where(search.among_others(connection, q))
            rows = connection.execute(statement, given | {"most": limit + 1}).mappings().all()
        shown = rows[:limit]
        return Page([job_from_row(row) for row in shown], shown[-1]["seq"] if len(rows) > limit else None)

    def batch(self, name: str) -> tuple[float, dict[JobStatus, int]]:
        """When a batch began, and how many of its jobs have each status.

        Raises:
            NotFoundError: no job is of a batch of this name.
        """
        jobs = schema.jobs
        statement = (
            sa.select(jobs.c.status, sa.func.count(), sa.func.min(jobs.c.created_at))
            .where(jobs.c.batch == name)
            .group_by(jobs.c.status)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        if not rows:
            raise NotFoundError(
                f"There is no batch {name[:80]!r}.", "Look at its name; `farm batch` prints it."
            )
        found = {JobStatus(status): int(number) for status, number, _ in rows}
        return min(at for _, _, at in rows), {status: found.get(status, 0) for status in JobStatus}

    def ended_counts(self, since: float) -> dict[JobStatus, int]:
        """How many jobs have ended since then (wall seconds), of each status in which a job can end."""
        with self._engine.connect() as connection:
            numbers = connection.execute(_ENDED_SINCE, {"since": since}).one()
        return dict(zip(_ENDED, numbers, strict=True))

    def running_on(self, card_ids: Collection[str]) -> dict[str, tuple[Attempt, Job]]:
        """The attempt that each of these cards has now, with its job; a card without one is absent."""
        # All that are live, which are few: asked for certain cards, SQLite may go through every attempt that they ever had.
        found = [attempt for attempt in self.live_attempts() if attempt.card_id in card_ids]
        with self._engine.connect() as connection:
            rows = connection.execute(_JOBS, {"ids": [attempt.job_id for attempt in found]}).mappings()
            of = {row["id"]: job_from_row(row) for row in rows}
        return {attempt.card_id: (attempt, of[attempt.job_id]) for attempt in found if attempt.job_id in of}

    def queued_after(self, seq: int, limit: int = 10_000) -> list[tuple[int, Job]]:
        """Queued jobs whose sequence number is above `seq`, in the order of the queue."""
        jobs = schema.jobs
        with self._engine.connect() as connection:
            rows = (
                connection.execute(
                    sa.select(jobs)
                    .where(jobs.c.status == JobStatus.QUEUED, jobs.c.seq > seq)
                    .order_by(jobs.c.seq)
                    .limit(limit)
                )
                .mappings()
                .all()
            )
        return [(row["seq"], job_from_row(row)) for row in rows]

    def seq(self, job_id: str) -> int:
        """A job's place in the order of submission."""
        with self._engine.connect() as connection:
            return int(
                connection.execute(
                    sa.select(schema.jobs.c.seq).where(schema.jobs.c.id == job_id)
                ).scalar_one()
            )

    def positions(self, job_ids: Collection[str]) -> dict[str, int]:
        """How many queued jobs go before each of these by priority and submission, plus one; a job that is not queued is absent.

        Counts from one of these jobs to the next in an index of the queue, each stretch once: for jobs that the scheduler has told no
        position of.
        """
        found: dict[str, int] = {}
        number = 0
        with self._engine.connect() as connection:
            for job_id, stands, last, came, before in connection.execute(_POSITIONS, {"ids": list(job_ids)}):
                if stands == JobStatus.QUEUED:
                    number = before + came if last == 0 else number + came
                    found[job_id] = number
        return found

    def came_before(self, job: Job, newest: int) -> int:
        """How many queued jobs that are newer than number `newest` go before this one by priority and submission."""
        jobs = schema.jobs
        with self._engine.connect() as connection:
            return int(
                connection.scalar(
                    sa.select(sa.func.count())
                    .select_from(jobs)
                    .where(
                        jobs.c.status == JobStatus.QUEUED,
                        jobs.c.seq > newest,
                        sa.or_(
                            jobs.c.priority > job.priority,
                            sa.and_(jobs.c.priority == job.priority, jobs.c.seq < job.seq),
                        ),
                    )
                )
                or 0
            )

    def counts(self, of: Collection[JobStatus] = tuple(JobStatus)) -> dict[JobStatus, int]:
        """How many jobs there are of each status, or of these.

        All that there are is a number that the database knows without going through them, and most of them have finished: those are what
        is left of it (100,000 jobs in 1 ms, where counting each of them takes 10).
        """
        counted = _UNFINISHED if JobStatus.FINISHED in of else tuple(of)
        with self._engine.connect() as connection:
            total, *numbers = connection.execute(_counts(counted)).one()
        found = dict(zip(counted, numbers, strict=True))
        found[JobStatus.FINISHED] = total - sum(numbers)
        return {status: found[status] for status in of}

    def story(self, job_id: str) -> list[StoryLine]:
        """What happened to a job, first to last."""
        story = schema.story
        with self._engine.connect() as connection:
            rows = connection.execute(
                sa.select(story).where(story.c.job_id == job_id).order_by(story.c.id)
            ).all()
        return [StoryLine(row.at, row.what, row.detail, row.attempt_id) for row in rows]

    def nodes(self, *, forgotten: bool = False) -> list[Node]:
        """All nodes by name; those that were forgotten only where the history needs their names."""
        with self._engine.connect() as connection:
            rows = connection.execute(_ALL_NODES if forgotten else _NODES).mappings()
            return [node_from_row(row) for row in rows]

    def node_names(self, *, forgotten: bool = False) -> dict[str, str]:
        """The names of the nodes that `nodes` gives, by id."""
        with self._engine.connect() as connection:
            rows = connection.execute(_ALL_NODE_NAMES if forgotten else _NODE_NAMES)
            return {row.id: row.name for row in rows}

    def node(self, node_id: str) -> Node:
        """One node.

        Raises:
            NotFoundError: there is none of this id, or it was forgotten.
        """
        found = next((node for node in self.nodes() if node.id == node_id), None)
        if found is None:
            raise NotFoundError(f"There is no PC {node_id}.", "`farm nodes` lists the PCs there are.")
        return found

    def cards(self, ids: Collection[str] | None = None) -> list[Card]:
        """All cards of nodes that were not forgotten, or those of them that have these ids, by node and name."""
        with self._engine.connect() as connection:
            rows = (
                connection.execute(_CARDS)
                if ids is None
                else connection.execute(_SOME_CARDS, {"ids": list(ids)})
            )
            return [card_from_row(row) for row in rows]

    def card_ids(self) -> list[str]:
        """The ids of all cards of `cards`, in its order: for who needs no more of them."""
        with self._engine.connect() as connection:
            return list(connection.scalars(_CARD_IDS))

    def artifact_media_type(self, job_id: str) -> str:
        """The media type of a job's input."""
        with self._engine.connect() as connection:
            return str(
                connection.execute(
                    sa.select(schema.jobs.c.input_media_type).where(schema.jobs.c.id == job_id)
                ).scalar_one()
            )

    def input_kept(self, sha256: str) -> tuple[str, str] | None:
        """A job that was submitted with this picture and still has it, and the picture's media type; None where there is none.

        Whoever is signed in sees every job, so any job's picture will do. Looks through the jobs (100,000 in 30 ms): without an index,
        since only a clip that is made again asks.
        """
        jobs = schema.jobs
        with self._engine.connect() as connection:
            found = connection.execute(
                sa.select(jobs.c.id, jobs.c.input_media_type)
                .where(jobs.c.input_sha256 == sha256, jobs.c.removed_at.is_(None))
                .limit(1)
            ).one_or_none()
        return None if found is None else (str(found.id), str(found.input_media_type))

    def token(self, token: str) -> Credential | None:
        """What is known of a token."""
        with self._engine.connect() as connection:
            return find_token(connection, token)

    def good_tokens(self, kind: TokenKind, now: float) -> frozenset[str]:
        """The hashes of all tokens of a kind that are good at `now`."""
        tokens = schema.tokens
        good = sa.and_(
            tokens.c.kind == kind,
            tokens.c.revoked_at.is_(None),
            sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
        )
        with self._engine.connect() as connection:
            return frozenset(connection.scalars(sa.select(tokens.c.sha256).where(good)))


# Statements of what every page asks are made once: putting one together takes longer than it takes SQLite to answer it.
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_ALL_NODES = sa.select(schema.nodes).order_by(schema.nodes.c.name)
_NODES = _ALL_NODES.where(schema.nodes.c.forgotten_at.is_(None))
_ALL_NODE_NAMES = sa.select(schema.nodes.c.id, schema.nodes.c.name)
_NODE_NAMES = _ALL_NODE_NAMES.where(schema.nodes.c.forgotten_at.is_(None))
_KNOWN = (schema.cards.c.node_id == schema.nodes.c.id, schema.nodes.c.forgotten_at.is_(None))
_IN_ORDER = (schema.cards.c.node_id, schema.cards.c.name, schema.cards.c.id)
_CARDS = sa.select(*CARD_COLUMNS).where(*_KNOWN).order_by(*_IN_ORDER)
_SOME_CARDS = _CARDS.where(schema.cards.c.id.in_(_IDS))
_CARD_IDS = sa.select(schema.cards.c.id).where(*_KNOWN).order_by(*_IN_ORDER)
_JOBS = sa.select(schema.jobs).where(schema.jobs.c.id.in_(_IDS))
_ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED)
_ENDED_SINCE = sa.select(
    *(
        sa.select(sa.func.count())
        .select_from(schema.jobs)
        .where(schema.jobs.c.status == status, schema.jobs.c.finished_at >= sa.bindparam("since"))
        .scalar_subquery()
        for status in _ENDED
    )
)
_UNFINISHED = tuple(status for status in JobStatus if status != JobStatus.FINISHED)


@cache
def _counts(of: tuple[JobStatus, ...]) -> sa.Select[Any]:
    """How many jobs there are, and how many of each of these statuses: one statement, so that no job moves between two of the numbers."""
    jobs = schema.jobs
    every = sa.select(sa.func.count()).select_from(jobs)
    each = (every.where(jobs.c.status == status).scalar_subquery() for status in of)
    return sa.select(every.scalar_subquery(), *each)


def _positions() -> sa.Select[Any]:
    """Of each job of `ids`: its status, and how many waiting jobs there are from the one before it in the queue up to itself.

    The first of a priority, whose `last` is 0, is also told how many have a higher one.
    """
    jobs, other = schema.jobs, schema.jobs.alias()
    waits = sa.select(sa.func.count()).select_from(other).where(schema.QUEUED)
    # Found by their ids alone: asked for those that wait, SQLite would go through the whole queue for them.
    before = sa.func.lag(jobs.c.seq, 1, 0).over(
        partition_by=(jobs.c.status, jobs.c.priority), order_by=jobs.c.seq
    )
    wanted = (
        sa.select(jobs.c.id, jobs.c.status.label("stands"), jobs.c.priority, jobs.c.seq, before.label("last"))
        .where(jobs.c.id.in_(sa.bindparam("ids", expanding=True)))
        .subquery()
    )
    above = waits.where(other.c.priority > wanted.c.priority).scalar_subquery()
    came = waits.where(
        other.c.priority == wanted.c.priority, other.c.seq > wanted.c.last, other.c.seq <= wanted.c.seq
    ).scalar_subquery()
    return sa.select(
        wanted.c.id, wanted.c.stands, wanted.c.last, came, sa.case((wanted.c.last == 0, above), else_=0)
    ).order_by(wanted.c.priority.desc(), wanted.c.seq)


_POSITIONS = _positions()


@cache
def _some_jobs(given: frozenset[str], sort: JobSort) -> sa.Select[Any]:
    """At most `most` jobs, narrowed by those parameters of `Reader.jobs` that are given, in an order."""
    jobs, attempts = schema.jobs, schema.attempts
    statement = sa.select(jobs).limit(sa.bindparam("most", type_=sa.Integer))
    for name in sorted(given & {"status", "model", "batch"}):
        statement = statement.where(jobs.c[name] == sa.bindparam(name))
    if "card" in given:
        on_card = sa.select(attempts.c.job_id).where(attempts.c.card_id == sa.bindparam("card"))
        statement = statement.where(jobs.c.id.in_(on_card))
    if "ended_since" in given:
        statement = statement.where(jobs.c.finished_at >= sa.bindparam("ended_since"))
    return _in_order(statement, sort, sa.bindparam("cursor", type_=sa.Integer) if "cursor" in given else None)


def _in_order(
    statement: sa.Select[Any], sort: JobSort, cursor: sa.BindParameter[int] | None
) -> sa.Select[Any]:
    """The statement sorted, from behind the job whose sequence number is `cursor` on.

    A page begins at what the last one ended with, never by counting rows, so that the hundredth page is as quick as the first.
    """
    jobs = schema.jobs
    if sort == "oldest":
        statement = statement.order_by(jobs.c.seq)
        return statement if cursor is None else statement.where(jobs.c.seq > cursor)
    if sort == "newest":
        statement = statement.order_by(jobs.c.seq.desc())
        return statement if cursor is None else statement.where(jobs.c.seq < cursor)
    by = jobs.c.finished_at if sort == "ended" else jobs.c.rating
    statement = statement.where(by.is_not(None)).order_by(by.desc(), jobs.c.seq.desc())
    if cursor is None:
        return statement
    last = sa.select(by).where(jobs.c.seq == cursor).correlate(None).scalar_subquery()
    return statement.where(sa.tuple_(by, jobs.c.seq) < sa.tuple_(last, cursor))
