"""The only writer of job and attempt status. Every move is looked up in `farm.states` and applied by compare-and-set (`farm.store.moves`).

A method that changes nothing because the status was no longer the expected one returns False (or leaves the item out): a late message
of a lost attempt is not an error, it is no news. One transaction a call, so a crash leaves either all of a call's changes or none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from farm.model import Artifact, Attempt, AttemptStatus, FailureClass, MemoryPlan, StageKind
from farm.states import LIVE_ATTEMPTS, AttemptMove, JobMove, after, sources
from farm.store import schema
from farm.store.claims import Assignment, claim
from farm.store.job_writer import JobWriter
from farm.store.moves import cancel_asked, move_attempt, move_job, tell
from farm.store.rows import plan_to_json
from farm.store.telemetry import TelemetryWriter

_LIVE = tuple(str(status) for status in LIVE_ATTEMPTS)


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


class Writer(JobWriter):
    """Applies moves. Made once per scheduler process, on an engine opened with `writes=True`."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.telemetry = TelemetryWriter(engine)

    def assign(self, assignments: Sequence[Assignment], now: float) -> list[Attempt]:
        """Claims each assignment's job and card; returns the attempts that won. One transaction, and a handful of statements, for all.

        A job that is no longer queued, is at another stage, was asked to cancel, or whose card already works, is left out; of two
        assignments of one job or one card, so is the second.
        """
        if not assignments:
            return []
        with self._engine.begin() as connection:
            return claim(connection, assignments, now)

    def progress(self, attempt_id: str, move: AttemptMove, now: float, seq: int) -> bool:
        """Moves a live attempt on: `LOAD` or `RUN`."""
        with self._engine.begin() as connection:
            values: dict[str, object] = {"last_seq": seq}
            if move == AttemptMove.RUN:
                values["started_at"] = now
            job_id = move_attempt(connection, attempt_id, move, values)
            if job_id is None:
                return False
            tell(connection, job_id, attempt_id, now, "loading" if move == AttemptMove.LOAD else "rendering")
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
            tell(connection, row.job_id, attempt_id, now, what, text)
            return True

    def finish(self, attempt_id: str, result: Result, now: float) -> bool:
        """The attempt gave a verified video, which is the job's from now on."""
        with self._engine.begin() as connection:
            ended: dict[str, object] = {
                "finished_at": now,
                "stage_seconds": result.stage_seconds,
                "peak_gib": result.peak_gib,
            }
            job_id = move_attempt(connection, attempt_id, AttemptMove.FINISH, ended)
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
        move_job(connection, job_id, move, of_job)
        tell(connection, job_id, attempt_id, result.rendered_at, "rendered", "complete on the card")
        tell(connection, job_id, attempt_id, now, "finished", "fetched, verified and stored")

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
            move_attempt(
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
            job_id = move_attempt(connection, attempt_id, AttemptMove.FINISH, ended)
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
            tell(connection, job_id, attempt_id, result.rendered_at, "rendered", "complete on the card")
            tell(
                connection,
                job_id,
                attempt_id,
                now,
                f"{stage} done",
                f"fetched, verified and stored; {then} follows",
            )
            of_job: dict[str, object] = {"stage": then}
            if cancel_asked(connection, job_id):
                of_job |= {"finished_at": now, "cancel_requested": False}
                move_job(connection, job_id, JobMove.CANCEL, of_job)
                tell(connection, job_id, None, now, "cancelled", f"before its stage {then} began")
            else:
                move_job(connection, job_id, JobMove.ADVANCE, of_job)
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
            job_id = move_attempt(connection, attempt_id, move, {**values, "finished_at": now})
            if job_id is None:
                return False
            if cancel_asked(connection, job_id):
                job_move = JobMove.CANCEL  # however it ended, the person who cancelled wants no further try
            of_job: dict[str, object] = {}
            if job_move in (JobMove.CANCEL, JobMove.GIVE_UP):
                of_job["finished_at"] = now
                of_job["cancel_requested"] = False
            if job_move == JobMove.GIVE_UP:
                of_job["failure"] = verdict or reason
            move_job(connection, job_id, job_move, of_job)
            ended = told or after(AttemptStatus.ASSIGNED, move)  # from where every end is legal
            tell(
                connection,
                job_id,
                attempt_id,
                now,
                ended,
                "\n".join(part for part in (reason, detail) if part),
            )
            return True
