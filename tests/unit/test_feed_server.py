"""The live feed's socket: snapshot first, then messages; nobody holds up anybody."""

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from farm.feed import CardChanged, FeedMessage, JobChanged, LiveCard, LiveJob, Snapshot, from_line
from scheduler import feed_server
from scheduler.feed_server import FeedServer

LIMIT_S = 10.0
CARD = LiveCard("CPU-n1", "n1", "attic", "CPU", "idle")
SNAPSHOT = Snapshot(jobs=(LiveJob("J1", "running", done=3, total=8),), cards=(CARD,))


@asynccontextmanager
async def serving(path: Path, wake: Callable[[], None] = lambda: None) -> AsyncIterator[FeedServer]:
    server = FeedServer(path, lambda: SNAPSHOT, wake)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Reader:
    """One connected reader."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path: Path) -> "Reader":
        return cls(*await asyncio.open_unix_connection(str(path)))

    async def line(self) -> bytes:
        return await asyncio.wait_for(self._reader.readline(), LIMIT_S)

    async def message(self) -> FeedMessage:
        return from_line(await self.line())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.005)


def test_each_reader_gets_a_snapshot_and_then_what_happens(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path / "sub" / "feed.sock") as server:
            assert stat.S_IMODE((tmp_path / "sub" / "feed.sock").stat().st_mode) == 0o600
            readers = [await Reader.connect(tmp_path / "sub" / "feed.sock") for _ in range(3)]
            assert [await reader.message() for reader in readers] == [SNAPSHOT] * 3
            told = [JobChanged(LiveJob("J1", "finished")), CardChanged(CARD)]
            for message in told:
                server.publish(message)
            for reader in readers:
                assert [await reader.message(), await reader.message()] == told
                reader.writer.close()

    asyncio.run(story())


def test_a_reader_s_wake_is_heard_and_other_words_are_not(tmp_path: Path) -> None:
    woken: list[int] = []

    async def story() -> None:
        async with serving(tmp_path / "feed.sock", lambda: woken.append(1)):
            reader = await Reader.connect(tmp_path / "feed.sock")
            reader.writer.write(b"hello\n\nwake\nwake")  # the last one is not finished
            await reader.writer.drain()
            await until(lambda: len(woken) == 1)
            reader.writer.write(b"\n")
            await until(lambda: len(woken) == 2)
            reader.writer.close()

    asyncio.run(story())
    assert len(woken) == 2


def test_a_reader_that_does_not_read_is_dropped_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_server, "MAX_BEHIND", 64 * 1024)

    async def story() -> None:
        async with serving(tmp_path / "feed.sock") as server:
            with socket.socket(socket.AF_UNIX) as lazy:
                lazy.connect(str(tmp_path / "feed.sock"))
                good = await Reader.connect(tmp_path / "feed.sock")
                assert await good.message() == SNAPSHOT
                await until(lambda: len(server._readers) == 2)
                long = "x" * 8000
                for number in range(500):
                    server.publish(JobChanged(LiveJob("J1", "running", done=number, why=long)))
                    message = await good.message()
                    assert isinstance(message, JobChanged)
                    assert message.job.done == number
                assert len(server._readers) == 1
                lazy.settimeout(LIMIT_S)
                received = 0
                with suppress(ConnectionError):  # cut, or ended; a connection left hanging is a TimeoutError
                    while data := lazy.recv(1 << 20):
                        received += len(data)
                assert received < 500 * 8000
                good.writer.close()

    asyncio.run(story())


def test_a_reader_that_left_is_forgotten(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path / "feed.sock") as server:
            reader = await Reader.connect(tmp_path / "feed.sock")
            await reader.message()
            reader.writer.close()
            await until(lambda: not server._readers)
            server.publish(CardChanged(CARD))

    asyncio.run(story())


def test_a_reader_that_sends_a_line_without_end_is_dropped_quietly(tmp_path: Path) -> None:
    """A line above 64 KiB ended the reader's task with an unhandled ValueError."""
    surprises: list[object] = []

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: surprises.append(context))
        async with serving(tmp_path / "feed.sock") as server:
            reader = await Reader.connect(tmp_path / "feed.sock")
            await reader.message()
            reader.writer.write(b"x" * 200_000)
            await until(lambda: not server._readers)
            reader.writer.close()

    asyncio.run(story())
    assert surprises == []


def test_the_socket_of_a_killed_scheduler_is_replaced_and_ours_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "feed.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as attempt:
        attempt.connect(str(path))

    async def story() -> None:
        async with serving(path):
            reader = await Reader.connect(path)
            assert await reader.message() == SNAPSHOT
            reader.writer.close()

    asyncio.run(story())
    assert not path.exists()


def test_stopping_lets_the_readers_go(tmp_path: Path) -> None:
    async def story() -> None:
        async with serving(tmp_path / "feed.sock"):
            reader = await Reader.connect(tmp_path / "feed.sock")
            await reader.message()
        assert await reader.line() == b""
        reader.writer.close()

    asyncio.run(story())
