"""The scheduler's loop over a real store and real files, with cards in memory."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from farm import events
from farm.artifacts import ArtifactStore
from farm.catalogue.models import builtin_models
from farm.errors import FarmError
from farm.feed import from_line
from farm.knobs import in_force
from farm.model import Attempt, AttemptStatus, CardKind, FailureClass, Job, JobStatus, MemoryPlan, StageKind
from farm.retention import Limits
from farm.settings import FarmSettings
from farm.states import JobMove
from farm.store.audit import audit
from farm.store.knobs import KnobStore
from farm.store.leftovers import Leftovers
from farm.store.requests import RequestKind
from farm.store.retention import RetentionReader
from farm.wire import CardReport, Order
from node_agent.encode import encode
from scheduler import attend
from scheduler.benched import Benched
from scheduler.cluster import NodeGoneError, WorkerGoneError
from scheduler.doubts import STOP_LEASES
from scheduler.loop import Scheduler
from scheduler.outcomes import after_loss
from scheduler.retention import Retention
from tests.fakes import FakeCluster, MovedClock
from tests.storage import SETTINGS, Storage, open_storage

LIMIT_S = 10.0


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A real video of what SETTINGS order, and a thumbnail."""
    directory = tmp_path_factory.mktemp("clip")
    ramp = (
        np.linspace(0, 200, SETTINGS.width, dtype=np.uint8)[None, :, None]
        .repeat(SETTINGS.height, 0)
        .repeat(3, 2)
    )
    made = encode(
        iter([np.roll(ramp, 4 * index, axis=1) for index in range(SETTINGS.frames)]),
        directory / "video.mp4",
        fps=SETTINGS.fps,
        width=SETTINGS.width,
        height=SETTINGS.height,
        count=SETTINGS.frames,
        metadata={"model": "animatic"},
    )
    return made.video.read_bytes(), made.thumbnail.read_bytes()


def a_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 24), (90, 120, 60)).save(file, "PNG")
    return file.getvalue()


