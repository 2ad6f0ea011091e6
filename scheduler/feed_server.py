"""Serves the live feed (`farm.feed`) on a local socket, and hears when the store holds something new."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from farm.feed import WAKE, FeedMessage, Snapshot, to_line

log = logging.getLogger(__name__)

MAX_BEHIND = 4 * 1024 * 1024
"""Bytes a reader may be behind before it is dropped; it comes back and gets a snapshot."""


class FeedServer:
    """Any number of readers; a slow one never holds up the scheduler."""

    def __init__(self, path: Path, snapshot: Callable[[], Snapshot], wake: Callable[[], None]) -> None:
        self._path = path
        self._snapshot = snapshot
        self._wake = wake
        self._readers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begins to listen; a socket left by a killed scheduler is replaced."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        self._path.chmod(0o600)

    async def stop(self) -> None:
        """Stops listening and lets readers go."""
        if self._server is not None:
            self._server.close()
        for reader in list(self._readers):
            reader.close()
        self._path.unlink(missing_ok=True)

    def publish(self, message: FeedMessage) -> None:
        """Sends a message to every reader."""
        line = to_line(message)
        for reader in list(self._readers):
            if reader.transport.get_write_buffer_size() > MAX_BEHIND:
                log.warning("a reader of the feed is too slow and was dropped")
                self._readers.discard(reader)
                reader.transport.abort()
            else:
                reader.write(line)

    async def _serve(self, incoming: asyncio.StreamReader, outgoing: asyncio.StreamWriter) -> None:
        outgoing.write(to_line(self._snapshot()))
        self._readers.add(outgoing)
        try:
            while line := await incoming.readline():
                if line == WAKE:
                    self._wake()
        except (ConnectionError, ValueError, asyncio.CancelledError):  # ValueError: a line without an end
            log.debug("a reader of the feed left")
        finally:
            self._readers.discard(outgoing)
            with suppress(ConnectionError):
                outgoing.close()
