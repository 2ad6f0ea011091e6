"""What PCs say when they greet, and which greetings are still to be written down: many at once, for each write is synced to the disk."""

import threading
from collections.abc import Mapping
from typing import Any

Said = tuple[dict[str, Any], str]
"""A greeting's fields, and the address that it came from."""


class Greetings:
    """One per process; handlers ask it from their threads. Times are wall seconds."""

    def __init__(self) -> None:
        self._said: dict[str, Said] = {}
        self._heard: dict[str, float] = {}
        self._since: float | None = None
        self._lock = threading.Lock()

    def said(self, node_id: str) -> Said | None:
        """What was last written down that the PC said; None if nothing was. The same object for as long as it says the same."""
        return self._said.get(node_id)

    def written(self, node_id: str, said: Said) -> None:
        """This was written down."""
        with self._lock:
            self._said[node_id] = said
            self._heard.pop(node_id, None)

    def forget(self, node_id: str) -> None:
        """Whatever the PC says next is news."""
        with self._lock:
            self._said.pop(node_id, None)
            self._heard.pop(node_id, None)

    def hear(self, node_id: str, now: float, every_s: float) -> Mapping[str, float]:
        """The PC said what it said before; returns when which PCs were heard, once the first of them has waited for `every_s`."""
        with self._lock:
            self._heard[node_id] = now
            if self._since is None:
                self._since = now
                return {}
            if now - self._since < every_s:
                return {}
            heard, self._heard, self._since = self._heard, {}, None
            return heard