@dataclass
class Bench:
    """A scheduler under test and all that surrounds it."""

    root: Path
    store: Storage
    cluster: FakeCluster
    clock: MovedClock
    artifacts: ArtifactStore
    scheduler: Scheduler | None = None
    task: asyncio.Task[None] | None = None
    retention: Retention | None = None
    settings: Callable[[], FarmSettings] | None = None
    benched: Benched | None = None

    def submit(self, **changes: object) -> Job:
        picture = self.artifacts.put(a_picture(), "image/png")
        return self.store.submit(replace(SETTINGS, **changes), picture)  # type: ignore[arg-type]  # names of fields

    def status(self, job: Job) -> JobStatus:
        return self.store.reader.job(job.id).status

    def tries(self, job: Job) -> list[AttemptStatus]:
        return [attempt.status for attempt in self.store.reader.attempts(job.id)]

    def free(self) -> set[str]:
        return set() if self.scheduler is None else set(self.scheduler._policy._scene.free)

    def retain(self, limits: Limits) -> Retention:
        """Files go as in a real farm, from `start` on."""
        self.retention = Retention(
            RetentionReader(self.store.reader._engine, self.artifacts),
            self.store.writer,
            Leftovers(self.store.writer._engine),
            self.artifacts,
            limits,
            self.clock,
        )
        return self.retention

    async def start(self, lease_s: float = 30.0) -> None:
        self.scheduler = Scheduler(
            self.cluster,
            self.store.writer,
            self.store.reader,
            self.store.requests,
            self.store.registry,
            self.artifacts,
            builtin_models(),
            self.clock,
            feed_socket=self.root / "feed.sock",
            previews=self.root / "previews",
            checkpoints=self.root / "checkpoints",
            lease_s=lease_s,
            tiers="soft",
            benched=self.benched,
            retention=self.retention,
            settings=self.settings,
        )
        self.task = asyncio.create_task(self.scheduler.run())

    async def stop(self) -> None:
        assert self.scheduler is not None
        assert self.task is not None
        self.scheduler.stop()
        await self.task

    async def crash(self) -> None:
        """The scheduler's process is gone from one moment to the next: nothing of it runs on, nothing is written."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        """Waits until something holds, and wakes the scheduler as the dashboard would."""
        for _ in range(int(LIMIT_S / 0.01)):
            if holds():
                return
            if self.scheduler is not None:
                self.scheduler._wake.set()
            await asyncio.sleep(0.01)
        raise AssertionError(f"did not come about in {LIMIT_S} s: {what}")


@asynccontextmanager
async def bench(root: Path) -> AsyncIterator[Bench]:
    made = Bench(root, open_storage(root), FakeCluster(), MovedClock(), ArtifactStore(root / "artifacts"))
    try:
        yield made
        assert audit(made.store.reader._engine, made.artifacts) == []
    finally:
        if made.task is not None and not made.task.done():
            await made.stop()
        made.store.close()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Callable[[Bench], Awaitable[None]]], None]]:
    """Runs a test's story on a bench of its own."""

    def runner(story: Callable[[Bench], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with bench(tmp_path) as made:
                await story(made)

        asyncio.run(whole())

    return runner


Run = Callable[[Callable[[Bench], Awaitable[None]]], None]


def test_the_files_of_old_jobs_are_removed_while_it_works(run: Run) -> None:
    async def story(bench: Bench) -> None:
        old = bench.submit()
        assert bench.store.writer.give_up_queued(old.id, "no card", bench.clock.now() - 9 * 86_400)
        stored = bench.artifacts.path(old.input_sha256)
        os.utime(stored, (1.0, 1.0))
        bench.retain(Limits(days=7))
        await bench.start()
        await bench.until(lambda: not stored.exists(), "the picture is removed")
        assert bench.store.reader.job(old.id).removed_at == bench.clock.now()

    run(story)


def test_settings_that_an_admin_changes_hold_without_a_restart(run: Run) -> None:
    """Preview work that only a card for post work is there for may not run under strict tiers, and does once they are off."""

    async def story(bench: Bench) -> None:
        knobs = KnobStore(bench.store.writer._engine)
        given = FarmSettings()
        knobs.change({"tiers": "strict"}, "ann", 1.0)
        bench.settings = lambda: in_force(given, knobs.newest())
        reader = RetentionReader(bench.store.reader._engine, bench.artifacts)
        bench.retain(Limits())
        (small,) = bench.cluster.add_node("n1")
        bench.cluster.cards["n1"] = [
            CardReport(
                small,
                CardKind.CUDA,
                "RTX 2060",
                vram_gib=6.0,
                usable_gib=5.4,
                compute_capability=(7, 5),
                models=("i2vgen-xl",),
                ram_gib=16.0,
            )
        ]
        await bench.start()
        scheduler = bench.scheduler
        assert scheduler is not None
        await bench.until(lambda: scheduler._known.view.tiers == "strict", "the change is taken in")
        await bench.until(lambda: small in bench.free(), "the card is there")
        job = bench.submit(
            model="i2vgen-xl", width=512, height=512, frames=16, steps=50, prompt="Waves roll in"
        )
        await bench.until(lambda: bench.store.reader.job(job.id).unplaceable is not None, "no card may")
        knobs.change({"tiers": "off", "lease_s": 60.0, "keep_days": 7.0}, "ann", 2.0)
        await bench.until(lambda: bench.cluster.starts != [], "the job runs")
        assert bench.store.reader.job(job.id).unplaceable is None
        room = bench.cluster.starts[0][1].room
        assert room is not None, "the card must know what its next plan may take"
        assert (room.usable_gib, room.ram_gib, room.precision) == (5.4, 13.0, "fp16")
        assert scheduler._leases.lease_s == 60.0
        assert bench.store.requests.waiting() == []
        await bench.until(lambda: reader.stock() is not None, "the new limit is kept")

    run(story)


def test_a_job_goes_its_whole_way(run: Run, clip: tuple[bytes, bytes]) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: bool(bench.cluster.starts), "the job is given to the card")
        assert bench.status(job) == JobStatus.RUNNING
        bench.cluster.say(card, lambda name, seq: events.Loading(name, seq, 1.0))
        bench.cluster.say(card, lambda name, seq: events.Rendering(name, seq, 2.0))
        await bench.until(
            lambda: bench.store.reader.attempts(job.id)[0].status == AttemptStatus.RUNNING, "the attempt runs"
        )
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "the job finishes")
        stored = bench.store.reader.job(job.id)
        assert stored.video_sha256 is not None
        assert bench.artifacts.read(stored.video_sha256) == clip[0]
        (attempt,) = bench.store.reader.attempts(job.id)
        assert attempt.status == AttemptStatus.FINISHED
        assert attempt.stage_seconds == {"render": 1.0, "encode": 0.5}
        assert attempt.peak_gib == 0.25
        await bench.until(lambda: attempt.id in bench.cluster.forgotten, "the spool is cleared")

    run(story)


