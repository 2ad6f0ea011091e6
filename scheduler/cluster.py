"""What the scheduler needs of the machines, whoever carries it. `ray_cluster` is the real one; tests have one in memory."""

from typing import Protocol

from farm.events import Event
from farm.wire import NodeReport, Order


class NodeGoneError(Exception):
    """The node does not answer."""


class WorkerGoneError(Exception):
    """The card's worker process ended."""


class UnknownAttemptError(Exception):
    """The worker and its spool know nothing of the attempt."""


class CardBusyError(Exception):
    """The card works on another attempt, `holder`."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class Cluster(Protocol):
    """The nodes of the farm. Every call may raise `NodeGoneError`; those to a worker also `WorkerGoneError`."""

    async def nodes(self) -> set[str]:
        """The ids of the nodes that are connected now."""
        ...

    async def report(self, node_id: str, hold_s: float = 0.0) -> NodeReport:
        """What a node says of itself; starts its agent where there is none.

        A node that has nothing to say that it did not say before, and no work, may take `hold_s` with its answer.
        """
        ...

    async def start(
        self, node_id: str, card_id: str, order: Order, picture: bytes, checkpoint: bytes | None = None
    ) -> None:
        """Begins an attempt, from a checkpoint where there is one. Raises `CardBusyError` if another one holds the card."""
        ...

    async def follow(
        self, node_id: str, card_id: str, attempt_id: str, after: int, wait_s: float
    ) -> list[Event]:
        """Events above number `after`, waiting up to `wait_s` for the first. Raises `UnknownAttemptError`."""
        ...

    async def replay(self, node_id: str, attempt_id: str, after: int) -> list[Event]:
        """Events from the node's spool, when the worker is gone."""
        ...

    async def cancel(self, node_id: str, card_id: str, attempt_id: str) -> None:
        """Asks an attempt to stop."""
        ...

    async def replace_worker(self, node_id: str, card_id: str) -> None:
        """Ends the process of a card's worker, whatever it is at; the node's next report starts another."""
        ...

    async def read(self, node_id: str, attempt_id: str, name: str) -> bytes:
        """A file of an attempt's spool."""
        ...

    async def forget(self, node_id: str, attempt_ids: list[str]) -> None:
        """Lets the node remove attempts from its spool."""
        ...
