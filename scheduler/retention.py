"""Deletes the files of old jobs, to keep the farm's limits. The history is written first: it never names a file that went unsaid."""

import asyncio
import logging

from farm.artifacts import ArtifactStore
from farm.clock import Clock
from farm.errors import FarmError
from farm.retention import Limits
from farm.store.retention import RetentionReader
from farm.store.writer import Writer

log = logging.getLogger(__name__)

EVERY_S = 600.0
AT_ONCE = 200
"""Jobs noted in one transaction: the write lock is free again after a few milliseconds."""


class Retention:
    """One per scheduler, which asks `due` at every tick and lets `work` run beside its loop."""

    def __init__(
        self, reader: RetentionReader, writer: Writer, artifacts: ArtifactStore, limits: Limits, clock: Clock
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._artifacts = artifacts
        self._limits = limits
        self._clock = clock
        self._looked = float("-inf")

    @property
    def due(self) -> bool:
        """Whether it is time to look; never where nothing limits what is kept."""
        return self._limits.any and self._clock.monotonic() - self._looked >= EVERY_S

    async def work(self) -> None:
        """Looks once, on a thread of its own. A disk that refuses is logged, and asked again next time."""
        self._looked = self._clock.monotonic()
        try:
            await asyncio.to_thread(self.look)
        except FarmError as error:
            log.warning("retention: %s", error)

    def look(self) -> list[str]:
        """Deletes what must go; returns the jobs whose files went."""
        self._artifacts.take_back()
        wanted = self._reader.going(self._limits, self._clock.now()).job_ids
        gone: list[str] = []
        for start in range(0, len(wanted), AT_ONCE):
            gone += self._writer.remove_files(wanted[start : start + AT_ONCE], self._clock.now())
        for file in self._reader.left_over():
            self._artifacts.discard(file)
        if gone:
            log.info("the files of %d jobs were removed, to keep the limits", len(gone))
        return gone
