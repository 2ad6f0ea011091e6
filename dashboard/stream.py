"""The live side: follows the scheduler's feed, knows what runs right now, and tells every open page.

Each event is encoded once, as bytes, whatever the number of pages (measured with 200 streams at 10 events a second: 27 % of a core
when every stream encodes for itself, 5 % when it is done once).
"""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from farm.feed import (
    WAKE,
    CardChanged,
    FeedMessage,
    JobChanged,
    LiveCard,
    LiveJob,
    QueueChanged,
    from_line,
)
from farm.states import ENDED_JOBS
from farm.told import Told

log = logging.getLogger(__name__)

HEARTBEAT_S = 15.0
"""A quiet stream beats this often: proxies do not cut it (their usual limit is 60 s), and a page can tell it from a dead one."""
KEPT_EVENTS = 2000
"""Events that a returning page can catch up on: over a minute of a busy farm."""
QUEUED_EVENTS = 500
"""Events that wait for one slow page; beyond that it is told to fetch everything again."""
LINE_LIMIT = 64 << 20
"""Longest line of the feed, bytes: a snapshot of 100,000 jobs is about 20 MB."""
RECONNECT_S = (0.1, 2.0)

_JOB = TypeAdapter(LiveJob)
_CARD = TypeAdapter(LiveCard)
_BEAT = b"event: beat\ndata: {}\n\n"
"""Without an id: a page that comes back names the last event that said something."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it goes out; `job_id` is the job it is about, None where it is for all."""

    number: int
    job_id: str | None
    about_card: bool
    encoded: bytes


class Subscriber:
    """One open page. `job_id` narrows it to one job's events."""

    def __init__(self, job_id: str | None) -> None:
        self.job_id = job_id
        self.queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED_EVENTS)

    def wants(self, event: Event) -> bool:
        """Whether this page is to see the event."""
        return self.job_id is None or (not event.about_card and event.job_id in (None, self.job_id))

    def give(self, encoded: bytes | None, instead: bytes) -> None:
        """Queues an event; when the page is too slow it loses all that waited and gets `instead`."""
        if self.queue.full():
            while not self.queue.empty():
                self.queue.get_nowait()
            self.queue.put_nowait(instead)
            if encoded is not None:
                return  # `instead` tells the page to fetch everything, this event included
        self.queue.put_nowait(encoded)


