"""The scheduler's loop over a real store and real files, with cards in memory."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farm import events
from farm.artifacts import ArtifactStore
from farm.catalogue.models import builtin_models
from farm.feed import from_line
from farm.model import Attempt, AttemptStatus, FailureClass, Job, JobStatus, MemoryPlan
from farm.store.requests import RequestKind
from node_agent.encode import encode
from scheduler.loop import Scheduler
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

    def submit(self, **changes: object) -> Job:
        picture = self.artifacts.put(a_picture(), "image/png")
        return self.store.submit(replace(SETTINGS, **changes), picture)  # type: ignore[arg-type]  # names of fields

    def status(self, job: Job) -> JobStatus:
        return self.store.reader.job(job.id).status

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
            lease_s=lease_s,
            tiers="soft",
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
