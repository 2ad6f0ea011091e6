"""Deletes files: those of old jobs, to keep the farm's limits, and clips between stages that no job will ask for again.

The store is told first: the history never names a file that went unsaid.
"""

import asyncio
import logging

from farm.artifacts import ArtifactStore
from farm.clock import Clock
from farm.errors import FarmError
from farm.retention import Limits, Stock
from farm.store.leftovers import Leftovers
from farm.store.retention import RetentionReader
from farm.store.writer import Writer

log = logging.getLogger(__name__)

EVERY_S = 600.0
SOON_S = 30.0
"""The same once a job of several stages has ended: its clip between them need not lie about for longer."""
AT_ONCE = 200
"""Jobs noted in one transaction: the write lock is free again after a few milliseconds."""
UNTOUCHED_S = 600.0
"""A clip between stages that was stored or used so lately may be about to be another job's: it goes with a later look."""


class Retention:
    """One per scheduler, which asks `due` at every tick and lets `work` run beside its loop."""

    def __init__(
        self,
        reader: RetentionReader,
        writer: Writer,
        leftovers: Leftovers,
        artifacts: ArtifactStore,
        limits: Limits,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._leftovers = leftovers
        self._artifacts = artifacts
        self._limits = limits
        self._clock = clock
        self._looked = float("-inf")
        self._stirred = False
        self._looking = False

    def stir(self) -> None:
        """A job has ended that may leave something: look soon."""
        self._stirred = True

    def limit(self, limits: Limits) -> None:
        """From here on these limits hold; where they are others than before, it looks at once."""
        if limits != self._limits:
            self._limits = limits
            self._looked = float("-inf")

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        every = SOON_S if self._stirred else EVERY_S
        return not self._looking and self._clock.monotonic() - self._looked >= every

    async def work(self) -> None:
        """Looks once, on a thread of its own. A disk that refuses is logged, and asked again next time."""
        self._looked, self._stirred, self._looking = self._clock.monotonic(), False, True
        try:
            await asyncio.to_thread(self.look)
        except FarmError as error:
            log.warning("retention: %s", error)
        finally:
            self._looking = False

    def look(self) -> list[str]:
        """Deletes what must go; returns the jobs whose files went."""
        self._artifacts.take_back()
        gone = self._keep_the_limits() if self._limits.any else []
        self._leftovers.let_go(self._clock.now())
        for file in self._leftovers.waiting():
            if self._artifacts.discard(file, UNTOUCHED_S):
                self._leftovers.gone(file)
        return gone

    def _keep_the_limits(self) -> list[str]:
        now = self._clock.now()
        found = self._reader.going(self._limits, now)
        gone: list[str] = []
        for start in range(0, len(found.job_ids), AT_ONCE):
            gone += self._writer.remove_files(found.job_ids[start : start + AT_ONCE], now)
        self._writer.note_stock(Stock(now, found.left, found.left_size))
        for file in self._reader.left_over():
            self._artifacts.discard(file)
        if gone:
            log.info("the files of %d jobs were removed, to keep the limits", len(gone))
        return gone
