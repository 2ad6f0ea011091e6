"""Writes down what nodes say: all of it when something is new, and of the others, now and then and together, that they were heard."""

from collections.abc import Sequence

from farm.model import Card, Node
from farm.store.registry import Heard, Registry
from farm.wire import NodeReport

STORE_EVERY_S = 10.0
"""How often the `last_seen` of unchanged nodes is written: a write is synced to the disk, and 200 nodes made twenty of them a second."""


class NodeBook:
    """One per scheduler. Times are wall seconds."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._stored: dict[str, object] = {}
        self._heard: dict[str, Heard] = {}
        self._wrote = float("-inf")

    def take(self, report: NodeReport, cards: Sequence[Card], now: float) -> None:
        """A node's report, and its cards as the farm knows them."""
        said = (report.name, report.address, report.owner_rules, tuple(cards))
        if self._stored.get(report.node_id) == said:
            ids = tuple(card.id for card in cards)
            self._heard[report.node_id] = Heard(report.node_id, now, ids, report.ram_free_gib)
            return
        node = Node(
            report.node_id,
            report.name,
            report.address,
            now,
            report.versions,
            report.ram_gib,
            report.ram_free_gib,
            owner_rules=report.owner_rules,
        )
        self._registry.see_node(node, cards, now)
        self._stored[report.node_id] = said
        self._heard.pop(report.node_id, None)

    def write(self, now: float) -> None:
        """Writes who was heard, if it is time."""
        if self._heard and now - self._wrote >= STORE_EVERY_S:
            self._registry.hear_nodes(list(self._heard.values()))
            self._heard, self._wrote = {}, now

    def forget(self, node_id: str) -> None:
        """The node is struck from the lists."""
        self._stored.pop(node_id, None)
        self._heard.pop(node_id, None)
