"""What the scheduler does about cards and PCs in trouble: stalls, late results, pauses, drains."""

import asyncio
from dataclasses import replace

import pytest

from farm import events
from farm.model import AttemptStatus, Card, CardKind, FailureClass, Job, JobStatus, Node
from farm.store.requests import RequestKind
from farm.wire import CardReport
from scheduler.outcomes import REST_S
from scheduler.outlook import EVERY_S
from scheduler.pauses import PROBE_AFTER_S
from scheduler.stalls import GRACE_S, LEAST_S, WHOLE_S
from scheduler.watch import GONE_AFTER_S
from tests.unit.test_scheduler import Bench, Run, clip, run

__all__ = ["clip", "run"]  # fixtures


async def given(bench: Bench, times: int = 1) -> tuple[str, str]:
    """The card and attempt that were started last, once so many were."""
    await bench.until(lambda: len(bench.cluster.starts) == times, f"{times} given to cards")
    card, order = bench.cluster.starts[-1]
    return card, order.attempt_id


def step(bench: Bench, card: str, done: int, pace: float | None, total: int = 30) -> None:
    bench.cluster.say(card, lambda name, seq: events.Step(name, seq, 0.0, done, total, pace))


async def heard(bench: Bench, job: Job, done: int) -> None:
    """The scheduler knows of the step."""
    assert bench.scheduler is not None
    board = bench.scheduler._board
    await bench.until(
        lambda: any(one.id == job.id and one.done == done for one in board.snapshot().jobs), "heard"
    )


def live(bench: Bench, card: str) -> tuple[str, str | None]:
    assert bench.scheduler is not None
    found = {one.id: (one.state, one.why) for one in bench.scheduler._board.snapshot().cards}
    return found.get(card, ("not known yet", None))


def waits(bench: Bench) -> str:
    """What the jobs of the one kind that waits are told."""
    assert bench.scheduler is not None
    queue = bench.scheduler._board.snapshot().queue
    return "" if queue is None else "".join(queue.why.values())


# --- stalls ---
async def standing_still(bench: Bench, *, stubborn: bool) -> tuple[Job, str]:
    """A job whose worker has made a step and says no more, for longer than it may; its node answers all the time."""
    bench.cluster.add_node("n1")
    job = bench.submit(steps=30)
    await bench.start()
    card, _ = await given(bench)
    if stubborn:
        bench.cluster.stubborn.add(card)
    step(bench, card, 4, 20.0)
    await heard(bench, job, 4)
    bench.clock.move(12 * 20.0 - 5)
    await bench.until(lambda: bench.free() == set(), "looked at again")
    assert bench.cluster.workers[card].cancelled == set(), "twelve times its step it may take"
    bench.clock.move(10.0)
    await bench.until(lambda: bench.cluster.workers[card].cancelled != set(), "told to stop")
    return job, card


