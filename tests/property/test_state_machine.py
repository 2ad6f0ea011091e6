"""Random interleavings of everything that can happen to jobs, against the real store, with a plain model beside it."""

import tempfile
from pathlib import Path

import sqlalchemy as sa
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule
from hypothesis.strategies import integers, sampled_from

from farm.ids import new_id
from farm.model import Artifact, AttemptStatus, FailureClass, JobStatus, MemoryPlan, StageKind
from farm.states import LIVE_ATTEMPTS, AttemptMove, JobMove
from farm.store import schema
from farm.store.claims import Assignment
from farm.store.requests import RequestKind
from farm.store.writer import Result, StageResult
from tests.storage import Storage, open_storage

CARDS = 3


class Farm(RuleBasedStateMachine):
    """Drives the store as scheduler, workers, users and crashes would, in any order."""

    jobs = Bundle("jobs")
    attempts = Bundle("attempts")

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.store: Storage = open_storage(Path(self.directory.name))
        self.cards = self.store.add_cards(CARDS)
        self.now = 0.0
        self.job_status: dict[str, JobStatus] = {}
        self.cancel_asked: set[str] = set()
        self.attempt_status: dict[str, AttemptStatus] = {}
        self.attempt_of: dict[str, tuple[str, str]] = {}
        self.results: dict[str, str] = {}
        self.before_retry: dict[str, set[str]] = {}
        self.stage: dict[str, StageKind] = {}
        self.stage_of: dict[str, StageKind] = {}
        self.seen: dict[str, object] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            self.directory.cleanup()

    def _time(self) -> float:
        self.now += 1.0
        return self.now

    def _live(self, attempt: str) -> bool:
        return self.attempt_status[attempt] in LIVE_ATTEMPTS

    # --- users ---
    @rule(target=jobs)
    def submit(self) -> str:
        job = self.store.submit(now=self._time())
        self.job_status[job.id] = JobStatus.QUEUED
        self.stage[job.id] = StageKind.GENERATE
        return job.id

    @rule(job=jobs)
    def ask_cancel(self, job: str) -> None:
        self.store.requests.ask(RequestKind.CANCEL, job, self._time())
        if self.job_status[job] in (JobStatus.QUEUED, JobStatus.RUNNING):
            self.cancel_asked.add(job)

    @rule(job=jobs)
    def serve_cancel(self, job: str) -> None:
        moved = self.store.writer.cancel_queued(job, self._time())
        assert moved == (self.job_status[job] == JobStatus.QUEUED)
        if moved:
            self.job_status[job] = JobStatus.CANCELLED
            self.cancel_asked.discard(job)

    @rule(job=jobs)
    def retry(self, job: str) -> None:
        moved = self.store.writer.retry(job, self._time())
        assert moved == (self.job_status[job] in (JobStatus.FAILED, JobStatus.CANCELLED))
        if moved:
            self.job_status[job] = JobStatus.QUEUED
            self.cancel_asked.discard(job)
            self.before_retry[job] = {name for name, (its, _) in self.attempt_of.items() if its == job}

    # --- the scheduler ---
    @rule(
        target=attempts,
        job=jobs,
        card=integers(0, CARDS - 1),
        stage=sampled_from([StageKind.GENERATE, StageKind.INTERPOLATE]),
    )
    def assign(self, job: str, card: int, stage: StageKind) -> object:
        """Also for a stage that the job is not at, as a planner might that has not heard yet."""
        attempt = new_id()
        card_id = self.cards[card].id
        won = self.store.writer.assign(
            [Assignment(attempt, job, "n1", card_id, "CPU (test)", MemoryPlan(), stage)], self._time()
        )
        card_busy = any(
            self._live(other) and self.attempt_of[other][1] == card_id for other in self.attempt_of
        )
        waits = self.job_status[job] == JobStatus.QUEUED and self.stage[job] == stage
        can = waits and job not in self.cancel_asked and not card_busy
        assert bool(won) == can
        if not won:
            return multiple()
        self.job_status[job] = JobStatus.RUNNING
        self.attempt_status[attempt] = AttemptStatus.ASSIGNED
        self.attempt_of[attempt] = (job, card_id)
        self.stage_of[attempt] = stage
        return attempt

    # --- workers: each message may come late, twice, or from an attempt that is long lost ---
    @rule(attempt=attempts, move=sampled_from([AttemptMove.LOAD, AttemptMove.RUN]))
    def progress(self, attempt: str, move: AttemptMove) -> None:
        legal = {
            AttemptMove.LOAD: {AttemptStatus.ASSIGNED: AttemptStatus.LOADING},
            AttemptMove.RUN: {
                AttemptStatus.ASSIGNED: AttemptStatus.RUNNING,
                AttemptStatus.LOADING: AttemptStatus.RUNNING,
            },
        }[move]
        moved = self.store.writer.progress(attempt, move, self._time(), 1)
        assert moved == (self.attempt_status[attempt] in legal)
        if moved:
            self.attempt_status[attempt] = legal[self.attempt_status[attempt]]

    @rule(attempt=attempts)
    def finish(self, attempt: str) -> None:
        live = self._live(attempt)
        moved = self.store.writer.finish(
            attempt, Result(f"video-{attempt}", "thumb", {}, None, self.now), self._time()
        )
        assert moved == live
        if moved:
            job = self.attempt_of[attempt][0]
            self.attempt_status[attempt] = AttemptStatus.FINISHED
            self.job_status[job] = JobStatus.FINISHED
            self.cancel_asked.discard(job)
            assert job not in self.results, "a job must get its result once"
            self.results[job] = attempt

    @rule(attempt=attempts)
    def come_back(self, attempt: str) -> None:
        """The clip of an attempt arrives of which nobody knew any more; of lost ones it counts, once, while the job wants one."""
        job = self.attempt_of[attempt][0]
        wanted = self.job_status[job] in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.FAILED)
        legal = self.attempt_status[attempt] == AttemptStatus.LOST and wanted and job not in self.cancel_asked
        result = Result(f"video-{attempt}", "thumb", {}, None, self.now)
        moved = self.store.writer.take_late(attempt, result, self._time())
        assert moved == legal
        if moved:
            for other, (its, _) in self.attempt_of.items():
                if its == job and self._live(other):
                    self.attempt_status[other] = AttemptStatus.CANCELLED
            self.attempt_status[attempt] = AttemptStatus.FINISHED
            self.job_status[job] = JobStatus.FINISHED
            assert job not in self.results, "a job must get its result once"
            self.results[job] = attempt

    @rule(attempt=attempts)
    def advance(self, attempt: str) -> None:
        """The first stage is done; its word may come twice or late as any other."""
        if self.stage_of[attempt] is not StageKind.GENERATE:
            return
        live = self._live(attempt)
        left = StageResult(Artifact(f"clip-{attempt}", "video/mp4", 3), {}, None, self.now)
        moved = self.store.writer.advance(attempt, left, StageKind.INTERPOLATE, self._time())
        if live:
            self.stage[self.attempt_of[attempt][0]] = StageKind.INTERPOLATE
        self._end(attempt, moved, AttemptStatus.FINISHED, JobStatus.QUEUED)

    def _end(self, attempt: str, moved: bool, status: AttemptStatus, then: JobStatus) -> None:
        assert moved == self._live(attempt)
        if not moved:
            return
        job = self.attempt_of[attempt][0]
        self.attempt_status[attempt] = status
        if job in self.cancel_asked:
            then = JobStatus.CANCELLED
            self.cancel_asked.discard(job)
        self.job_status[job] = then

    @rule(attempt=attempts, then=sampled_from([JobMove.REQUEUE, JobMove.GIVE_UP]))
    def fail(self, attempt: str, then: JobMove) -> None:
        moved = self.store.writer.fail(attempt, FailureClass.INTERNAL, "broke", self._time(), then=then)
        after = JobStatus.QUEUED if then == JobMove.REQUEUE else JobStatus.FAILED
        self._end(attempt, moved, AttemptStatus.FAILED, after)

    @rule(attempt=attempts)
    def lose(self, attempt: str) -> None:
        self._end(
            attempt,
            self.store.writer.lose(attempt, "gone", self._time()),
            AttemptStatus.LOST,
            JobStatus.QUEUED,
        )

    @rule(attempt=attempts)
    def turned_away(self, attempt: str) -> None:
        """The card did not begin it. A late one, after the attempt's first word, changes nothing."""
        assigned = self.attempt_status[attempt] == AttemptStatus.ASSIGNED
        moved = self.store.writer.withdraw(attempt, "busy", self._time())
        assert moved == assigned
        if moved:
            self._end(attempt, moved, AttemptStatus.CANCELLED, JobStatus.QUEUED)

    @rule(attempt=attempts)
    def owner_came(self, attempt: str) -> None:
        moved = self.store.writer.yielded(attempt, "The card is kept for its owner: a game.", self._time())
        self._end(attempt, moved, AttemptStatus.CANCELLED, JobStatus.QUEUED)

    @rule(attempt=attempts)
    def stopped(self, attempt: str) -> None:
        self._end(
            attempt,
            self.store.writer.cancelled(attempt, self._time()),
            AttemptStatus.CANCELLED,
            JobStatus.CANCELLED,
        )

    # --- the machine ---
    @rule()
    def restart(self) -> None:
        """Every process dies and comes back: what was committed is all there is."""
        self.store = self.store.reopened()
        self.seen.clear()

    # --- what must hold at any time ---
    @invariant()
    def the_store_agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        with self.store.reader._engine.connect() as connection:
            jobs = {row.id: row for row in connection.execute(sa.select(schema.jobs))}
            attempts = {row.id: row for row in connection.execute(sa.select(schema.attempts))}
            clips = connection.execute(sa.select(schema.stage_artifacts)).all()
        assert {job: JobStatus(row.status) for job, row in jobs.items()} == self.job_status
        assert {name: AttemptStatus(row.status) for name, row in attempts.items()} == self.attempt_status
        assert {job for job, row in jobs.items() if row.cancel_requested} == self.cancel_asked
        live = [row for row in attempts.values() if row.status in LIVE_ATTEMPTS]
        assert len({row.card_id for row in live}) == len(live), "a card works on one attempt"
        running = {job for job, status in self.job_status.items() if status == JobStatus.RUNNING}
        assert sorted(row.job_id for row in live) == sorted(running), (
            "a running job has exactly one live attempt"
        )
        for job, row in jobs.items():
            assert row.stage == self.stage[job]
            if row.status == JobStatus.FINISHED:
                assert row.video_sha256 == f"video-{self.results[job]}"
            assert (row.finished_at is None) == (row.status in (JobStatus.QUEUED, JobStatus.RUNNING))
        for job, row in jobs.items():
            its = [attempt for attempt in attempts.values() if attempt.job_id == job]
            numbers = sorted(attempt.number for attempt in its)
            assert numbers == list(range(1, len(numbers) + 1))
            # What the reader says of a job rests on these rows alone: it is asked again where one of them is another than before.
            rows = (row, its, [clip for clip in clips if clip.job_id == job])
            if self.seen.get(job) == rows:
                continue
            self.seen[job] = rows
            left = self.store.reader.stage_artifacts(job)
            assert set(left) == ({StageKind.GENERATE} if self.stage[job] is StageKind.INTERPOLATE else set())
            counted = {attempt.id for attempt in self.store.reader.tries(job)}
            made = {attempt.id for attempt in its if attempt.stage == self.stage[job]}
            assert counted == made - self.before_retry.get(job, set()), "a retry begins to count anew"


Farm.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFarm = Farm.TestCase
