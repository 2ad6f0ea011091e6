"""The only writer of job and attempt status. Every move is looked up in `farm.states` and applied by compare-and-set.

A method that changes nothing because the status was no longer the expected one returns False (or leaves the item out): a late message
of a lost attempt is not an error, it is no news. One transaction a call, so a crash leaves either all of a call's changes or none.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from farm.model import (
    Artifact,
    Attempt,
    AttemptStatus,
    Basis,
    FailureClass,
    JobStatus,
    MemoryPlan,
    StageKind,
)
from farm.retention import Stock
from farm.states import ENDED_JOBS, LIVE_ATTEMPTS, AttemptMove, JobMove, after, sources
from farm.store import schema
from farm.store.leftovers import strike
from farm.store.retention import STOCK
from farm.store.rows import attempt_from_row, plan_to_json
from farm.store.telemetry import TelemetryWriter

_LIVE = tuple(str(status) for status in LIVE_ATTEMPTS)


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


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished attempt leaves: hashes of stored artifacts, seconds per part, peak in GiB.

    `rendered_at` is when the clip was complete on its card, by the head's wall clock.
    """

    video_sha256: str
    thumbnail_sha256: str
    stage_seconds: dict[str, float]
    peak_gib: float | None
    rendered_at: float


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a finished attempt leaves for its job's next stage: a stored, verified file. The rest as in `Result`."""

    artifact: Artifact
    stage_seconds: dict[str, float]
    peak_gib: float | None
    rendered_at: float