def test_each_card_has_one_attempt_and_the_queue_keeps_its_order(run: Run, clip: tuple[bytes, bytes]) -> None:
    async def story(bench: Bench) -> None:
        cards = bench.cluster.add_node("n1", cards=2)
        jobs = [bench.submit() for _ in range(6)]
        await bench.start()
        for expected in (2, 3, 4, 5, 6):
            await bench.until(lambda expected=expected: len(bench.cluster.starts) == expected, "next start")  # type: ignore[misc]
            assert sum(bench.status(job) == JobStatus.RUNNING for job in jobs) <= 2
            busy = next(card for card in cards if bench.cluster.workers[card].order is not None)
            bench.cluster.done(busy, *clip)
            bench.clock.move(2.0)  # the other card is late by now: nobody waits for it
        await bench.until(
            lambda: sum(bench.status(job) == JobStatus.FINISHED for job in jobs) == 5,
            "five of six are finished",
        )
        begun = [order.job_id for _, order in bench.cluster.starts]
        assert set(begun[:2]) == {job.id for job in jobs[:2]}  # handed over side by side
        assert begun[2:] == [job.id for job in jobs[2:]]

    run(story)


def test_a_restarted_scheduler_takes_up_the_attempt_and_its_result_comes_once(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: bool(bench.cluster.starts), "given to the card")
        await bench.crash()
        bench.cluster.done(card, *clip)  # while nobody listens
        await bench.start()
        await bench.until(
            lambda: bench.status(job) == JobStatus.FINISHED, "the result of the old attempt counts"
        )
        assert len(bench.cluster.starts) == 1
        assert len(bench.store.reader.attempts(job.id)) == 1

    run(story)


def test_an_attempt_that_was_committed_but_never_handed_over_is_handed_over_after_a_crash(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """A scheduler killed between its commit and the call to the card left the job running with nobody at work."""

    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit()
        bench.cluster.on_start = lambda _card, _order: None
        original = bench.cluster.start

        async def never(*_arguments: object) -> None:
            await asyncio.Event().wait()

        bench.cluster.start = never  # type: ignore[method-assign]  # the crash comes inside this call
        await bench.start()
        await bench.until(lambda: bench.status(job) == JobStatus.RUNNING, "committed")
        await bench.crash()
        bench.cluster.start = original  # type: ignore[method-assign]
        assert bench.cluster.starts == []
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "handed over")
        assert len(bench.store.reader.attempts(job.id)) == 1

    run(story)


def test_a_result_waits_in_the_spool_of_a_node_whose_worker_is_gone(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: bool(bench.cluster.starts), "given to the card")
        await bench.crash()
        bench.cluster.done(card, *clip)
        bench.cluster.kill_worker(card)
        bench.cluster.report = _no_report  # type: ignore[method-assign]  # the agent has not restarted the worker yet
        await bench.start()
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "fetched from the spool")
        assert len(bench.cluster.starts) == 1

    async def _no_report(_node_id: str) -> None:
        await asyncio.Event().wait()

    run(story)


def test_a_worker_that_dies_loses_its_attempt_and_the_job_runs_again(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        bench.cluster.kill_worker(card)
        await bench.until(lambda: len(bench.cluster.starts) == 2, "given to the card's new worker")
        first, second = bench.store.reader.attempts(job.id)
        assert first.status == AttemptStatus.LOST
        assert "ended in the middle" in (first.reason or "")
        # A late word of the lost attempt changes nothing.
        assert not bench.store.writer.cancelled(first.id, 99.0)
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "the second attempt finishes")
        assert bench.store.reader.attempts(job.id)[1].id == second.id

    run(story)


def test_steps_down_the_ladder_are_kept_with_the_attempt_once_also_over_a_crash(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    leaner = MemoryPlan("by_stage", "in_turn")

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: bool(bench.cluster.starts), "given to the card")
        say = bench.cluster.say
        say(card, lambda name, seq: events.Loading(name, seq, 1.0))
        say(card, lambda name, seq: events.Retrying(name, seq, 2.0, leaner, "It ran out of memory."))
        say(card, lambda name, seq: events.Loading(name, seq, 3.0))
        say(card, lambda name, seq: events.Rendering(name, seq, 4.0))
        say(card, lambda name, seq: events.Note(name, seq, 5.0, "Windows moves memory.", disturbed=True))

        def attempt() -> Attempt:
            return bench.store.reader.attempts(job.id)[0]

        await bench.until(lambda: len(attempt().notes) == 2, "noted")
        await bench.crash()
        await bench.start()
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert attempt().notes == ("It ran out of memory.", "Windows moves memory.")
        assert attempt().memory_plan == leaner
        assert attempt().disturbed
        told = [(line.what, line.detail) for line in bench.store.reader.story(job.id)]
        assert told.count(("retrying", "It ran out of memory.")) == 1
        assert told.count(("note", "Windows moves memory.")) == 1

    run(story)


