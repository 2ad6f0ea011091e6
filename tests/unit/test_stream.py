"""The live side: what a page is told on arriving, while it is there, and on coming back."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import stream
from dashboard.stream import Live
from farm.feed import CardChanged, JobChanged, LiveCard, LiveJob, Snapshot

CARD = LiveCard("CPU-n1", "n1", "attic", "CPU", "idle")


def job(name: str, done: int = 0, status: str = "running") -> JobChanged:
    return JobChanged(LiveJob(name, status, done=done, total=16))


def parse(encoded: bytes) -> tuple[str, str, dict]:
    """An event's id, name and data."""
    lines = dict(line.split(": ", 1) for line in encoded.decode().strip().split("\n"))
    return lines["id"], lines["event"], json.loads(lines["data"])


async def take(events: AsyncIterator[bytes], count: int) -> list[tuple[str, str, dict]]:
    return [parse(await asyncio.wait_for(anext(events), 5)) for _ in range(count)]


def live() -> Live:
    return Live(Path("/nowhere"))


def test_a_new_page_gets_the_state_and_then_the_news():
    async def run() -> None:
        farm = live()
        farm.take(Snapshot((LiveJob("a", "running", done=2, total=16),), (CARD,)))
        events = farm.events()
        ((_, name, data),) = await take(events, 1)
        assert name == "snapshot"
        assert data["scheduler"] is True
        assert [one["id"] for one in data["jobs"]] == ["a"]
        assert [one["name"] for one in data["cards"]] == ["CPU"]
        farm.take(job("a", 3))
        farm.take(CardChanged(CARD))
        got = await take(events, 2)
        assert [(name, data["id"]) for _, name, data in got] == [("job", "a"), ("card", "CPU-n1")]
        assert got[0][2]["done"] == 3

    asyncio.run(run())


def test_a_job_page_sees_its_own_job_only_and_the_link():
    async def run() -> None:
        farm = live()
        farm.take(Snapshot())
        events = farm.events("a")
        await take(events, 1)
        farm.take(job("b"))
        farm.take(CardChanged(CARD))
        farm.take(job("a", 5))
        farm.take(Snapshot())
        got = await take(events, 3)
        assert [name for _, name, _ in got] == ["job", "link", "reset"]
        assert got[0][2]["done"] == 5

    asyncio.run(run())


@given(st.lists(st.sampled_from("abc"), max_size=60), st.data())
def test_a_page_that_comes_back_misses_nothing(names: list[str], data: st.DataObject):
    cut = data.draw(st.integers(0, len(names)))

    async def run() -> None:
        farm = live()
        events = farm.events()
        ((last, _, _),) = await take(events, 1)
        for number, name in enumerate(names[:cut]):
            farm.take(job(name, number))
        if cut:
            last = (await take(events, cut))[-1][0]
        await events.aclose()
        for number, name in enumerate(names[cut:], cut):
            farm.take(job(name, number))
        back = farm.events(last_id=last)
        got = await take(back, len(names) - cut)
        assert [(name, data["id"], data["done"]) for _, name, data in got] == [
            ("job", name, number) for number, name in enumerate(names[cut:], cut)
        ]
        farm.take(job("last"))
        assert (await take(back, 1))[0][2]["id"] == "last"

    asyncio.run(run())


@pytest.mark.parametrize("strange", ["ffffffff-1", "nonsense", "-", "0-²", "-1", "9" * 5000])
def test_an_unknown_last_id_means_fetch_everything(strange: str):
    async def run() -> None:
        farm = live()
        farm.take(job("a"))
        assert [name for _, name, _ in await take(farm.events(last_id=strange), 1)] == ["reset"]

    asyncio.run(run())


def test_ids_of_this_process_that_are_too_old_or_not_yet_given_mean_fetch_everything(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(stream, "KEPT_EVENTS", 5)

    async def run() -> None:
        farm = live()
        ((first, _, _),) = await take(farm.events(), 1)
        epoch = first.split("-")[0]
        for number in range(20):
            farm.take(job("a", number))
        for number, name in ((0, "reset"), (14, "reset"), (15, "job"), (21, "reset")):
            assert (await take(farm.events(last_id=f"{epoch}-{number}"), 1))[0][1] == name, number

    asyncio.run(run())


def test_a_page_that_reads_too_slowly_is_told_to_fetch_everything_and_holds_no_more_than_its_share():
    async def run() -> None:
        farm = live()
        events = farm.events()
        await take(events, 1)
        for number in range(stream.QUEUED_EVENTS + 10):
            farm.take(job("a", number))
        (subscriber,) = farm._subscribers
        assert subscriber.queue.qsize() <= stream.QUEUED_EVENTS
        assert (await take(events, 1))[0][1] == "reset"
        last = (await take(events, 9))[-1]
        assert last[2]["done"] == stream.QUEUED_EVENTS + 9

    asyncio.run(run())


def test_a_quiet_stream_beats_and_closing_ends_it(monkeypatch: pytest.MonkeyPatch):
    """The beat was a comment, which no page hears: one could not tell a quiet farm from a head without power."""
    beat = b"event: beat\ndata: {}\n\n"
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.01)

    async def run() -> None:
        farm = live()
        events = farm.events()
        await take(events, 1)
        assert await asyncio.wait_for(anext(events), 5) == beat
        farm.close()
        while True:
            try:
                left = await asyncio.wait_for(anext(events), 5)
            except StopAsyncIteration:
                break
            assert left == beat
        assert not farm._subscribers

    asyncio.run(run())


def test_ended_jobs_are_forgotten_so_that_memory_does_not_grow():
    farm = live()
    for number in range(5000):
        farm.take(job(f"j{number}"))
        farm.take(job(f"j{number}", status="finished"))
    assert not farm.jobs


def test_a_broken_line_of_the_feed_is_left_out_and_the_next_one_counts(tmp_path: Path):
    async def run() -> None:
        from farm.feed import to_line

        path = tmp_path / "feed.sock"
        woken = asyncio.Event()

        async def scheduler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(to_line(Snapshot()) + b"{nonsense\n" + to_line(job("a", 7)))
            if await reader.readline() == b"wake\n":
                woken.set()
            writer.close()

        server = await asyncio.start_unix_server(scheduler, str(path))
        farm = Live(path)
        following = asyncio.create_task(farm.run())
        events = farm.events()
        await take(events, 1)
        assert [name for _, name, _ in await take(events, 3)] == ["link", "reset", "job"]
        assert farm.connected
        assert farm.jobs["a"].done == 7
        await asyncio.to_thread(farm.wake)  # as request handlers do, from another thread
        await asyncio.wait_for(woken.wait(), 5)
        ((_, name, data),) = await take(events, 1)  # the scheduler hung up
        assert (name, data) == ("link", {"scheduler": False})
        assert not farm.connected
        assert [name for _, name, _ in await take(events, 2)] == ["link", "reset"]  # and it was found again
        following.cancel()
        server.close()

    asyncio.run(run())
