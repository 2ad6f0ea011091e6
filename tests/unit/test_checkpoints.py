"""Checkpoints on the head: fetched while a card renders, kept over every plug, and given to the job's next attempt on any card."""

import asyncio
from pathlib import Path

import pytest

from farm import events
from farm.model import AttemptStatus, FailureClass, Job, JobStatus, MemoryPlan
from farm.store.requests import RequestKind
from scheduler import checkpoints
from scheduler.checkpoints import Checkpoints, Kept
from tests.unit.test_scheduler import Bench, Run, clip, run

__all__ = ["clip", "run"]  # fixtures

NAME = "checkpoint.safetensors"


# --- the directory ---
def test_the_newest_takes_the_place_of_the_former(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "kept")
    assert kept.of("J1") is None
    for step in (5, 10):
        kept.keep("J1", Kept(1, step, b"state\nof %d" % step))
    kept.keep("J2", Kept(3, 5, b""))
    assert kept.of("J1") == Kept(1, 10, b"state\nof 10")
    assert kept.of("J2") == Kept(3, 5, b"")
    assert len(list((tmp_path / "kept").iterdir())) == 2
    kept.drop("J1")
    kept.drop("J1")
    assert (kept.of("J1"), kept.of("J2")) == (None, Kept(3, 5, b""))


def test_another_process_finds_them_and_clears_those_of_jobs_that_ended(tmp_path: Path) -> None:
    Checkpoints(tmp_path).keep("J1", Kept(1, 5, b"one"))
    Checkpoints(tmp_path).keep("J2", Kept(1, 5, b"two"))
    (tmp_path / "J1.half").write_bytes(b"cut off while writing")
    kept = Checkpoints(tmp_path)
    kept.drop_all_but({"J1"})
    assert [path.name for path in tmp_path.iterdir()] == ["J1.checkpoint"]
    assert kept.of("J1") == Kept(1, 5, b"one")


@pytest.mark.parametrize("left", [b"", b"\0\0\0\0", b'{"attempt": 1}\nstate', b"[1]\nstate", b'{"attem'])
def test_what_a_power_cut_left_of_one_is_none(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "J1.checkpoint").write_bytes(left)
    assert Checkpoints(tmp_path).of("J1") is None