def test_a_worker_that_stands_still_is_stopped_and_its_job_goes_on(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """Complaint 12: the renderer was out of memory, the job "running" for six hours, the machine idle."""

    async def story(bench: Bench) -> None:
        job, card = await standing_still(bench, stubborn=False)
        await given(bench, 2)
        first, _ = bench.store.reader.attempts(job.id)
        assert (first.status, first.failure_class) == (AttemptStatus.FAILED, FailureClass.STALLED)
        assert first.reason is not None
        assert first.reason.startswith("No progress for 245 s, where a step takes about 20 s.")
        assert bench.cluster.replaced == [card], "a fresh worker tests the card"
        assert bench.cluster.starts[1][0] == card, "what may pass gets one more try on the same card"
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")

    run(story)


def test_a_worker_that_does_not_even_stop_is_ended_after_a_grace(run: Run) -> None:
    """Complaint 12. The grace is two steps: a cancel takes hold between two of them."""

    async def story(bench: Bench) -> None:
        job, card = await standing_still(bench, stubborn=True)
        bench.clock.move(2 * 20.0 - 1)
        await bench.until(lambda: bench.status(job) == JobStatus.RUNNING, "still within the grace")
        assert bench.cluster.replaced == []
        bench.clock.move(2.0)
        await bench.until(lambda: bench.cluster.replaced == [card], "its process is ended")
        await given(bench, 2)
        (first, _) = bench.store.reader.attempts(job.id)
        assert "It did not stop when told to." in (first.reason or "")

    run(story)


def test_a_scheduler_that_is_killed_while_it_stops_a_worker_does_not_cancel_the_job(run: Run) -> None:
    """Its successor heard "cancelled", knew of no reason, and took it for a person's wish."""

    async def story(bench: Bench) -> None:
        job, card = await standing_still(bench, stubborn=True)
        await bench.crash()
        bench.cluster.say(card, lambda name, seq: events.Cancelled(name, seq, 0.0))
        await bench.start()
        await given(bench, 2)
        first, _ = bench.store.reader.attempts(job.id)
        assert first.failure_class is FailureClass.STALLED
        assert (first.reason or "").startswith("It was told to stop for making no progress")

    run(story)


def test_a_clip_that_comes_while_its_worker_is_told_to_stop_is_taken(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        job, card = await standing_still(bench, stubborn=True)
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished")
        assert bench.tries(job) == [AttemptStatus.FINISHED]
        assert bench.cluster.replaced == []

    run(story)


def test_a_model_may_take_long_to_load_but_not_for_ever(run: Run) -> None:
    """Complaint 12. Before the first step there is nothing to count by."""

    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        job = bench.submit()
        await bench.start()
        card, _ = await given(bench)
        bench.cluster.say(card, lambda name, seq: events.Loading(name, seq, 0.0))
        await bench.until(lambda: bench.tries(job) == [AttemptStatus.LOADING], "loads")
        for _ in range(3):
            bench.clock.move(LEAST_S)
            await bench.until(lambda: bool(bench.free()) is False, "looked at")
        assert bench.cluster.workers[card].cancelled == set()
        bench.clock.move(WHOLE_S)
        await bench.until(lambda: bench.cluster.replaced == [card], "stopped")
        await given(bench, 2)
        (first, _) = bench.store.reader.attempts(job.id)
        assert first.failure_class is FailureClass.STALLED

    run(story)


def test_a_person_s_cancel_of_a_worker_that_stands_still_ends_the_job(run: Run) -> None:
    """The worker stops because of both; the person's wish counts."""

    async def story(bench: Bench) -> None:
        job, card = await standing_still(bench, stubborn=True)
        bench.store.requests.ask(RequestKind.CANCEL, job.id, 5.0)
        bench.clock.move(GRACE_S + 60.0)
        await bench.until(lambda: bench.status(job) == JobStatus.CANCELLED, "cancelled")
        assert bench.cluster.replaced == [card]

    run(story)


# --- late results ---
async def lost_with_its_node(bench: Bench, clip: tuple[bytes, bytes], *, others: int = 0) -> tuple[Job, str]:
    """A job whose attempt was lost with its node; the clip is complete on that node's disk."""
    (card,) = bench.cluster.add_node("n1")
    job = bench.submit()
    await bench.start()
    _, attempt = await given(bench)
    if others:
        bench.cluster.add_node("n2", others)
    bench.cluster.gone.add("n1")
    bench.cluster.done(card, *clip)
    await bench.until(lambda: card not in bench.free(), "silent")
    bench.clock.move(31.0)
    await bench.until(lambda: bench.tries(job)[0] == AttemptStatus.LOST, "lost")
    return job, attempt


def test_the_complete_clip_of_a_lost_attempt_is_taken_when_its_node_comes_back(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    """Complaint 4: a result that was finished was thrown away, or waited for for ever (ComfyUI-Distributed#9)."""

    async def story(bench: Bench) -> None:
        job, attempt = await lost_with_its_node(bench, clip)
        assert bench.status(job) == JobStatus.QUEUED
        bench.cluster.cards["n1"][0:] = [replace(card, trouble="hot") for card in bench.cluster.cards["n1"]]
        bench.cluster.gone.clear()
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "taken late")
        (only,) = bench.store.reader.attempts(job.id)
        assert (only.id, only.status, only.failure_class) == (attempt, AttemptStatus.FINISHED, None)
        assert only.notes[-1].startswith("It was held for lost: ")
        await bench.until(lambda: attempt in bench.cluster.forgotten, "its node may forget it")
        assert [line.what for line in bench.store.reader.story(job.id)].count("finished") == 1

    run(story)


def test_a_job_is_not_begun_anew_while_its_late_clip_is_fetched(run: Run, clip: tuple[bytes, bytes]) -> None:
    """The node's own card was free at the same moment, and began the job that it had just brought."""

    async def story(bench: Bench) -> None:
        job, _ = await lost_with_its_node(bench, clip)
        read, go = bench.cluster.read, asyncio.Event()

        async def slowly(node_id: str, attempt_id: str, name: str) -> bytes:
            await go.wait()
            return await read(node_id, attempt_id, name)

        bench.cluster.read = slowly  # type: ignore[method-assign]  # the clip is long
        bench.cluster.gone.clear()
        await bench.until(lambda: bool(bench.free()), "its card is free")
        other = bench.submit()
        await given(bench, 2)
        assert bench.cluster.starts[1][1].job_id == other.id, "the card takes the next job"
        go.set()
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "taken late")
        assert len(bench.store.reader.attempts(job.id)) == 1

    run(story)


def test_a_job_whose_late_clip_cannot_be_used_is_begun_anew(run: Run, clip: tuple[bytes, bytes]) -> None:
    async def story(bench: Bench) -> None:
        job, _ = await lost_with_its_node(bench, (clip[0][:200], clip[1]))
        bench.cluster.gone.clear()
        await given(bench, 2)
        assert bench.tries(job)[0] == AttemptStatus.LOST

    run(story)


def test_a_late_clip_stops_the_attempt_that_another_card_is_at(run: Run, clip: tuple[bytes, bytes]) -> None:
    """Complaint 4: the same frame silently on two hosts (OpenCue#2438)."""

    async def story(bench: Bench) -> None:
        job, _ = await lost_with_its_node(bench, clip, others=1)
        card, second = await given(bench, 2)
        bench.cluster.gone.clear()
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "taken late")
        await bench.until(lambda: second in bench.cluster.workers[card].cancelled, "the other is stopped")
        await bench.until(lambda: card in bench.free(), "and its card takes the next job")
        assert bench.tries(job) == [AttemptStatus.FINISHED, AttemptStatus.CANCELLED]
        assert bench.status(job) == JobStatus.FINISHED

    run(story)