class Writer:
    """Applies moves. Made once per scheduler process, on an engine opened with `writes=True`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.telemetry = TelemetryWriter(engine)

    def assign(self, assignments: Sequence[Assignment], now: float) -> list[Attempt]:
        """Claims each assignment's job and card; returns the attempts that won. One transaction, and a handful of statements, for all.

        A job that is no longer queued, is at another stage, was asked to cancel, or whose card already works, is left out; of two
        assignments of one job or one card, so is the second.
        """
        if not assignments:
            return []
        with self._engine.begin() as connection:
            claimed = self._claim(connection, assignments)
            if not claimed:
                return []
            attempts = schema.attempts
            tried = self._tried(connection, [item.job_id for item in claimed])
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

    @staticmethod
    def _claim(connection: Connection, assignments: Sequence[Assignment]) -> list[Assignment]:
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

    @staticmethod
    def _tried(connection: Connection, job_ids: Sequence[str]) -> dict[str, int]:
        """The number of each job's last attempt, of those that have one."""
        attempts = schema.attempts
        found = connection.execute(
            sa.select(attempts.c.job_id, sa.func.max(attempts.c.number))
            .where(attempts.c.job_id.in_(job_ids))
            .group_by(attempts.c.job_id)
        )
        return {job_id: number for job_id, number in found}  # noqa: C416 - rows are not pairs to mypy

    def progress(self, attempt_id: str, move: AttemptMove, now: float, seq: int) -> bool:
        """Moves a live attempt on: `LOAD` or `RUN`."""
        with self._engine.begin() as connection:
            values: dict[str, object] = {"last_seq": seq}
            if move == AttemptMove.RUN:
                values["started_at"] = now
            job_id = self._move_attempt(connection, attempt_id, move, values)
            if job_id is None:
                return False
            self._tell(
                connection, job_id, attempt_id, now, "loading" if move == AttemptMove.LOAD else "rendering"
            )
            return True

    def note(
        self,
        attempt_id: str,
        seq: int,
        text: str,
        now: float,
        *,
        plan: MemoryPlan | None = None,
        disturbed: bool = False,
        resumed_step: int | None = None,
    ) -> bool:
        """Notes what happened to a live attempt on its way; a number that was noted before is no news.

        `plan` is what it goes on with, `resumed_step` after which step of the render.
        """
        attempts = schema.attempts
        with self._engine.begin() as connection:
            row = connection.execute(
                sa.select(attempts.c.job_id, attempts.c.notes, attempts.c.disturbed).where(
                    attempts.c.id == attempt_id, attempts.c.status.in_(_LIVE), attempts.c.last_seq < seq
                )
            ).one_or_none()
            if row is None:
                return False
            values: dict[str, object] = {
                "last_seq": seq,
                "notes": [*(row.notes or ()), text],
                "disturbed": bool(row.disturbed) or disturbed,
            }
            if plan is not None:
                values["memory_plan"] = plan_to_json(plan)
            if resumed_step is not None:
                values["resumed_step"] = resumed_step
            connection.execute(sa.update(attempts).where(attempts.c.id == attempt_id).values(**values))
            what = "retrying" if plan is not None else "note" if resumed_step is None else "resumed"
            self._tell(connection, row.job_id, attempt_id, now, what, text)
            return True

    def finish(self, attempt_id: str, result: Result, now: float) -> bool:
        """The attempt gave a verified video, which is the job's from now on."""
        with self._engine.begin() as connection:
            ended: dict[str, object] = {
                "finished_at": now,
                "stage_seconds": result.stage_seconds,
                "peak_gib": result.peak_gib,
            }
            job_id = self._move_attempt(connection, attempt_id, AttemptMove.FINISH, ended)
            if job_id is None:
                return False
            self._finish_job(connection, job_id, attempt_id, JobMove.FINISH, result, now)
            return True

    def _finish_job(
        self,
        connection: Connection,
        job_id: str,
        attempt_id: str,
        move: JobMove,
        result: Result,
        now: float,
    ) -> None:
        of_job: dict[str, object] = {
            "finished_at": now,
            "video_sha256": result.video_sha256,
            "thumbnail_sha256": result.thumbnail_sha256,
            "failure": None,
            "unplaceable": None,
            "cancel_requested": False,
        }
        self._move_job(connection, job_id, move, of_job)
        self._tell(connection, job_id, attempt_id, result.rendered_at, "rendered", "complete on the card")
        self._tell(connection, job_id, attempt_id, now, "finished", "fetched, verified and stored")

    def take_late(self, attempt_id: str, result: Result, now: float) -> bool:
        """The verified video of an attempt that was held for lost is the job's, unless the job has ended otherwise or shall stop.

        An attempt that another card is at meanwhile is over. Of two such videos, or two tries to take one, the first counts.
        """
        jobs, attempts = schema.jobs, schema.attempts
        with self._engine.begin() as connection:
            row = connection.execute(
                sa.select(attempts.c.job_id, attempts.c.number, attempts.c.reason, attempts.c.notes)
                .join(jobs, jobs.c.id == attempts.c.job_id)
                .where(
                    attempts.c.id == attempt_id,
                    attempts.c.status.in_(sources(AttemptMove.RETURN)),
                    jobs.c.status.in_(sources(JobMove.RETURN)),
                    jobs.c.cancel_requested.is_(False),
                )
            ).one_or_none()
            if row is None:
                return False
            connection.execute(
                sa.update(attempts)
                .where(attempts.c.job_id == row.job_id, attempts.c.status.in_(_LIVE))
                .values(
                    status=after(AttemptStatus.RUNNING, AttemptMove.CANCEL),
                    finished_at=now,
                    reason=f"The clip of attempt {row.number} came in first.",
                )
            )
            self._move_attempt(
                connection,
                attempt_id,
                AttemptMove.RETURN,
                {
                    "finished_at": now,
                    "stage_seconds": result.stage_seconds,
                    "peak_gib": result.peak_gib,
                    "failure_class": None,
                    "reason": None,
                    "notes": [*(row.notes or ()), f"It was held for lost: {row.reason}"],
                },
            )
            self._finish_job(connection, row.job_id, attempt_id, JobMove.RETURN, result, now)
            return True

    def advance(self, attempt_id: str, result: StageResult, then: StageKind, now: float) -> bool:
        """The attempt gave its stage's verified file: the job waits for a card for the stage `then`.

        A job that was asked to cancel meanwhile has no next stage: it is cancelled.
        """
        with self._engine.begin() as connection:
            ended: dict[str, object] = {
                "finished_at": now,
                "stage_seconds": result.stage_seconds,
                "peak_gib": result.peak_gib,
            }
            job_id = self._move_attempt(connection, attempt_id, AttemptMove.FINISH, ended)
            if job_id is None:
                return False
            stage = connection.scalar(
                sa.select(schema.attempts.c.stage).where(schema.attempts.c.id == attempt_id)
            )
            connection.execute(
                sa.insert(schema.stage_artifacts).values(
                    job_id=job_id,
                    stage=stage,
                    attempt_id=attempt_id,
                    sha256=result.artifact.sha256,
                    media_type=result.artifact.media_type,
                    size=result.artifact.size,
                    finished_at=now,
                )
            )
            self._tell(connection, job_id, attempt_id, result.rendered_at, "rendered", "complete on the card")
            self._tell(
                connection,
                job_id,
                attempt_id,
                now,
                f"{stage} done",
                f"fetched, verified and stored; {then} follows",
            )
            of_job: dict[str, object] = {"stage": then}
            if self._cancel_asked(connection, job_id):
                of_job |= {"finished_at": now, "cancel_requested": False}
                self._move_job(connection, job_id, JobMove.CANCEL, of_job)
                self._tell(connection, job_id, None, now, "cancelled", f"before its stage {then} began")
            else:
                self._move_job(connection, job_id, JobMove.ADVANCE, of_job)
            return True

    def fail(
        self,
        attempt_id: str,
        failure_class: FailureClass,
        reason: str,
        now: float,
        *,
        then: JobMove,
        detail: str = "",
        disturbed: bool = False,
        verdict: str | None = None,
    ) -> bool:
        """The attempt failed for `reason`; `then` says what becomes of the job: `REQUEUE` or `GIVE_UP`. `disturbed`: it teaches nothing.

        `verdict` is what a job that is given up says of itself, where that is more than this attempt's reason.
        """
        values: dict[str, object] = {"failure_class": failure_class, "reason": reason}
        if disturbed:
            values["disturbed"] = True
        return self._end(attempt_id, AttemptMove.FAIL, values, now, then, reason, detail, verdict)

    def lose(
        self,
        attempt_id: str,
        reason: str,
        now: float,
        *,
        then: JobMove = JobMove.REQUEUE,
        verdict: str | None = None,
    ) -> bool:
        """Nobody answers for the attempt any more; its job is queued again unless `then` gives it up. `verdict` as in `fail`."""
        values: dict[str, object] = {"failure_class": FailureClass.NODE_LOST, "reason": reason}
        return self._end(attempt_id, AttemptMove.LOSE, values, now, then, reason, verdict=verdict)

    def withdraw(self, attempt_id: str, reason: str, now: float) -> bool:
        """The card did not begin the attempt; its job is queued again as if it had not been assigned."""
        return self._end(
            attempt_id,
            AttemptMove.WITHDRAW,
            {"reason": reason},
            now,
            JobMove.REQUEUE,
            reason,
            told="withdrawn",
        )

    def yielded(self, attempt_id: str, reason: str, now: float) -> bool:
        """The card's owner wanted it back; the job is queued again, to go on from what the attempt had done."""
        return self._end(
            attempt_id, AttemptMove.YIELD, {"reason": reason}, now, JobMove.REQUEUE, reason, told="yielded"
        )

    def cancelled(self, attempt_id: str, now: float) -> bool:
        """The attempt stopped because its job was asked to."""
        return self._end(attempt_id, AttemptMove.CANCEL, {}, now, JobMove.CANCEL, "as asked")

    def drew(self, attempt_id: str, energy_wh: float) -> None:
        """What an attempt that has ended drew, watt-hours: known seconds after its end, by the card's next reading."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(schema.attempts)
                .where(schema.attempts.c.id == attempt_id)
                .values(energy_wh=energy_wh)
            )

    def cancel_queued(self, job_id: str, now: float) -> bool:
        """Ends a job that no card has begun."""
        with self._engine.begin() as connection:
            moved = connection.execute(
                sa.update(schema.jobs)
                .where(schema.jobs.c.id == job_id, schema.jobs.c.status == JobStatus.QUEUED)
                .values(
                    status=after(JobStatus.QUEUED, JobMove.CANCEL), finished_at=now, cancel_requested=False
                )
            ).rowcount
            if moved:
                self._tell(connection, job_id, None, now, "cancelled", "before it began")
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
                    self._tell(connection, job_id, None, now, "removed", "picture and clip, to make room")
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
            moved = self._move_job(connection, job_id, JobMove.RETRY, cleared)
            if moved and from_the_start:
                strike(connection, schema.stage_artifacts.c.job_id == job_id, now)
            if moved:
                self._tell(connection, job_id, None, now, "queued", "to be tried again from the beginning")
            return moved

    def give_up_queued(self, job_id: str, reason: str, now: float) -> bool:
        """Fails a job that waits, for a reason that waiting will not mend."""
        with self._engine.begin() as connection:
            moved = connection.execute(
                sa.update(schema.jobs)
                .where(schema.jobs.c.id == job_id, schema.jobs.c.status == JobStatus.QUEUED)
                .values(status=after(JobStatus.QUEUED, JobMove.GIVE_UP), finished_at=now, failure=reason)
            ).rowcount
            if moved:
                self._tell(connection, job_id, None, now, "failed", reason)
            return bool(moved)

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

    def _end(
        self,
        attempt_id: str,
        move: AttemptMove,
        values: dict[str, object],
        now: float,
        job_move: JobMove,
        reason: str,
        detail: str = "",
        verdict: str | None = None,
        told: str | None = None,
    ) -> bool:
        with self._engine.begin() as connection:
            job_id = self._move_attempt(connection, attempt_id, move, {**values, "finished_at": now})
            if job_id is None:
                return False
            if self._cancel_asked(connection, job_id):
                job_move = JobMove.CANCEL  # however it ended, the person who cancelled wants no further try
            of_job: dict[str, object] = {}
            if job_move in (JobMove.CANCEL, JobMove.GIVE_UP):
                of_job["finished_at"] = now
                of_job["cancel_requested"] = False
            if job_move == JobMove.GIVE_UP:
                of_job["failure"] = verdict or reason
            self._move_job(connection, job_id, job_move, of_job)
            ended = told or after(AttemptStatus.ASSIGNED, move)  # from where every end is legal
            self._tell(
                connection,
                job_id,
                attempt_id,
                now,
                ended,
                "\n".join(part for part in (reason, detail) if part),
            )
            return True

    @staticmethod
    def _cancel_asked(connection: Connection, job_id: str) -> bool:
        return bool(
            connection.scalar(sa.select(schema.jobs.c.cancel_requested).where(schema.jobs.c.id == job_id))
        )

    @staticmethod
    def _move_attempt(
        connection: Connection, attempt_id: str, move: AttemptMove, values: dict[str, object]
    ) -> str | None:
        froms = sources(move)
        row = connection.execute(
            sa.update(schema.attempts)
            .where(schema.attempts.c.id == attempt_id, schema.attempts.c.status.in_(froms))
            .values(status=after(AttemptStatus(froms[0]), move), **values)
            .returning(schema.attempts.c.job_id)
        ).one_or_none()
        return None if row is None else str(row.job_id)

    @staticmethod
    def _move_job(connection: Connection, job_id: str, move: JobMove, values: dict[str, object]) -> bool:
        froms = sources(move)
        moved = connection.execute(
            sa.update(schema.jobs)
            .where(schema.jobs.c.id == job_id, schema.jobs.c.status.in_(froms))
            .values(status=after(JobStatus(froms[0]), move), **values)
        ).rowcount
        return bool(moved)

    @staticmethod
    def _tell(
        connection: Connection, job_id: str, attempt_id: str | None, now: float, what: str, detail: str = ""
    ) -> None:
        connection.execute(
            sa.insert(schema.story).values(
                job_id=job_id, attempt_id=attempt_id, at=now, what=what, detail=detail
            )
        )