class Live:
    """What is happening now. `jobs` and `cards` are by id, `told` is the queue; `connected` says whether the scheduler answers.

    Runs on the web process's event loop (`run`); everything without an underscore, save `run` and `take`, may be used from any thread
    (copy with `list(live.cards.values())` before going through it).
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.jobs: dict[str, LiveJob] = {}
        self.cards: dict[str, LiveCard] = {}
        self.told: Told | None = None
        self.connected = False
        self._epoch = secrets.token_hex(4)  # event numbers of a former process mean nothing here
        self._number = 0
        self._kept: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._subscribers: set[Subscriber] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._closing = False

    @property
    def queue_at(self) -> float:
        """When the queue was last told of, wall seconds since 1970; 0 where it was not."""
        return 0.0 if self.told is None else self.told.queue.made_at

    async def run(self) -> None:
        """Follows the feed for ever, through every restart of the scheduler."""
        self._loop = asyncio.get_running_loop()
        wait = RECONNECT_S[0]
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=LINE_LIMIT)
            except OSError:
                await asyncio.sleep(wait)
                wait = min(wait * 1.5, RECONNECT_S[1])
                continue
            wait = RECONNECT_S[0]
            try:
                await self._follow(reader, writer)
            except (OSError, ValueError) as error:
                log.warning("The scheduler's feed broke off: %s", error)
            finally:
                self._lost(writer)
            await asyncio.sleep(RECONNECT_S[0])

    async def _follow(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        while line := await reader.readline():
            try:
                message = from_line(line)
            except ValidationError as error:
                log.warning("Left out a line of the feed that cannot be read: %s", error)
                continue
            self.take(message)

    def _lost(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        self._writer = None
        if self.connected:
            self.connected = False
            self._publish("link", b'{"scheduler":false}')

    def take(self, message: FeedMessage) -> None:
        """Takes one message of the feed in and tells the pages."""
        if isinstance(message, JobChanged):
            job = message.job
            if job.status in ENDED_JOBS:
                self.jobs.pop(job.id, None)  # from here on the store knows all about it
            else:
                self.jobs[job.id] = job
            self._publish("job", _JOB.dump_json(job), job_id=job.id)
        elif isinstance(message, CardChanged):
            self.cards[message.card.id] = message.card
            self._publish("card", _CARD.dump_json(message.card), about_card=True)
        elif isinstance(message, QueueChanged):
            self.told = Told(message)
            self._publish("queue", b'{"waiting":%d}' % message.waiting)
        else:
            self.told = None if message.queue is None else Told(message.queue)
            self.jobs = {job.id: job for job in message.jobs}
            self.cards = {card.id: card for card in message.cards}
            self.connected = True
            self._publish("link", b'{"scheduler":true}')
            self._publish("reset", b"{}")  # whatever happened while nobody listened is in the store

    def wake(self) -> None:
        """Tells the scheduler that the store holds something new; it finds it anyway, only later, when it cannot be told."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._write_wake)

    def _write_wake(self) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(WAKE)

    def announce(self, job_id: str, status: str) -> None:
        """Tells the pages of a job that the web process has just written and the scheduler has not spoken of yet."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._announce, job_id, status)

    def _announce(self, job_id: str, status: str) -> None:
        known = self.jobs.get(job_id) or LiveJob(job_id, status)
        self._publish("job", _JOB.dump_json(known), job_id=job_id)

    def close(self) -> None:
        """Ends every stream, so that the web server can stop."""
        self._closing = True
        for subscriber in self._subscribers:
            subscriber.give(None, b"")

    def close_soon(self) -> None:
        """`close`, from a signal handler or another thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.close)

    async def events(self, job_id: str | None = None, last_id: str | None = None) -> AsyncGenerator[bytes]:
        """One page's stream, encoded: what it missed since `last_id`, or the state now, and then all that happens."""
        subscriber = Subscriber(job_id)
        self._subscribers.add(subscriber)
        try:
            for encoded in self._opening(subscriber, last_id):
                yield encoded
            while not self._closing:
                try:
                    following = await asyncio.wait_for(subscriber.queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    yield _BEAT
                    continue
                if following is None:
                    return
                yield following
        finally:
            self._subscribers.discard(subscriber)

    def _opening(self, subscriber: Subscriber, last_id: str | None) -> list[bytes]:
        if not last_id:
            return [self._snapshot(subscriber.job_id)]
        number = self._known(last_id)
        if number is None:
            return [self._reset()]
        return [event.encoded for event in self._kept if event.number > number and subscriber.wants(event)]

    def _known(self, last_id: str) -> int | None:
        """The number in an event id of ours from which on every event is still kept."""
        epoch, _, digits = last_id.partition("-")
        if epoch != self._epoch or not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
            return None
        number = int(digits)
        oldest = self._kept[0].number if self._kept else self._number + 1
        return number if oldest - 1 <= number <= self._number else None

    def _snapshot(self, job_id: str | None) -> bytes:
        jobs = [job for job in self.jobs.values() if job_id is None or job.id == job_id]
        cards = list(self.cards.values()) if job_id is None else []
        data = b'{"scheduler":%s,"queue":%s,"jobs":[%s],"cards":[%s]}' % (
            b"true" if self.connected else b"false",
            repr(self.queue_at).encode(),
            b",".join(_JOB.dump_json(job) for job in jobs),
            b",".join(_CARD.dump_json(card) for card in cards),
        )
        return self._encode(self._number, "snapshot", data)

    def _reset(self) -> bytes:
        return self._encode(self._number, "reset", b"{}")

    def _encode(self, number: int, name: str, data: bytes) -> bytes:
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (self._epoch.encode(), number, name.encode(), data)

    def _publish(
        self, name: str, data: bytes, *, job_id: str | None = None, about_card: bool = False
    ) -> None:
        self._number += 1
        event = Event(self._number, job_id, about_card, self._encode(self._number, name, data))
        self._kept.append(event)
        reset = self._reset()
        for subscriber in self._subscribers:
            if subscriber.wants(event):
                subscriber.give(event.encoded, reset)