def test_a_late_clip_of_a_job_that_is_finished_changes_nothing(run: Run, clip: tuple[bytes, bytes]) -> None:
    """Complaint 4. Exactly once: the node is told to forget it."""

    async def story(bench: Bench) -> None:
        job, attempt = await lost_with_its_node(bench, clip, others=1)
        card, _ = await given(bench, 2)
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(job) == JobStatus.FINISHED, "finished elsewhere")
        bench.cluster.gone.clear()
        await bench.until(lambda: attempt in bench.cluster.forgotten, "forgotten")
        assert bench.tries(job) == [AttemptStatus.LOST, AttemptStatus.FINISHED]
        assert [line.what for line in bench.store.reader.story(job.id)].count("finished") == 1

    run(story)


def test_a_late_clip_that_is_damaged_is_not_taken(run: Run, clip: tuple[bytes, bytes]) -> None:
    async def story(bench: Bench) -> None:
        job, attempt = await lost_with_its_node(bench, clip, others=1)
        await given(bench, 2)
        worker = next(one for one in bench.cluster.workers.values() if attempt in one.said)
        worker.files[attempt, "video.mp4"] = b"damaged"
        bench.cluster.gone.clear()
        await bench.until(lambda: attempt in bench.cluster.forgotten, "forgotten")
        assert bench.tries(job)[0] == AttemptStatus.LOST
        assert bench.status(job) == JobStatus.RUNNING

    run(story)