def test_what_a_render_took_sharpens_the_next_prediction_and_is_remembered_over_a_restart(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        jobs = [bench.submit() for _ in range(2)]
        await bench.start()
        for number, job in enumerate(jobs, start=1):
            await bench.until(lambda number=number: len(bench.cluster.starts) == number, "given to the card")
            bench.cluster.done(card, *clip)  # 1.5 s, where the catalogue says 0.4 and a little
            await bench.until(lambda job=job: bench.status(job) == JobStatus.FINISHED, "finished")
        told = [bench.store.reader.attempts(job.id)[0].predicted_s or 0.0 for job in jobs]
        assert told[0] == pytest.approx(0.405, abs=0.01)
        assert told[0] * 2 < told[1] < 1.5
        await bench.stop()
        third = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 3, "given to the card")
        remembered = bench.store.reader.attempts(third.id)[0]
        assert remembered.predicted_s == pytest.approx(1.5, rel=0.15)
        assert remembered.predicted_gib is None, "a CPU's memory is not predicted"

    run(story)


def test_a_card_whose_worker_ended_itself_gets_work_once_the_fresh_one_has_tested_it(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """After a CUDA error in mid-render the next job went straight to the same broken process."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        (report,) = bench.cluster.cards["n1"]
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        bench.cluster.cards["n1"] = [replace(report, tested=False)]
        bench.cluster.say(
            card,
            lambda name, seq: events.Failed(
                name,
                seq,
                1.0,
                FailureClass.INTERNAL,
                "1.5 GiB did not come back.",
                disturbed=True,
                worker_ends=True,
            ),
        )
        bench.cluster.kill_worker(card)
        await bench.until(lambda: bench.status(job) == JobStatus.QUEUED, "the job waits again")
        assert bench.scheduler is not None
        await bench.scheduler._watch.round()
        bench.scheduler.tick()
        assert len(bench.cluster.starts) == 1, "the fresh worker is still at its test"
        (failed,) = bench.store.reader.attempts(job.id)
        assert (failed.status, failed.disturbed) == (AttemptStatus.FAILED, True)
        bench.cluster.cards["n1"] = [report]
        await bench.scheduler._watch.round()
        await bench.until(lambda: len(bench.cluster.starts) == 2, "given to the tested card")
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")

    run(story)


def test_a_silent_node_loses_its_attempt_when_the_lease_ends_and_another_card_takes_the_job(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start(lease_s=30.0)
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the first card")
        bench.cluster.gone.add("n1")
        (other,) = bench.cluster.add_node("n2")
        bench.clock.move(29.0)
        await asyncio.sleep(0.2)
        assert bench.status(job) == JobStatus.RUNNING
        assert bench.store.reader.attempts(job.id)[0].status == AttemptStatus.ASSIGNED
        bench.clock.move(2.0)
        await bench.until(lambda: len(bench.cluster.starts) == 2, "given to the other card")
        assert bench.cluster.starts[1][0] == other
        assert bench.store.reader.attempts(job.id)[0].status == AttemptStatus.LOST
        bench.cluster.done(other, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished there")

    run(story)


def test_a_damaged_video_is_not_a_result(run: Run, clip: tuple[bytes, bytes]) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        bench.cluster.done(card, clip[0][: len(clip[0]) // 2], clip[1])
        await bench.until(lambda: len(bench.cluster.starts) == 2, "tried again")
        first = bench.store.reader.attempts(job.id)[0]
        assert first.status == AttemptStatus.FAILED
        bench.cluster.done(card, clip[0], clip[1], claim=b"other bytes")
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "given up: there is no other card")
        assert "changed on its way" in (bench.store.reader.job(job.id).failure or "")
        assert bench.store.reader.job(job.id).video_sha256 is None

    run(story)


def test_bad_input_is_not_tried_again(run: Run) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        bench.cluster.fail(card, FailureClass.BAD_INPUT, "The picture is empty.")
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "failed at once")
        assert len(bench.store.reader.attempts(job.id)) == 1
        assert bench.store.reader.job(job.id).failure == "The picture is empty."

    run(story)


def test_missing_weights_send_the_job_to_another_card(run: Run) -> None:
    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        bench.cluster.add_node("n2")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to a card")
        first = bench.cluster.starts[0][0]
        bench.cluster.fail(first, FailureClass.MISSING_WEIGHTS, "No weights here.")
        await bench.until(lambda: len(bench.cluster.starts) == 2, "given to another")
        assert bench.cluster.starts[1][0] != first
        bench.cluster.fail(bench.cluster.starts[1][0], FailureClass.MISSING_WEIGHTS, "None here either.")
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "no card is left")

    run(story)


def test_cancel_of_a_running_job_stops_it_and_cancel_of_a_queued_one_ends_it(run: Run) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        running, queued = bench.submit(), bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "the first runs")
        for job in (running, queued):
            bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.until(lambda: bench.status(running) == JobStatus.CANCELLED, "stopped")
        await bench.until(lambda: bench.status(queued) == JobStatus.CANCELLED, "ended")
        assert len(bench.cluster.starts) == 1
        assert bench.cluster.workers[card].cancelled == {bench.cluster.starts[0][1].attempt_id}
        bench.store.requests.ask(RequestKind.RETRY, queued.id, 6.0)
        await bench.until(lambda: len(bench.cluster.starts) == 2, "a retried job runs")

    run(story)


def test_a_cancel_that_came_while_the_scheduler_was_down_takes_hold(run: Run) -> None:
    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "runs")
        await bench.crash()
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.start()
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "stopped")

    run(story)


def test_a_job_no_card_can_serve_is_unplaceable_at_once_with_the_reason_and_the_remedy(run: Run) -> None:
    """AI-Horde#539, OpenCue#1551: a request that nobody can serve waits for ever and nobody says so."""

    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        big = bench.submit(model="i2vgen-xl", width=512, height=512, frames=16, steps=50, guidance=9.0)
        small = bench.submit()
        await bench.start()
        await bench.until(lambda: bench.store.reader.job(big.id).unplaceable is not None, "said")
        reason = bench.store.reader.job(big.id).unplaceable or ""
        assert "i2vgen-xl needs a GPU" in reason
        assert "draft" in reason
        await bench.until(lambda: bench.status(small) == JobStatus.RUNNING, "the others go on")
        assert bench.store.reader.job(small.id).unplaceable is None

    run(story)


def test_without_any_card_a_job_waits_and_is_not_called_unplaceable(run: Run) -> None:
    async def story(bench: Bench) -> None:
        job = bench.submit()
        await bench.start()
        await asyncio.sleep(0.1)
        assert bench.store.reader.job(job.id).unplaceable is None
        bench.cluster.add_node("n1")
        await bench.until(lambda: bench.status(job) == JobStatus.RUNNING, "a card came")

    run(story)


def test_the_feed_tells_a_job_s_life_to_its_readers(run: Run, clip: tuple[bytes, bytes]) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        await bench.start()
        await bench.until((bench.root / "feed.sock").exists, "the feed is served")
        reader, writer = await asyncio.open_unix_connection(str(bench.root / "feed.sock"))
        assert (
            from_line(await reader.readline()).type == "snapshot"
        )  # from here on this reader misses nothing
        job = bench.submit()
        writer.write(b"wake\n")  # no test here wakes the loop: the feed's reader does
        await writer.drain()
        seen: list[tuple[str, int]] = []

        async def read_until(holds: Callable[[], bool]) -> None:
            while not holds():
                message = from_line(await asyncio.wait_for(reader.readline(), LIMIT_S))
                if message.type == "job" and message.job.id == job.id:
                    seen.append((message.job.status, message.job.done))

        await read_until(lambda: ("running", 0) in seen)
        await bench.until(lambda: bool(bench.cluster.starts), "given to the card")
        bench.cluster.say(card, lambda name, seq: events.Step(name, seq, 1.0, 3, 8, 0.5))
        await read_until(lambda: ("running", 3) in seen)
        bench.cluster.done(card, *clip)
        await read_until(lambda: seen[-1][0] == "finished")
        assert seen[0] == ("queued", 0)
        writer.close()

    run(story)


def test_a_card_that_comes_back_inside_a_lost_attempt_costs_the_job_nothing_more(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """A node came back after its lease: each new attempt met the worker inside the lost one, and after five the job was given up."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        bench.cluster.stubborn.add(card)
        job = bench.submit()
        await bench.start(lease_s=30.0)
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        bench.cluster.gone.add("n1")
        bench.clock.move(31.0)
        await bench.until(lambda: bench.tries(job) == [AttemptStatus.LOST], "the lease ended")
        bench.cluster.gone.clear()
        lost = bench.cluster.starts[0][1].attempt_id
        await bench.until(lambda: bench.cluster.workers[card].cancelled == {lost}, "told to stop")
        assert bench.tries(job) == [AttemptStatus.LOST]
        assert bench.status(job) == JobStatus.QUEUED
        bench.clock.move(30.0 * STOP_LEASES + 1.0)
        await bench.until(lambda: bench.cluster.replaced == [card], "its worker is replaced")
        await bench.until(lambda: len(bench.cluster.starts) == 2, "given to the new worker")
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert bench.tries(job) == [AttemptStatus.LOST, AttemptStatus.FINISHED]

    run(story)


def a_stray() -> Order:
    return Order("STRAY", "J0", StageKind.GENERATE, SETTINGS, MemoryPlan(), "ab" * 32)


def test_a_card_found_busy_at_the_start_takes_the_attempt_back_and_stops_the_one_that_holds_it(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """An order of a former life reached the worker late, between its node's report and the next start: counted as a loss."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        await bench.start()
        await bench.until(lambda: bench.free() == {card}, "the card is free")
        bench.cluster.workers[card].order = a_stray()
        job = bench.submit()
        await bench.until(lambda: bench.cluster.workers[card].cancelled == {"STRAY"}, "the stray is stopped")
        assert bench.tries(job) == [AttemptStatus.CANCELLED]
        (first,) = bench.store.reader.attempts(job.id)
        assert first.reason == "CPU 0 of n1 was still busy with an attempt that was given up."
        await bench.until(lambda: len(bench.cluster.starts) == 1, "begun when the worker is idle")
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert bench.tries(job) == [AttemptStatus.CANCELLED, AttemptStatus.FINISHED]

    run(story)


def test_a_job_cancelled_while_its_card_turned_it_away_stays_cancelled(run: Run) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        await bench.start()
        await bench.until(lambda: bench.free() == {card}, "the card is free")
        bench.cluster.workers[card].order = a_stray()
        job = bench.submit()
        original = bench.cluster.start

        async def start(node_id: str, card_id: str, *given: Any) -> None:
            bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
            await original(node_id, card_id, *given)

        bench.cluster.start = start  # type: ignore[method-assign]  # a person cancels in this moment
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "cancelled")
        assert bench.tries(job) == [AttemptStatus.CANCELLED]

    run(story)


def test_a_job_that_a_person_tries_again_counts_its_failures_anew(run: Run) -> None:
    """The failures before the retry counted on: the first new one gave the job up."""

    async def story(bench: Bench) -> None:
        first, second = bench.cluster.add_node("n1", cards=2)
        job = bench.submit()
        await bench.start()
        for number in (1, 2):
            await bench.until(lambda number=number: len(bench.cluster.starts) == number, "started")  # type: ignore[misc]
            bench.cluster.fail(bench.cluster.starts[-1][0], FailureClass.OUT_OF_MEMORY, "Too small.")
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "given up: no card is left")
        assert bench.store.reader.job(job.id).failure == ("CPU 0 of n1: Too small.; CPU 1 of n1: Too small.")
        bench.store.requests.ask(RequestKind.RETRY, job.id, 6.0)
        for number in (3, 4):
            await bench.until(lambda number=number: len(bench.cluster.starts) == number, "tried again")  # type: ignore[misc]
            bench.cluster.fail(bench.cluster.starts[-1][0], FailureClass.OUT_OF_MEMORY, "Still too small.")
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "given up again")
        assert {card for card, _ in bench.cluster.starts[2:]} == {first, second}
        assert bench.store.reader.job(job.id).failure == (
            "CPU 0 of n1: Still too small.; CPU 1 of n1: Still too small."
        )

    run(story)