def test_a_disk_that_takes_no_more_keeps_the_former(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    kept.keep("J1", Kept(1, 5, b"one"))
    (tmp_path / "J1.half").mkdir()  # nothing can be written under this name, whoever runs the test
    kept.keep("J1", Kept(1, 10, b"two"))
    assert kept.of("J1") == Kept(1, 5, b"one")


# --- the scheduler ---
def kept_of(bench: Bench, job: Job) -> Kept | None:
    return Checkpoints(bench.root / "checkpoints").of(job.id)


def reach(bench: Bench, card: str, step: int) -> None:
    """The card's worker has a checkpoint after `step`."""
    worker = bench.cluster.workers[card]
    assert worker.order is not None
    worker.files[worker.order.attempt_id, NAME] = b"after %d" % step
    bench.cluster.say(card, lambda name, seq: events.Checkpoint(name, seq, 0.0, step))


def given(bench: Bench) -> list[tuple[int | None, bytes | None]]:
    """What each attempt was handed to go on from: the number of the attempt that made it, and the state."""
    return [(order.resumes, bench.cluster.checkpoints[order.attempt_id]) for _, order in bench.cluster.starts]


async def running(bench: Bench, cards: int = 1, at_step: int = 5) -> tuple[Job, list[str]]:
    """A job that runs on the first of some cards, with a checkpoint that the head has."""
    found = bench.cluster.add_node("n1", cards)
    job = bench.submit()
    await bench.start()
    await bench.until(lambda: len(bench.cluster.starts) == 1, "given to a card")
    first = bench.cluster.starts[0][0]
    reach(bench, first, at_step)
    await bench.until(lambda: kept_of(bench, job) is not None, "the head has its checkpoint")
    return job, [first, *(card for card in found if card != first)]


async def second(bench: Bench) -> str:
    """The card of the job's second attempt."""
    await bench.until(lambda: len(bench.cluster.starts) == 2, "given to a card again")
    return bench.cluster.starts[1][0]


def test_a_lost_attempt_s_successor_goes_on_and_the_job_s_end_clears_up(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        job, (card,) = await running(bench)
        assert kept_of(bench, job) == Kept(1, 5, b"after 5")
        bench.cluster.kill_worker(card)
        await second(bench)
        assert given(bench) == [(None, None), (1, b"after 5")]
        bench.cluster.say(card, lambda name, seq: events.Resumed(name, seq, 0.0, 5, 30, 1))
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        _, attempt = bench.store.reader.attempts(job.id)
        assert attempt.notes == ("Went on from step 5 of 30 of attempt 1.",)
        assert attempt.resumed_step == 5
        told = [line.detail for line in bench.store.reader.story(job.id) if line.what == "resumed"]
        assert told == ["Went on from step 5 of 30 of attempt 1."]
        await bench.until(lambda: kept_of(bench, job) is None, "cleared")

    run(story)


def test_what_a_dead_worker_still_had_in_its_spool_counts_too(run: Run) -> None:
    """Only the last word of a dead worker was looked for; a checkpoint that it had made since was lost with it."""

    async def story(bench: Bench) -> None:
        job, (card,) = await running(bench)
        await bench.crash()
        reach(bench, card, 10)
        bench.cluster.kill_worker(card)
        await bench.start()
        await second(bench)
        assert given(bench)[1] == (1, b"after 10")
        assert bench.tries(job)[0] == AttemptStatus.LOST

    run(story)


def test_a_failure_s_last_checkpoint_is_fetched_before_its_node_may_forget_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fast card's checkpoints are not all fetched; the last one before its failure is."""
    monkeypatch.setattr(checkpoints, "PAUSE_S", 3600.0)

    async def story(bench: Bench) -> None:
        job, (card, other) = await running(bench, cards=2)
        reach(bench, card, 10)
        reach(bench, card, 15)
        bench.cluster.fail(card, FailureClass.OUT_OF_MEMORY, "It ran out.")
        assert await second(bench) == other
        assert given(bench)[1] == (1, b"after 15")
        assert bench.tries(job)[0] == AttemptStatus.FAILED

    run(story)


def test_a_card_at_fault_is_not_trusted_with_what_it_computed(run: Run) -> None:
    async def story(bench: Bench) -> None:
        job, (card, other) = await running(bench, cards=2)
        reach(bench, card, 10)
        bench.cluster.fail(card, FailureClass.CARD_FAULT, "CUDA error.")
        assert await second(bench) == other
        assert given(bench)[1] == (None, None)
        assert kept_of(bench, job) is None

    run(story)


def test_a_picture_that_came_out_broken_takes_its_checkpoints_with_it(run: Run) -> None:
    """The card begins anew in single precision; if it is lost then, nobody may go on from what the broken picture came out of."""

    async def story(bench: Bench) -> None:
        job, (card,) = await running(bench)
        leaner, single = MemoryPlan("by_stage"), MemoryPlan("by_stage", precision="fp32")
        for plan in (leaner, single):
            bench.cluster.say(
                card, lambda name, seq, plan=plan: events.Retrying(name, seq, 0.0, plan, "Why.")
            )
            await bench.until(
                lambda plan=plan: bench.store.reader.attempts(job.id)[0].memory_plan == plan, "tried again"
            )
            assert (kept_of(bench, job) is None) == (plan is single)
        bench.cluster.kill_worker(card)
        await second(bench)
        assert given(bench)[1] == (None, None)

    run(story)


def test_a_checkpoint_outlives_the_scheduler_while_its_job_waits(run: Run) -> None:
    async def story(bench: Bench) -> None:
        job, (card,) = await running(bench, at_step=20)
        bench.cluster.gone.add("n1")
        await bench.until(lambda: bench.free() == set(), "silent")
        bench.clock.move(31.0)
        await bench.until(lambda: bench.status(job) == JobStatus.QUEUED, "lost with its node")
        await bench.crash()
        Checkpoints(bench.root / "checkpoints").keep("ended meanwhile", Kept(1, 5, b"old"))
        bench.cluster.gone.clear()
        bench.cluster.workers[card].order = None
        await bench.start()
        await second(bench)
        assert given(bench)[1] == (1, b"after 20")
        assert Checkpoints(bench.root / "checkpoints").of("ended meanwhile") is None

    run(story)


def test_a_node_that_does_not_give_its_last_checkpoint_holds_nothing_up(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.attend.LAST_FETCH_S", 0.05)

    async def story(bench: Bench) -> None:
        _, (card,) = await running(bench)

        async def never(*_asked: object) -> bytes:
            await asyncio.Event().wait()
            raise AssertionError

        bench.cluster.read = never  # type: ignore[method-assign]  # a network that hangs
        reach(bench, card, 10)
        bench.cluster.kill_worker(card)
        await second(bench)
        assert given(bench)[1] == (1, b"after 5")

    run(story)


def test_a_person_s_new_try_begins_at_the_beginning(run: Run) -> None:
    """Who cancels and tries again, or tries a failed job again, wants it done anew; and no file of an ended job is kept."""

    async def story(bench: Bench) -> None:
        job, _cards = await running(bench)
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "cancelled")
        await bench.until(lambda: kept_of(bench, job) is None, "cleared")
        bench.store.requests.ask(RequestKind.RETRY, job.id, 6.0)
        await second(bench)
        assert given(bench)[1] == (None, None)

    run(story)


def test_a_waiting_job_that_is_cancelled_leaves_no_checkpoint(run: Run) -> None:
    async def story(bench: Bench) -> None:
        job, (card,) = await running(bench)
        bench.cluster.stuck.add(card)
        bench.cluster.kill_worker(card)
        await bench.until(
            lambda: bench.status(job) == JobStatus.QUEUED, "waits, for its card does not answer"
        )
        assert kept_of(bench, job) is not None
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "cancelled")
        assert kept_of(bench, job) is None

    run(story)


def test_a_job_whose_card_s_owner_came_goes_on_from_the_step_at_which_it_stopped(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """The last checkpoint and the last word come in one breath, and after that word the node forgets the attempt."""

    async def story(bench: Bench) -> None:
        job, (first, _other) = await running(bench, cards=2)
        reach(bench, first, 8)
        bench.cluster.say(
            first, lambda name, seq: events.Yielded(name, seq, 0.0, "The card is kept for its owner: a game.")
        )
        card = await second(bench)
        assert card != first
        assert given(bench) == [(None, None), (1, b"after 8")]
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert bench.tries(job) == [AttemptStatus.CANCELLED, AttemptStatus.FINISHED]

    run(story)