# --- cards that fail one job after the other ---
async def fail_jobs(bench: Bench, number: int, kind: FailureClass) -> list[Job]:
    """So many jobs fail, one after the other, on the only card."""
    jobs = []
    for _ in range(number):
        jobs.append(bench.submit())
        card, _ = await given(bench, len(bench.cluster.starts) + 1)
        bench.cluster.fail(card, kind, "It broke.")
        await bench.until(lambda: bench.status(jobs[-1]) == JobStatus.FAILED, "failed")
    return jobs


@pytest.mark.parametrize("kind", [FailureClass.OUT_OF_MEMORY, FailureClass.CARD_FAULT])
def test_a_card_that_fails_three_jobs_is_paused_tested_and_comes_back(run: Run, kind: FailureClass) -> None:
    """Complaint 6: out-of-memory cascades; halt the worker after several (AI-Horde-Worker PR#263)."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        await bench.start()
        await fail_jobs(bench, 2, kind)
        await bench.until(lambda: bench.free() == {card}, "two may be the jobs' fault")
        await fail_jobs(bench, 1, kind)
        await bench.until(lambda: live(bench, card)[0] == "paused", "paused")
        why = "3 jobs in a row failed here, the last one so: It broke. It gets work again once it has passed a test."
        assert live(bench, card) == ("paused", why)
        assert [one.paused for one in bench.store.reader.cards()] == [why]
        job = bench.submit()
        await bench.crash()
        await bench.start()  # a restarted scheduler knows of it, and counts the wait anew
        await bench.until(lambda: live(bench, card)[0] == "paused", "still paused")
        assert bench.cluster.replaced == []
        bench.clock.move(PROBE_AFTER_S)
        await bench.until(lambda: bench.cluster.replaced == [card], "a fresh worker tests it")
        await given(bench, 4)
        assert bench.status(job) == JobStatus.RUNNING
        assert [one.paused for one in bench.store.reader.cards()] == [None]

    run(story)


def test_a_card_that_does_not_pass_its_test_stays_paused_until_it_does(run: Run) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        await bench.start()
        await fail_jobs(bench, 3, FailureClass.CARD_FAULT)
        await bench.until(lambda: live(bench, card)[0] == "paused", "paused")
        (report,) = bench.cluster.cards["n1"]
        bench.cluster.cards["n1"] = [replace(report, trouble="it computes wrongly")]
        bench.clock.move(PROBE_AFTER_S)
        await bench.until(lambda: bench.cluster.replaced == [card], "tested")
        await bench.until(lambda: live(bench, card) == ("trouble", "it computes wrongly"), "found wanting")
        assert bench.store.reader.cards()[0].paused is not None
        bench.cluster.cards["n1"] = [report]
        await bench.until(lambda: bench.free() == {card}, "mended")
        assert bench.store.reader.cards()[0].paused is None

    run(story)


def test_a_finished_job_in_between_clears_a_card_of_what_failed_before(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        await bench.start()
        await fail_jobs(bench, 2, FailureClass.CARD_FAULT)
        good = bench.submit()
        await given(bench, 3)
        bench.clock.move(1.0)
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(good) == JobStatus.FINISHED, "finished")
        bench.clock.move(1.0)
        await fail_jobs(bench, 2, FailureClass.CARD_FAULT)
        await bench.until(lambda: bench.free() == {card}, "not paused")

    run(story)


def test_memory_that_a_game_held_is_held_neither_against_the_card_nor_for_good(run: Run) -> None:
    """Complaint 5: the owner's game held the memory, and the card was ruled out for the job for good (sheepit-client#168)."""

    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        await bench.start()
        jobs = []
        for number in range(1, 4):
            jobs.append(bench.submit())
            await given(bench, number)
            bench.cluster.say(
                card,
                lambda name, seq: events.Failed(
                    name, seq, 0.0, FailureClass.OUT_OF_MEMORY, "game.exe holds it.", disturbed=True
                ),
            )
            await bench.until(lambda: bench.status(jobs[-1]) == JobStatus.QUEUED, "waits")
        await bench.until(lambda: bench.free() == {card}, "the card is not paused")
        assert [bench.store.reader.job(job.id).unplaceable for job in jobs] == [None] * 3
        await bench.crash()
        await bench.start()
        await bench.until(lambda: bench.free() == {card}, "a restarted scheduler stays away too")
        assert len(bench.cluster.starts) == 3
        bench.clock.move(REST_S)
        await given(bench, 4)
        assert bench.cluster.starts[3][1].job_id == jobs[0].id

    run(story)


