"""Fakes at the edges that cannot be had here: a cluster of cards in memory, and a clock that moves when told. Tested themselves."""

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from farm import events
from farm.events import Event
from farm.model import CardKind, FailureClass
from farm.own_bench import BenchResult
from farm.wire import CardReport, NodeReport, Order
from scheduler.cluster import CardBusyError, NodeGoneError, UnknownAttemptError, WorkerGoneError


@dataclass
class MovedClock:
    """A clock that stands still until it is moved; wall and monotonic time go together."""

    seconds: float = 1000.0

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class FakeWorker:
    """One card's worker: holds at most one live attempt, and says what the test tells it to say."""

    order: Order | None = None
    said: dict[str, list[Event]] = field(default_factory=dict)
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    alive: bool = True


@dataclass
class FakeCluster:
    """Nodes and cards in memory, as `scheduler.cluster.Cluster`. `gone` nodes do not answer.

    `checkpoints` are what the attempts were given to go on from.
    Of cards: `stuck` workers do not answer their node, `stubborn` ones do not stop when told to.
    """

    cards: dict[str, list[CardReport]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    workers: dict[str, FakeWorker] = field(default_factory=dict)
    starts: list[tuple[str, Order]] = field(default_factory=list)
    checkpoints: dict[str, bytes | None] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    replaced: list[str] = field(default_factory=list)
    bench: dict[str, tuple[BenchResult, ...]] = field(default_factory=dict)
    owner_rules: dict[str, str] = field(default_factory=dict)
    on_start: Callable[[str, Order], None] = lambda _card, _order: None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _owed: dict[str, list[list[str]]] = field(default_factory=dict)

    def add_node(self, node_id: str, cards: int = 1, models: tuple[str, ...] = ("animatic",)) -> list[str]:
        """Adds a node with CPU cards; returns the cards' ids."""
        reports = [
            CardReport(f"CPU-{node_id}-{index}", CardKind.CPU, f"CPU {index} of {node_id}", models=models)
            for index in range(cards)
        ]
        self.cards[node_id] = reports
        for report in reports:
            self.workers[report.id] = FakeWorker()
        return [report.id for report in reports]

    # --- what a test makes the workers say ---
    def say(self, card_id: str, make: Callable[[str, int], Event], attempt_id: str | None = None) -> None:
        """The card's worker says something about its attempt; `make` gets the attempt's id and the event's number."""
        worker = self.workers[card_id]
        attempt = attempt_id or (worker.order.attempt_id if worker.order else "")
        said = worker.said.setdefault(attempt, [])
        event = make(attempt, len(said) + 1)
        said.append(event)
        if isinstance(event, events.Done | events.Failed | events.Cancelled):
            worker.order = None
        self._changed.set()

    def done(self, card_id: str, video: bytes, thumbnail: bytes, claim: bytes | None = None) -> None:
        """The worker's clip is complete; with `claim`, it gives the hash of other bytes than it has."""
        worker = self.workers[card_id]
        assert worker.order is not None
        attempt = worker.order.attempt_id
        worker.files[attempt, "video.mp4"] = video
        worker.files[attempt, "thumb.jpg"] = thumbnail
        named = hashlib.sha256(claim if claim is not None else video).hexdigest()
        self.say(
            card_id,
            lambda name, seq: events.Done(
                name,
                seq,
                0.0,
                events.SpooledFile("video.mp4", named, len(video), "video/mp4"),
                events.SpooledFile(
                    "thumb.jpg", hashlib.sha256(thumbnail).hexdigest(), len(thumbnail), "image/jpeg"
                ),
                {"render": 1.0, "encode": 0.5},
                0.25,
            ),
        )

    def fail(
        self, card_id: str, kind: FailureClass = FailureClass.INTERNAL, message: str = "It broke."
    ) -> None:
        """The worker's attempt fails."""
        self.say(card_id, lambda name, seq: events.Failed(name, seq, 0.0, kind, message))

    def kill_worker(self, card_id: str) -> None:
        """The worker's process ends; its spool stays on the node."""
        self.workers[card_id].alive = False
        self.workers[card_id].order = None
        self._changed.set()

    # --- Cluster ---
    def _node_of(self, card_id: str) -> str:
        return next(node for node, cards in self.cards.items() if any(card.id == card_id for card in cards))

    def _worker(self, card_id: str) -> FakeWorker:
        if self._node_of(card_id) in self.gone:
            raise NodeGoneError(card_id)
        worker = self.workers[card_id]
        if not worker.alive:
            raise WorkerGoneError(card_id)
        return worker

    async def nodes(self) -> set[str]:
        return set(self.cards) - self.gone

    async def report(self, node_id: str, hold_s: float = 0.0) -> NodeReport:
        if node_id in self.gone:
            raise NodeGoneError(node_id)
        for attempts in self._owed.pop(node_id, []):
            await self.forget(node_id, attempts)
        for card in self.cards[node_id]:
            self.workers[card.id].alive = True
        cards = tuple(self._heard(card) for card in self.cards[node_id])
        spooled = {attempt for card in self.cards[node_id] for attempt in self.workers[card.id].said}
        return NodeReport(
            node_id,
            node_id,
            "127.0.0.1",
            0.0,
            {},
            cards,
            tuple(sorted(spooled)),
            bench=self.bench.get(node_id),
            owner_rules=self.owner_rules.get(node_id, ""),
        )

    def _heard(self, card: CardReport) -> CardReport:
        order = self.workers[card.id].order
        if card.id in self.stuck:
            return replace(card, answers=False)
        return replace(card, attempt_id=order.attempt_id if order is not None else None)

    async def start(
        self, node_id: str, card_id: str, order: Order, picture: bytes, checkpoint: bytes | None = None
    ) -> None:
        worker = self._worker(card_id)
        if worker.order is not None:
            if worker.order.attempt_id == order.attempt_id:
                return
            raise CardBusyError(worker.order.attempt_id)
        assert hashlib.sha256(picture).hexdigest() == (order.source_sha256 or order.input_sha256)
        worker.order = order
        worker.said.setdefault(order.attempt_id, [])
        self.starts.append((card_id, order))
        self.checkpoints[order.attempt_id] = checkpoint
        self.on_start(card_id, order)

    async def follow(
        self, node_id: str, card_id: str, attempt_id: str, after: int, wait_s: float
    ) -> list[Event]:
        if attempt_id not in self._worker(card_id).said:
            raise UnknownAttemptError(attempt_id)
        while True:
            self._changed.clear()
            found = [event for event in self._worker(card_id).said[attempt_id] if event.seq > after]
            if found:
                return found
            try:
                async with asyncio.timeout(min(wait_s, 0.05)):
                    await self._changed.wait()
            except TimeoutError:
                self._worker(card_id)  # gone meanwhile is gone, not quiet
                return []

    async def replay(self, node_id: str, attempt_id: str, after: int) -> list[Event]:
        if node_id in self.gone:
            raise NodeGoneError(node_id)
        return [
            event
            for card in self.cards[node_id]
            for event in self.workers[card.id].said.get(attempt_id, [])
            if event.seq > after
        ]

    async def cancel(self, node_id: str, card_id: str, attempt_id: str) -> None:
        worker = self._worker(card_id)
        worker.cancelled.add(attempt_id)
        at_it = worker.order is not None and worker.order.attempt_id == attempt_id
        if at_it and card_id not in self.stubborn:
            self.say(card_id, lambda name, seq: events.Cancelled(name, seq, 0.0))

    async def replace_worker(self, node_id: str, card_id: str) -> None:
        if node_id in self.gone:
            raise NodeGoneError(node_id)
        self.replaced.append(card_id)
        self.stuck.discard(card_id)
        self.kill_worker(card_id)

    async def read(self, node_id: str, attempt_id: str, name: str) -> bytes:
        if node_id in self.gone:
            raise NodeGoneError(node_id)
        for card in self.cards[node_id]:
            found = self.workers[card.id].files.get((attempt_id, name))
            if found is not None:
                return found
        raise UnknownAttemptError(attempt_id)

    async def forget(self, node_id: str, attempt_ids: list[str]) -> None:
        if node_id in self.gone:  # as Ray's: a call that got no answer still arrives when the node is back
            self._owed.setdefault(node_id, []).append(attempt_ids)
            raise NodeGoneError(node_id)
        self.forgotten += attempt_ids
        for card in self.cards[node_id]:
            for attempt in attempt_ids:
                worker = self.workers[card.id]
                worker.said.pop(attempt, None)
                worker.files = {key: data for key, data in worker.files.items() if key[0] != attempt}
