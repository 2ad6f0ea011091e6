"""The fakes, held to what the real parts do: a fake that is kinder than the machines hides faults."""

import asyncio
import hashlib
import inspect
from collections.abc import Awaitable, Callable

import pytest

from farm import events
from farm.clock import Clock, SystemClock
from farm.model import FailureClass, MemoryPlan, StageKind
from farm.wire import Order
from scheduler.cluster import CardBusyError, Cluster, NodeGoneError, UnknownAttemptError, WorkerGoneError
from tests.fakes import FakeCluster, MovedClock
from tests.storage import SETTINGS

PICTURE = b"a picture"
DIGEST = hashlib.sha256(PICTURE).hexdigest()


def order(name: str = "A1") -> Order:
    return Order(name, "J1", StageKind.GENERATE, SETTINGS, MemoryPlan(), DIGEST)


def cluster(cards: int = 1) -> FakeCluster:
    made = FakeCluster()
    made.add_node("n1", cards=cards)
    return made


def test_the_cluster_has_every_call_of_the_protocol_with_its_arguments() -> None:
    names = [name for name, _ in inspect.getmembers(Cluster, inspect.isfunction) if not name.startswith("_")]
    assert len(names) >= 8
    for name in names:
        real, fake = (inspect.signature(getattr(kind, name)) for kind in (Cluster, FakeCluster))
        assert list(fake.parameters) == list(real.parameters), name


def test_the_clock_stands_until_it_is_moved() -> None:
    clock: Clock = MovedClock(5.0)
    assert (clock.now(), clock.monotonic()) == (5.0, 5.0)
    clock.move(2.5)
    assert (clock.now(), clock.monotonic()) == (7.5, 7.5)
    for name in ("now", "monotonic"):
        real, fake = (inspect.signature(getattr(kind, name)) for kind in (SystemClock, MovedClock))
        assert fake == real


def test_a_started_card_holds_its_attempt_until_the_last_word() -> None:
    async def story() -> None:
        made = cluster()
        await made.start("n1", "CPU-n1-0", order(), PICTURE)
        await made.start("n1", "CPU-n1-0", order(), PICTURE)
        assert len(made.starts) == 1, "starting again changes nothing"
        with pytest.raises(CardBusyError, match="A1"):
            await made.start("n1", "CPU-n1-0", order("A2"), PICTURE)
        made.say("CPU-n1-0", lambda name, seq: events.Loading(name, seq, 0.0))
        with pytest.raises(CardBusyError):
            await made.start("n1", "CPU-n1-0", order("A2"), PICTURE)
        made.fail("CPU-n1-0", FailureClass.CARD_FAULT, "Hot.")
        await made.start("n1", "CPU-n1-0", order("A2"), PICTURE)
        told = await made.follow("n1", "CPU-n1-0", "A1", 0, 1.0)
        assert [(event.kind, event.seq) for event in told] == [("loading", 1), ("failed", 2)]
        assert await made.follow("n1", "CPU-n1-0", "A1", 1, 1.0) == told[1:]
        assert await made.replay("n1", "A1", 1) == told[1:]

    asyncio.run(story())


def test_a_follower_wakes_at_what_is_said_and_gives_up_at_its_limit() -> None:
    async def story() -> None:
        made = cluster()
        await made.start("n1", "CPU-n1-0", order(), PICTURE)
        assert await made.follow("n1", "CPU-n1-0", "A1", 0, 0.01) == []
        follower = asyncio.create_task(made.follow("n1", "CPU-n1-0", "A1", 0, 10.0))
        await asyncio.sleep(0)
        made.say("CPU-n1-0", lambda name, seq: events.Rendering(name, seq, 0.0))
        assert [event.kind for event in await asyncio.wait_for(follower, 5)] == ["rendering"]

    asyncio.run(story())


Call = Callable[[FakeCluster], Awaitable[object]]
CALLS: dict[str, Call] = {
    "start": lambda made: made.start("n1", "CPU-n1-0", order(), PICTURE),
    "follow": lambda made: made.follow("n1", "CPU-n1-0", "A1", 0, 0.01),
    "cancel": lambda made: made.cancel("n1", "CPU-n1-0", "A1"),
    "replay": lambda made: made.replay("n1", "A1", 0),
    "read": lambda made: made.read("n1", "A1", "video.mp4"),
    "forget": lambda made: made.forget("n1", ["A1"]),
    "report": lambda made: made.report("n1"),
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_no_call_reaches_a_node_that_is_gone(name: str) -> None:
    made = cluster()
    made.gone.add("n1")
    with pytest.raises(NodeGoneError):
        asyncio.run(_awaited(CALLS[name], made))
    assert asyncio.run(made.nodes()) == set()


@pytest.mark.parametrize("name", ["start", "follow", "cancel"])
def test_a_dead_worker_answers_nothing_until_its_node_has_reported(name: str) -> None:
    made = cluster()
    asyncio.run(made.start("n1", "CPU-n1-0", order(), PICTURE))
    made.say("CPU-n1-0", lambda attempt, seq: events.Loading(attempt, seq, 0.0))
    made.kill_worker("CPU-n1-0")
    with pytest.raises(WorkerGoneError):
        asyncio.run(_awaited(CALLS[name], made))
    assert len(asyncio.run(made.replay("n1", "A1", 0))) == 1, "its spool is still there"
    asyncio.run(made.report("n1"))
    asyncio.run(_awaited(CALLS[name], made))


async def _awaited(call: Call, made: FakeCluster) -> object:
    return await call(made)


def test_a_finished_clip_can_be_fetched_and_is_forgotten_when_told() -> None:
    async def story() -> None:
        made = cluster(cards=2)
        await made.start("n1", "CPU-n1-1", order(), PICTURE)
        made.done("CPU-n1-1", b"video", b"thumb")
        (done,) = await made.follow("n1", "CPU-n1-1", "A1", 0, 1.0)
        assert isinstance(done, events.Done)
        video = await made.read("n1", "A1", done.video.name)
        assert hashlib.sha256(video).hexdigest() == done.video.sha256
        assert len(video) == done.video.size
        assert (await made.report("n1")).spooled == ("A1",)
        await made.forget("n1", ["A1"])
        assert (await made.report("n1")).spooled == ()
        assert made.forgotten == ["A1"]
        with pytest.raises(UnknownAttemptError):
            await made.follow("n1", "CPU-n1-1", "A1", 0, 0.01)
        with pytest.raises(UnknownAttemptError):
            await made.read("n1", "A1", "video.mp4")

    asyncio.run(story())


def test_a_cancel_ends_the_attempt_under_way_and_no_other() -> None:
    async def story() -> None:
        made = cluster()
        await made.start("n1", "CPU-n1-0", order(), PICTURE)
        await made.cancel("n1", "CPU-n1-0", "A9")
        assert await made.follow("n1", "CPU-n1-0", "A1", 0, 0.01) == []
        await made.cancel("n1", "CPU-n1-0", "A1")
        assert [event.kind for event in await made.follow("n1", "CPU-n1-0", "A1", 0, 0.01)] == ["cancelled"]

    asyncio.run(story())


def test_a_clip_may_claim_to_be_another() -> None:
    made = cluster()
    asyncio.run(made.start("n1", "CPU-n1-0", order(), PICTURE))
    made.done("CPU-n1-0", b"video", b"thumb", claim=b"other")
    (done,) = asyncio.run(made.replay("n1", "A1", 0))
    assert isinstance(done, events.Done)
    assert done.video.sha256 == hashlib.sha256(b"other").hexdigest()