def add_gpu(bench: Bench, node_id: str, name: str, gib: float, capability: tuple[int, int]) -> str:
    (card,) = bench.cluster.add_node(node_id)
    bench.cluster.cards[node_id] = [
        CardReport(card, CardKind.CUDA, name, gib, gib - 0.6, capability, ("i2vgen-xl",))
    ]
    return card


def test_a_job_that_ran_out_of_memory_goes_to_a_larger_card_and_no_equal_one(run: Run) -> None:
    """It ran out on three cards of 6 GB, and was given up although there was one of 12 GB."""

    async def story(bench: Bench) -> None:
        standard = {
            "model": "i2vgen-xl",
            "prompt": "waves",
            "width": 512,
            "height": 512,
            "frames": 16,
            "guidance": 9.0,
        }
        small = {add_gpu(bench, f"n{number}", "RTX 2060", 6.0, (7, 5)) for number in range(3)}
        large = add_gpu(bench, "n9", "RTX 3060", 12.0, (8, 6))
        await bench.start()
        await bench.until(lambda: bench.free() == {*small, large}, "all are there")
        bench.submit(**standard, steps=500)
        assert (await given(bench, 1))[0] == large
        job = bench.submit(**standard, steps=50)
        card, _ = await given(bench, 2)
        assert card in small
        bench.cluster.fail(card, FailureClass.OUT_OF_MEMORY, "Too small.")
        await bench.until(lambda: bench.status(job) == JobStatus.QUEUED, "waits for the larger one")
        await bench.until(lambda: bench.free() == small, "and not for want of another")
        await bench.crash()
        await bench.start()
        await bench.until(lambda: bench.free() == small, "also for a restarted scheduler")
        assert len(bench.cluster.starts) == 2
        bench.cluster.fail(large, FailureClass.BAD_INPUT, "Cannot be read.")
        assert (await given(bench, 3))[0] == large
        bench.cluster.fail(large, FailureClass.OUT_OF_MEMORY, "Too small as well.")
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "no card is larger")
        assert bench.store.reader.job(job.id).failure == "RTX 2060: Too small.; RTX 3060: Too small as well."

    run(story)


# --- jobs that no card is left for ---
def test_a_job_fails_with_all_reasons_when_only_cards_are_left_that_it_failed_on(run: Run) -> None:
    """Complaint 3: it would wait for ever for a card that is gone."""

    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        (other,) = bench.cluster.add_node("n2")
        bench.cluster.gone.add("n2")
        bench.store.registry.see_node(*_as_stored(bench, "n2"), bench.clock.now())
        await bench.start()
        job = bench.submit()
        card, _ = await given(bench)
        bench.cluster.fail(card, FailureClass.OUT_OF_MEMORY, "Too small.")
        await bench.until(lambda: bench.status(job) == JobStatus.QUEUED, "waits for the other, which is off")
        bench.store.requests.ask_node(RequestKind.FORGET, "n2", 5.0)
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "given up")
        assert bench.store.reader.job(job.id).failure == "CPU 0 of n1: Too small."
        assert other not in {one.id for one in bench.store.reader.cards()}

    run(story)