def test_a_restarted_scheduler_remembers_which_cards_a_job_failed_on(run: Run) -> None:
    """It lived in memory only: after a restart the job went back to the card that is too small for it."""

    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        bench.cluster.add_node("n2")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to a card")
        first = bench.cluster.starts[0][0]
        other = ({"CPU-n1-0", "CPU-n2-0"} - {first}).pop()
        bench.cluster.gone.add(bench.cluster._node_of(other))
        bench.clock.move(11.0)  # the other is silent by now
        await bench.until(lambda: bench.free() == set(), "no card is free")
        bench.cluster.fail(first, FailureClass.OUT_OF_MEMORY, "Too small.")
        await bench.until(lambda: bench.status(job) == JobStatus.QUEUED, "waits for the other card")
        await bench.crash()
        await bench.start()
        await bench.until(lambda: bench.free() == {first}, "the first card is free")
        bench.cluster.gone.clear()
        await bench.until(lambda: len(bench.cluster.starts) == 2, "given to the other")
        assert bench.cluster.starts[1][0] == other

    run(story)


def test_a_cancel_reaches_a_node_that_did_not_answer_when_it_was_asked_for(run: Run) -> None:
    """Asked for while the network was cut for a moment, it was forgotten, and the job rendered to its end."""

    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        original = bench.cluster.cancel
        failed: list[str] = []

        async def cancel(node_id: str, card_id: str, attempt_id: str) -> None:
            failed.append(attempt_id)
            bench.cluster.cancel = original  # type: ignore[method-assign]  # the next one gets through
            raise NodeGoneError(node_id)

        bench.cluster.cancel = cancel  # type: ignore[method-assign]  # the network is cut for a moment
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "stopped")
        assert failed == [bench.cluster.starts[0][1].attempt_id]

    run(story)


