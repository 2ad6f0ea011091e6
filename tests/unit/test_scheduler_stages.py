"""Jobs of two stages through the scheduler's loop: what is handed on, and that a stage is repeated by itself."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from farm import events
from farm.errors import RenderFailedError
from farm.model import AttemptStatus, FailureClass, Job, JobStatus, RenderSettings, StageKind
from farm.retention import Limits
from farm.stages import delivered, stage_after
from farm.store.audit import audit
from farm.store.leftovers import KEPT_S, Leftovers
from farm.store.requests import RequestKind
from node_agent.encode import encode
from scheduler.doubts import ENDED
from scheduler.results import collect
from scheduler.retention import EVERY_S, SOON_S
from tests.storage import SETTINGS
from tests.unit.test_scheduler import Bench, bench

SMOOTH = replace(SETTINGS, smooth=24)
GENERATE, INTERPOLATE = StageKind.GENERATE, StageKind.INTERPOLATE
Clip = tuple[bytes, bytes]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[StageKind, Clip]:
    """A real clip of what each stage is to leave, with its thumbnail."""
    return {stage: _clip(tmp_path_factory.mktemp(stage), SMOOTH, stage) for stage in (GENERATE, INTERPOLATE)}


def _clip(directory: Path, settings: RenderSettings, stage: StageKind) -> Clip:
    shape = delivered(settings, stage)
    ramp = (
        np.linspace(0, 200, shape.width, dtype=np.uint8)[None, :, None].repeat(shape.height, 0).repeat(3, 2)
    )
    made = encode(
        iter([np.roll(ramp, index, axis=1) for index in range(shape.frames)]),
        directory / "video.mp4",
        fps=shape.fps,
        width=shape.width,
        height=shape.height,
        count=shape.frames,
        metadata={},
        between_stages=stage_after(settings, stage) is not None,
    )
    return made.video.read_bytes(), made.thumbnail.read_bytes()


def play(tmp_path: Path, story: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with bench(tmp_path) as made:
            await story(made)

    asyncio.run(whole())


def stages(bench: Bench, job: Job) -> list[tuple[StageKind, AttemptStatus]]:
    return [(one.stage, one.status) for one in bench.store.reader.attempts(job.id)]


async def started(bench: Bench, number: int) -> str:
    """Waits for the given number of orders; returns the card of the newest."""
    await bench.until(lambda: len(bench.cluster.starts) >= number, f"order {number}")
    return bench.cluster.starts[number - 1][0]


async def at_the_second_stage(bench: Bench, clips: dict[StageKind, Clip], cards: int = 1) -> tuple[Job, str]:
    """A job whose first stage is done and whose second one a card has."""
    bench.cluster.add_node("n1", cards=cards)
    job = bench.submit(smooth=24)
    await bench.start()
    bench.cluster.done(await started(bench, 1), *clips[GENERATE])
    return job, await started(bench, 2)


def test_the_second_stage_gets_the_first_ones_clip_and_gives_the_jobs(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    async def story(bench: Bench) -> None:
        job, card = await at_the_second_stage(bench, clips)
        order = bench.cluster.starts[1][1]
        left = bench.store.reader.stage_artifacts(job.id)
        assert list(left) == [GENERATE]
        assert bench.artifacts.read(left[GENERATE].sha256) == clips[GENERATE][0]
        assert (left[GENERATE].media_type, left[GENERATE].size) == ("video/mp4", len(clips[GENERATE][0]))
        assert (order.stage, order.source_sha256, order.input_sha256) == (
            INTERPOLATE,
            left[GENERATE].sha256,
            job.input_sha256,
        )
        assert order.predicted_s is not None
        between = bench.store.reader.job(job.id)
        assert (between.status, between.stage, between.video_sha256) == (JobStatus.RUNNING, INTERPOLATE, None)
        bench.cluster.done(card, *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        finished = bench.store.reader.job(job.id)
        assert finished.video_sha256 is not None
        assert bench.artifacts.read(finished.video_sha256) == clips[INTERPOLATE][0]
        assert stages(bench, job) == [
            (GENERATE, AttemptStatus.FINISHED),
            (INTERPOLATE, AttemptStatus.FINISHED),
        ]
        told = [line.what for line in bench.store.reader.story(job.id)]
        assert told == ["assigned", "rendered", "generate done", "assigned", "rendered", "finished"]

    play(tmp_path, story)


def test_a_lost_second_stage_is_repeated_by_itself(tmp_path: Path, clips: dict[StageKind, Clip]) -> None:
    async def story(bench: Bench) -> None:
        job, card = await at_the_second_stage(bench, clips, cards=2)
        bench.cluster.kill_worker(card)
        again = await started(bench, 3)
        assert again != card
        assert bench.cluster.starts[2][1].source_sha256 == bench.cluster.starts[1][1].source_sha256
        bench.cluster.done(again, *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert stages(bench, job) == [
            (GENERATE, AttemptStatus.FINISHED),
            (INTERPOLATE, AttemptStatus.LOST),
            (INTERPOLATE, AttemptStatus.FINISHED),
        ]

    play(tmp_path, story)


@pytest.mark.parametrize("when", ["between", "in the second"])
def test_a_restarted_scheduler_goes_on_with_the_second_stage(
    tmp_path: Path, clips: dict[StageKind, Clip], when: str
) -> None:
    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit(smooth=24)
        await bench.start()
        card = await started(bench, 1)
        if when == "between":
            await bench.crash()
            bench.cluster.done(card, *clips[GENERATE])  # while nobody listens
            await bench.start()
        else:
            bench.cluster.done(card, *clips[GENERATE])
            await started(bench, 2)
            await bench.crash()
            await bench.start()
        bench.cluster.done(await started(bench, 2), *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert len(bench.cluster.starts) == 2

    play(tmp_path, story)


def test_a_first_stage_that_gives_a_finished_clip_is_not_taken_for_one_between_stages(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit(smooth=24)
        await bench.start()
        bench.cluster.done(await started(bench, 1), *clips[INTERPOLATE])
        await started(bench, 2)
        first = bench.store.reader.attempts(job.id)[0]
        assert (first.status, first.failure_class) == (AttemptStatus.FAILED, FailureClass.INTERNAL)
        assert "its pixel format is yuv420p, not yuv444p; its number of frames is 24, not 8" in (
            first.reason or ""
        )
        assert bench.cluster.starts[1][1].stage == GENERATE
        assert bench.store.reader.stage_artifacts(job.id) == {}

    play(tmp_path, story)


def test_failures_of_the_first_stage_are_not_held_against_the_second(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    """Three failures end a job, and one keeps it from its card: both are of a stage."""

    async def story(bench: Bench) -> None:
        cards = bench.cluster.add_node("n1", cards=3)
        job = bench.submit(smooth=24)
        await bench.start()
        failed = [await started(bench, 1)]
        bench.cluster.fail(failed[0], FailureClass.OUT_OF_MEMORY, "full")
        failed.append(await started(bench, 2))
        bench.cluster.fail(failed[1], FailureClass.OUT_OF_MEMORY, "full")
        third = await started(bench, 3)
        assert len({*failed, third}) == 3
        bench.cluster.done(third, *clips[GENERATE])
        second_stage = await started(bench, 4)
        assert bench.scheduler is not None
        assert bench.scheduler._policy.excluded(job.id) == frozenset()
        bench.cluster.fail(second_stage, FailureClass.INTERNAL, "broke")
        last = await started(bench, 5)
        assert last in cards
        bench.cluster.done(last, *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert [stage for stage, _ in stages(bench, job)] == [GENERATE] * 3 + [INTERPOLATE] * 2

    play(tmp_path, story)


def test_a_job_cancelled_in_its_second_stage_stops(tmp_path: Path, clips: dict[StageKind, Clip]) -> None:
    async def story(bench: Bench) -> None:
        job, _ = await at_the_second_stage(bench, clips)
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "cancelled")
        assert stages(bench, job)[1] == (INTERPOLATE, AttemptStatus.CANCELLED)

    play(tmp_path, story)


def test_a_cancel_that_comes_with_the_end_of_the_first_stage_leaves_no_second_one(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        bench.cluster.stubborn.add(card)  # the clip is complete before the card hears of it
        job = bench.submit(smooth=24)
        await bench.start()
        await started(bench, 1)
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.until(lambda: bool(bench.cluster.workers[card].cancelled), "the card was told")
        bench.cluster.done(card, *clips[GENERATE])
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "cancelled")
        stored = bench.store.reader.job(job.id)
        assert (stored.stage, stored.cancel_requested) == (INTERPOLATE, False)
        assert stored.finished_at is not None
        assert bench.store.reader.story(job.id)[-1].detail == "before its stage interpolate began"
        assert len(bench.cluster.starts) == 1

    play(tmp_path, story)


async def cancelled_in_the_second(bench: Bench, clips: dict[StageKind, Clip]) -> Job:
    job, _ = await at_the_second_stage(bench, clips)
    bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
    await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "cancelled")
    return job


def test_a_retried_job_goes_on_with_the_stage_it_was_at(tmp_path: Path, clips: dict[StageKind, Clip]) -> None:
    async def story(bench: Bench) -> None:
        job = await cancelled_in_the_second(bench, clips)
        bench.store.requests.ask(RequestKind.RETRY, job.id, 6.0)
        bench.cluster.done(await started(bench, 3), *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert bench.cluster.starts[2][1].stage == INTERPOLATE

    play(tmp_path, story)


def test_a_retried_job_whose_clip_between_stages_is_gone_begins_anew(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    """A restored backup may lack the file: the job could never have been finished."""

    async def story(bench: Bench) -> None:
        job = await cancelled_in_the_second(bench, clips)
        bench.artifacts.delete(bench.store.reader.stage_artifacts(job.id)[GENERATE].sha256)
        bench.store.requests.ask(RequestKind.RETRY, job.id, 6.0)
        bench.cluster.done(await started(bench, 3), *clips[GENERATE])
        bench.cluster.done(await started(bench, 4), *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert [order.stage for _, order in bench.cluster.starts[2:]] == [GENERATE, INTERPOLATE]

    play(tmp_path, story)


def test_a_clip_between_stages_that_is_gone_fails_the_job_and_says_so(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    async def story(bench: Bench) -> None:
        job, card = await at_the_second_stage(bench, clips)
        bench.artifacts.delete(bench.store.reader.stage_artifacts(job.id)[GENERATE].sha256)
        bench.cluster.kill_worker(card)
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "failed")
        assert "is not in the farm's store" in (bench.store.reader.job(job.id).failure or "")

    play(tmp_path, story)


def test_progress_of_the_second_stage_counts_frames(tmp_path: Path, clips: dict[StageKind, Clip]) -> None:
    async def story(bench: Bench) -> None:
        job, card = await at_the_second_stage(bench, clips)
        assert bench.scheduler is not None
        board = bench.scheduler._board

        def live() -> tuple[str, int, int]:
            found = next(one for one in board.snapshot().jobs if one.id == job.id)
            return found.stage, found.done, found.total

        assert live() == ("interpolate", 0, 24)
        bench.cluster.say(card, lambda name, seq: events.Step(name, seq, 1.0, 5, 24, 0.1))
        await bench.until(lambda: live() == ("interpolate", 5, 24), "five frames")

    play(tmp_path, story)


def test_interpolating_teaches_nothing_of_the_model(tmp_path: Path, clips: dict[StageKind, Clip]) -> None:
    """Its seconds, on whatever card, were taken for those of a render."""

    async def story(bench: Bench) -> None:
        job, card = await at_the_second_stage(bench, clips)
        bench.cluster.done(card, *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        taught = bench.store.reader.instructive_attempts(card, "animatic", 10)
        assert [attempt.stage for attempt, _ in taught] == [GENERATE]

    play(tmp_path, story)


def test_a_card_that_is_doubted_after_the_second_stage_was_lost_keeps_the_job_waiting(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    async def story(bench: Bench) -> None:
        job, card = await at_the_second_stage(bench, clips)
        bench.cluster.stuck.add(card)
        bench.cluster.kill_worker(card)
        await bench.until(lambda: bench.status(job) == JobStatus.QUEUED, "queued")
        waiting = bench.store.reader.job(job.id)
        assert (waiting.stage, waiting.unplaceable) == (INTERPOLATE, None)
        assert bench.scheduler is not None
        doubt = bench.scheduler._watch._doubts.about(card)
        assert doubt is not None
        assert doubt.why in (ENDED, "its worker does not answer yet")

    play(tmp_path, story)


def test_a_clip_between_stages_is_never_taken_for_the_job_s(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit(smooth=24)
        await bench.start()
        card = await started(bench, 1)
        (attempt,) = bench.store.reader.attempts(job.id)
        await bench.crash()
        bench.cluster.done(card, *clips[GENERATE])
        done = next(
            one for one in bench.cluster.workers[card].said[attempt.id] if isinstance(one, events.Done)
        )
        with pytest.raises(RenderFailedError, match="is for the stage interpolate"):
            await collect(bench.cluster, bench.artifacts, attempt, job, done)

    play(tmp_path, story)


def test_what_a_lost_first_stage_left_is_not_taken_late_for_the_job_s_clip(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    """It is complete and verified, and still no clip for people: the job would be finished with it."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        job = bench.submit(smooth=24)
        await bench.start()
        await started(bench, 1)
        (attempt,) = bench.store.reader.attempts(job.id)
        bench.cluster.gone.add("n1")
        bench.cluster.done(card, *clips[GENERATE])
        await bench.until(lambda: card not in bench.free(), "silent")
        bench.clock.move(31.0)
        await bench.until(lambda: bench.tries(job) == [AttemptStatus.LOST], "lost")
        bench.cluster.gone.clear()
        await bench.until(lambda: attempt.id in bench.cluster.forgotten, "its node may forget it")
        again = await started(bench, 2)
        assert bench.cluster.starts[1][1].stage == GENERATE
        bench.cluster.done(again, *clips[GENERATE])
        bench.cluster.done(await started(bench, 3), *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert stages(bench, job) == [
            (GENERATE, AttemptStatus.LOST),
            (GENERATE, AttemptStatus.FINISHED),
            (INTERPOLATE, AttemptStatus.FINISHED),
        ]

    play(tmp_path, story)


def test_what_lies_between_the_stages_is_deleted_once_the_job_is_finished(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    async def story(bench: Bench) -> None:
        bench.retain(Limits())
        job, card = await at_the_second_stage(bench, clips)
        left = bench.artifacts.path(bench.store.reader.stage_artifacts(job.id)[GENERATE].sha256)
        os.utime(left, (1.0, 1.0))
        bench.clock.move(EVERY_S)
        await bench.until(lambda: not bench.retention.due, "a look")  # type: ignore[union-attr]  # made above
        assert left.exists()
        bench.cluster.done(card, *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        bench.clock.move(SOON_S)
        await bench.until(lambda: not left.exists(), "the clip between stages is deleted")
        assert bench.store.reader.stage_artifacts(job.id) == {}
        assert audit(bench.store.reader._engine, bench.artifacts) == []

    play(tmp_path, story)


def test_a_retry_after_the_clip_was_let_go_begins_at_the_beginning(
    tmp_path: Path, clips: dict[StageKind, Clip]
) -> None:
    """With no row left of it, nothing was missing: the second stage was tried without its clip."""

    async def story(bench: Bench) -> None:
        job = await cancelled_in_the_second(bench, clips)
        bench.clock.move(KEPT_S)
        assert Leftovers(bench.store.writer._engine).let_go(bench.clock.now() + KEPT_S) == 1
        bench.store.requests.ask(RequestKind.RETRY, job.id, 6.0)
        bench.cluster.done(await started(bench, 3), *clips[GENERATE])
        bench.cluster.done(await started(bench, 4), *clips[INTERPOLATE])
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert [order.stage for _, order in bench.cluster.starts[2:]] == [GENERATE, INTERPOLATE]

    play(tmp_path, story)