def test_a_job_waits_for_a_card_that_is_in_trouble_and_not_for_one_that_its_pc_no_longer_has(
    run: Run,
) -> None:
    async def story(bench: Bench) -> None:
        first, other = bench.cluster.add_node("n1", cards=2)
        one, two = bench.cluster.cards["n1"]
        bench.cluster.cards["n1"] = [one, replace(two, trouble="too hot")]
        await bench.start()
        await bench.until(lambda: live(bench, other)[0] == "trouble", "in trouble")
        job = bench.submit()
        await given(bench)
        bench.cluster.fail(first, FailureClass.OUT_OF_MEMORY, "Too small.")
        await bench.until(lambda: bench.status(job) == JobStatus.QUEUED, "waits for it")
        bench.cluster.cards["n1"] = [one]
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "given up once it is gone")

    run(story)


def test_a_card_that_was_not_heard_from_for_a_week_is_no_hope(run: Run) -> None:
    """Cards that are gone for good counted as cards that could still take a job."""

    async def story(bench: Bench) -> None:
        bench.cluster.add_node("n1")
        bench.cluster.add_node("n2")
        bench.cluster.gone.add("n2")
        bench.store.registry.see_node(*_as_stored(bench, "n2"), bench.clock.now())
        bench.clock.move(GONE_AFTER_S + 1)
        await bench.start()
        job = bench.submit()
        card, _ = await given(bench)
        bench.cluster.fail(card, FailureClass.OUT_OF_MEMORY, "Too small.")
        await bench.until(lambda: bench.status(job) == JobStatus.FAILED, "given up at once")

    run(story)


def _as_stored(bench: Bench, node_id: str) -> tuple[Node, list[Card]]:
    cards = [
        Card(one.id, node_id, one.kind, one.name, models=frozenset(one.models))
        for one in bench.cluster.cards[node_id]
    ]
    return Node(node_id, node_id, "127.0.0.1"), cards


# --- drains ---
def test_a_drained_pc_ends_its_job_and_takes_no_new_one_also_over_a_restart(
    run: Run, clip: tuple[bytes, bytes]
) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        first = bench.submit()
        await bench.start()
        await given(bench)
        bench.store.requests.ask_node(RequestKind.DRAIN, "n1", 5.0)
        await bench.until(lambda: live(bench, card)[1] is not None, "drained")
        assert live(bench, card)[0] == "busy"
        second = bench.submit()
        bench.cluster.done(card, *clip)
        await bench.until(lambda: bench.status(first) == JobStatus.FINISHED, "the job was finished")
        await bench.until(lambda: live(bench, card)[0] == "drained", "shown")
        bench.clock.move(EVERY_S)
        await bench.until(lambda: waits(bench).endswith("which is drained."), "the job says so too")
        await bench.crash()
        await bench.start()
        await bench.until(lambda: live(bench, card)[0] == "drained", "remembered")
        assert bench.status(second) == JobStatus.QUEUED
        bench.store.requests.ask_node(RequestKind.RESUME, "n1", 6.0)
        await given(bench, 2)
        assert bench.status(second) == JobStatus.RUNNING

    run(story)


def test_resuming_a_pc_ends_the_pauses_of_its_cards(run: Run) -> None:
    async def story(bench: Bench) -> None:
        (card,) = bench.cluster.add_node("n1")
        await bench.start()
        await fail_jobs(bench, 3, FailureClass.CARD_FAULT)
        await bench.until(lambda: live(bench, card)[0] == "paused", "paused")
        bench.clock.move(1.0)
        bench.store.requests.ask_node(RequestKind.RESUME, "n1", 6.0)
        await bench.until(lambda: bench.free() == {card}, "a person knows better")
        await fail_jobs(bench, 2, FailureClass.CARD_FAULT)
        await bench.until(lambda: bench.free() == {card}, "what failed before counts no longer")

    run(story)
