"""The newest checkpoint of each job that has not ended: fetched while it renders, kept on the head's disk for the next attempt.

One file per job, `<job id>.checkpoint`: a line of JSON that says where the state is from, then the state as the card gave it. What is in
the state is the model's; the next card checks that it is one of the very same render.
"""

import asyncio
import json
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from farm.events import Checkpoint
from farm.model import Attempt
from scheduler.cluster import Cluster, NodeGoneError, UnknownAttemptError, WorkerGoneError

log = logging.getLogger(__name__)

PAUSE_S = 3.0
"""The least between two fetches of an attempt: a fast card makes a checkpoint every half second, and needs to lose none of them less."""
LAST_FETCH_S = 10.0
"""How long the end of an attempt waits for its last checkpoint. Half a megabyte takes that on 0.5 Mbit/s."""
_NAME = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class Kept:
    """A job's checkpoint: the number of the attempt that made it, and its state after `step`."""

    attempt: int
    step: int
    state: bytes


class Checkpoints:
    """A directory of checkpoints. Nothing here is precious: without one a render begins at the beginning."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def keep(self, job_id: str, kept: Kept) -> None:
        """Puts a job's checkpoint in the place of its former one, whole or not at all."""
        path = self._path(job_id)
        half = path.with_suffix(".half")
        head = json.dumps({"attempt": kept.attempt, "step": kept.step}).encode()
        try:
            half.write_bytes(head + b"\n" + kept.state)
            half.replace(path)
        except OSError as error:  # a full disk costs steps, not the render
            log.warning("the checkpoint of job %s cannot be kept: %s", job_id, error)

    def of(self, job_id: str) -> Kept | None:
        """A job's checkpoint; None where there is none that can be read."""
        try:
            head, _, state = self._path(job_id).read_bytes().partition(b"\n")
            said = json.loads(head)
            return Kept(int(said["attempt"]), int(said["step"]), state)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:  # half of it after a power cut
            log.warning("the checkpoint of job %s cannot be read: %s", job_id, error)
            return None

    def drop(self, job_id: str) -> None:
        """Forgets a job's checkpoint: the job has ended, or shall begin anew."""
        self._path(job_id).unlink(missing_ok=True)

    def drop_all_but(self, job_ids: Collection[str]) -> None:
        """Forgets those of all other jobs: they ended while nobody could clear up."""
        wanted = {self._path(job_id) for job_id in job_ids}
        for path in self._root.iterdir():
            if path not in wanted:
                path.unlink(missing_ok=True)

    def _path(self, job_id: str) -> Path:
        return self._root / f"{job_id}.checkpoint"


class Collector:
    """Brings the checkpoints of one attempt home while it renders; only the newest counts."""

    def __init__(self, cluster: Cluster, checkpoints: Checkpoints, attempt: Attempt) -> None:
        self._cluster = cluster
        self._checkpoints = checkpoints
        self._attempt = attempt
        self._newest: Checkpoint | None = None
        self._kept: Checkpoint | None = None
        self._task: asyncio.Task[None] | None = None

    def hear(self, event: Checkpoint) -> None:
        """The card has a new checkpoint. It is fetched beside everything else."""
        self._newest = event
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._fetch_newest())

    async def settle(self, limit_s: float) -> None:
        """The attempt ends without a clip: fetches its last checkpoint now, if its node still gives it within `limit_s`."""
        self.stop()
        if self._newest is not self._kept:
            try:
                async with asyncio.timeout(limit_s):
                    await self._fetch()
            except TimeoutError:
                log.info("the last checkpoint of attempt %s did not come in time", self._attempt.id)

    def distrust(self) -> None:
        """What was computed so far may be wrong: nothing of it is kept, nor fetched any more."""
        self.stop()
        self._newest = self._kept = None
        self._checkpoints.drop(self._attempt.job_id)

    def stop(self) -> None:
        """Fetches no more."""
        if self._task is not None:
            self._task.cancel()

    async def _fetch_newest(self) -> None:
        while self._newest is not self._kept:
            if not await self._fetch():
                return  # the next event asks again
            await asyncio.sleep(PAUSE_S)

    async def _fetch(self) -> bool:
        event, attempt = self._newest, self._attempt
        if event is None:
            return False
        try:
            # By now the file may be a newer one than the event's: then the step is told too low, and no harm is done.
            state = await self._cluster.read(attempt.node_id, attempt.id, _NAME)
        except (NodeGoneError, WorkerGoneError, UnknownAttemptError):
            return False
        except Exception:  # without a checkpoint the attempt ends as it ends
            log.exception("the checkpoint of attempt %s cannot be fetched", attempt.id)
            return False
        # Not in a thread: one that is given up in the middle would write on beside its successor.
        self._checkpoints.keep(attempt.job_id, Kept(attempt.number, event.step, state))
        self._kept = event
        return True