def test_a_cancel_before_the_card_has_the_attempt_stops_it_there(run: Run) -> None:
    """The worker knew nothing of the attempt yet, so there was nothing to stop, and nobody told it again."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        original = bench.cluster.start
        begun, go = asyncio.Event(), asyncio.Event()

        async def start(node_id: str, card_id: str, *given: Any) -> None:
            begun.set()
            await go.wait()
            await original(node_id, card_id, *given)

        bench.cluster.start = start  # type: ignore[method-assign]  # the order takes a while
        await bench.start()
        await bench.until(begun.is_set, "the order is on its way")
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.until(lambda: bench.store.requests.waiting() == [], "the wish is taken in")
        assert bench.cluster.workers[card].cancelled == set()
        go.set()
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "stopped")

    run(story)


def test_a_job_whose_picture_is_gone_fails_at_once_and_says_so(run: Run) -> None:
    """It stayed "running" for ever: the hand-over failed once a second, and each try renewed the lease."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        bench.artifacts.delete(job.input_sha256)
        await bench.start()
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "failed")
        assert bench.tries(job) == [AttemptStatus.FAILED]
        assert "is not in the farm's store" in (bench.store.reader.job(job.id).failure or "")
        await bench.until(lambda: bench.free() == {card}, "the card takes the next")

    run(story)


