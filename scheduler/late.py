"""Complete clips of attempts that were held for lost: a node that comes back may bring one, and it counts once if it is still wanted."""

import logging
from collections.abc import Awaitable, Callable, Coroutine

from farm.artifacts import ArtifactStore
from farm.clock import Clock
from farm.errors import FarmError, NotFoundError, RenderFailedError
from farm.events import Done
from farm.model import Attempt, AttemptStatus, JobStatus
from farm.stages import stage_after
from farm.store.reader import Reader
from farm.store.writer import Writer
from scheduler.cluster import Cluster, NodeGoneError, UnknownAttemptError, WorkerGoneError
from scheduler.results import collect

log = logging.getLogger(__name__)

WANTED = frozenset({JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.FAILED})


class LateResults:
    """Looks through what nodes keep of attempts that nobody attends.

    `hold(job_id)` hears of a job that no card shall begin while its clip is fetched, `free(job_id)` that one may again; `taken(job_id)`
    of one that was finished so; `over(node_id, attempt_ids)` tells the node what it may forget.
    """

    def __init__(
        self,
        cluster: Cluster,
        writer: Writer,
        reader: Reader,
        artifacts: ArtifactStore,
        clock: Clock,
        *,
        hold: Callable[[str], None],
        free: Callable[[str], None],
        taken: Callable[[str], None],
        over: Callable[[str, list[str]], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._writer = writer
        self._reader = reader
        self._artifacts = artifacts
        self._clock = clock
        self._hold = hold
        self._free = free
        self._taken = taken
        self._over = over
        self._at: set[str] = set()

    def look(self, node_id: str, attempt_ids: list[str]) -> Coroutine[None, None, None]:
        """To be run: takes what is wanted of these attempts of a node, and lets it forget them.

        What cannot be had now comes with the node's next report. The call itself holds the jobs that wait for such a clip, so that the
        node's own card, free at the same moment, begins none anew.
        """
        fresh = [attempt_id for attempt_id in attempt_ids if attempt_id not in self._at]
        lost = {
            attempt.id: attempt
            for attempt in self._reader.attempts_of_ids(fresh)
            if attempt.status == AttemptStatus.LOST and attempt.node_id == node_id
        }
        self._at.update(lost)
        held = {attempt.job_id for attempt in lost.values() if self._waits_for(attempt)}
        for job_id in held:
            self._hold(job_id)
        return self._go_through(node_id, [one for one in fresh if one not in lost], lost, held)

    def _waits_for(self, attempt: Attempt) -> bool:
        job = self._reader.job(attempt.job_id)
        return job.status == JobStatus.QUEUED and stage_after(job.settings, attempt.stage) is None

    async def _go_through(
        self, node_id: str, done: list[str], lost: dict[str, Attempt], held: set[str]
    ) -> None:
        try:
            try:
                for attempt in lost.values():
                    if await self._take(attempt):
                        done.append(attempt.id)
            finally:
                for job_id in held:
                    self._free(job_id)
            if done:
                await self._over(node_id, done)
        finally:
            self._at.difference_update(lost)

    async def _take(self, attempt: Attempt) -> bool:
        """Whether the attempt has been dealt with for good."""
        try:
            job = self._reader.job(attempt.job_id)
            said = await self._cluster.replay(attempt.node_id, attempt.id, 0)
            done = next((event for event in said if isinstance(event, Done)), None)
            if done is None or job.status not in WANTED:
                return True
            if stage_after(job.settings, attempt.stage) is not None:
                return True  # what lies between two stages is made again: it is the finished clip that is worth keeping
            result = await collect(self._cluster, self._artifacts, attempt, job, done)
            if self._writer.take_late(attempt.id, result, self._clock.now()):
                log.info("job %s is finished by attempt %s, which was held for lost", job.id, attempt.id)
                self._taken(job.id)
        except (NodeGoneError, WorkerGoneError):
            return False
        except (UnknownAttemptError, NotFoundError, RenderFailedError) as error:
            log.warning("what attempt %s left cannot be used: %s", attempt.id, error)
        except FarmError as error:  # the head's own disk: the clip waits on its node
            log.error("the late result of attempt %s waits: %s", attempt.id, error)
            return False
        return True