def test_a_result_that_could_not_be_taken_in_at_once_is_taken_in_later(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """Its event counted as heard before it was dealt with: after a surprise the attempt was lost, and its clip thrown away."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        original = bench.store.writer.finish
        surprises = iter([OSError(28, "No space left on device"), RuntimeError("database is locked")])

        def finish(*arguments: object) -> bool:
            for surprise in surprises:
                raise surprise
            return original(*arguments)  # type: ignore[arg-type]  # passed on as they came

        bench.store.writer.finish = finish  # type: ignore[method-assign]  # the head's disk is full for a while
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished all the same")
        assert bench.tries(job) == [AttemptStatus.FINISHED]

    run(story)


def test_a_surprise_that_stays_fails_the_attempt_after_a_lease_and_the_job_goes_on(run: Run) -> None:
    """Each try renewed the lease, so that an attempt the scheduler could not deal with held its card for ever."""

    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit()
        original = bench.cluster.start
        tried: list[str] = []

        async def start(node_id: str, card_id: str, order: Order, *given: Any) -> None:
            tried.append(order.attempt_id)
            if len(set(tried)) == 1:
                raise RuntimeError("another version's order")
            await original(node_id, card_id, order, *given)

        bench.cluster.start = start  # type: ignore[method-assign]  # the first attempt cannot be handed over
        await bench.start(lease_s=30.0)
        await bench.until(lambda: len(tried) == 2, "tried again")
        assert bench.tries(job) == [AttemptStatus.ASSIGNED]
        bench.clock.move(20.0)  # each time within the lease, which the tries hold
        so_far = len(tried)
        await bench.until(lambda: len(tried) > so_far, "and again")
        bench.clock.move(20.0)
        await bench.until(lambda: len(bench.cluster.starts) == 1, "the next attempt is handed over")
        first = bench.store.reader.attempts(job.id)[0]
        assert (first.status, first.failure_class) == (AttemptStatus.FAILED, FailureClass.INTERNAL)
        assert "RuntimeError" in (first.reason or "")

    run(story)


def test_a_scheduler_that_stood_still_longer_than_a_lease_asks_before_it_calls_an_attempt_lost(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """A head that was paused for half a minute came back, saw all leases over, and gave up every render of the farm."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start(lease_s=30.0)
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        original = bench.cluster.follow
        timed_out: list[str] = []

        async def follow(*arguments: object) -> list[events.Event]:
            if not timed_out:
                timed_out.append("the call that was under way when the process was paused")
                bench.clock.move(31.0)
                raise NodeGoneError("n1")
            return await original(*arguments)  # type: ignore[arg-type]  # passed on as they came

        bench.cluster.follow = follow  # type: ignore[method-assign]  # as after a SIGSTOP and SIGCONT
        await bench.until(lambda: bool(timed_out), "paused")
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert bench.tries(job) == [AttemptStatus.FINISHED]

    run(story)


def test_a_result_waits_on_its_node_while_the_head_s_disk_is_full(
    run: Run, clip: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The full disk of the head counted as the attempt's failure: good clips were thrown away and rendered again, and again."""
    monkeypatch.setattr(attend, "STORE_AGAIN_S", 0.01)

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start(lease_s=30.0)
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        original = bench.artifacts.put
        refused: list[str] = []

        def put(data: bytes, media_type: str) -> object:
            refused.append(media_type)
            bench.clock.move(20.0)
            raise FarmError("The farm could not store a file: No space left on device.", "Delete old clips.")

        monkeypatch.setattr(bench.artifacts, "put", put)
        bench.cluster.done(card, *clip)
        await bench.until(lambda: len(refused) > 5, "refused for longer than a lease")
        assert bench.scheduler is not None
        (live,) = bench.scheduler._board.snapshot().jobs
        assert live.why == "The farm could not store a file: No space left on device. Delete old clips."
        assert bench.tries(job) == [AttemptStatus.ASSIGNED]
        monkeypatch.setattr(bench.artifacts, "put", original)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "stored when there is room")
        assert bench.tries(job) == [AttemptStatus.FINISHED]

    run(story)


def test_a_slow_network_does_not_lose_a_result_at_the_first_time_out(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """One fetch may take longer than a lease: the first that timed out lost the finished attempt."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start(lease_s=30.0)
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        original = bench.cluster.read
        slow: list[str] = []

        async def read(node_id: str, attempt_id: str, name: str) -> bytes:
            if len(slow) < 3:
                slow.append(name)
                bench.clock.move(60.0)
                assert bench.scheduler is not None
                await bench.scheduler._watch.round()  # the node answers all the while
                raise NodeGoneError(node_id)
            return await original(node_id, attempt_id, name)

        bench.cluster.read = read  # type: ignore[method-assign]  # the network is slow
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "fetched in the end")
        assert bench.tries(job) == [AttemptStatus.FINISHED]

    run(story)


def test_a_scheduler_that_cannot_queue_a_job_again_ends_and_its_successor_does(run: Run) -> None:
    """The fault ended a task that nobody looked at: the job waited in the store, and no scheduler knew of it."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 1, "given to the card")
        assert bench.scheduler is not None
        assert bench.task is not None
        task = bench.task

        def queue_again(_job_id: str) -> None:
            raise OSError("disk I/O error")

        bench.scheduler._queue_again = queue_again  # type: ignore[method-assign]  # the store cannot be read for a moment
        bench.cluster.fail(card)
        await bench.until(task.done, "the scheduler ends")
        with pytest.raises(OSError, match="disk I/O"):
            task.result()
        await bench.start()
        await bench.until(lambda: len(bench.cluster.starts) == 2, "its successor gives the job to a card")
        assert bench.status(job) == JobStatus.RUNNING

    run(story)


def test_a_job_whose_card_s_owner_came_goes_on_elsewhere_and_nothing_is_held_against_either(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        (first,) = bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        for turn in range(2):
            await bench.until(lambda turn=turn: len(bench.cluster.starts) > turn, "given to the card")  # type: ignore[misc]
            bench.cluster.say(first, lambda name, seq: events.Rendering(name, seq, 1.0))
            bench.cluster.say(
                first,
                lambda name, seq: events.Yielded(name, seq, 2.0, "The card is kept for its owner: a game."),
            )
        await bench.until(lambda: len(bench.cluster.starts) == 3, "the same card takes it up again")
        bench.cluster.done(first, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "the job finishes")
        attempts = bench.store.reader.attempts(job.id)
        assert [attempt.status for attempt in attempts] == [AttemptStatus.CANCELLED] * 2 + [
            AttemptStatus.FINISHED
        ]
        assert attempts[0].reason == "The card is kept for its owner: a game."
        assert attempts[0].failure_class is None
        assert after_loss("gone", attempts[:2] * 3).then == JobMove.REQUEUE, "however often, it is no loss"
        story = [line.what for line in bench.store.reader.story(job.id)]
        assert story.count("yielded") == 2

    run(story)


def test_a_cancelled_job_is_not_queued_again_by_its_card_s_owner(run: Run) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        bench.cluster.stubborn.add(card)
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: bool(bench.cluster.starts), "given to the card")
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.until(lambda: bool(bench.cluster.workers[card].cancelled), "the card is told to stop")
        bench.cluster.say(card, lambda name, seq: events.Yielded(name, seq, 2.0, "Kept."))
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "the job is cancelled")

    run(story)


def test_a_card_that_its_owner_takes_just_when_it_gets_a_job_gives_it_back_unharmed(run: Run) -> None:
    """The job counted as lost, and after five such chances as given up."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        (report,) = bench.cluster.cards["n1"]

        def owner_comes(_card: str, _order: Order) -> None:
            bench.cluster.cards["n1"] = [replace(report, kept="paused on that PC")]
            bench.cluster.workers[card].alive = False
            bench.cluster.workers[card].order = None
            raise WorkerGoneError(card)

        bench.cluster.on_start = owner_comes
        job = bench.submit()
        await bench.start()
        await bench.until(lambda: bench.tries(job) == [AttemptStatus.CANCELLED], "it is given back")
        assert bench.status(job) == JobStatus.QUEUED
        assert bench.free() == set()

    run(story)
