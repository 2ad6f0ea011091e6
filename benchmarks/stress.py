"""Fifty animatic cards and a thousand jobs through the real store, scheduler and Ray, while workers are killed. None lost, none twice.

The cards are worker processes of one PC. The scheduler runs in this process, and is restarted once in the middle, as after a crash.
"""

import asyncio
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import sqlalchemy as sa

from benchmarks.record import record
from farm import daemons
from farm.artifacts import ArtifactStore
from farm.auth import new_token
from farm.catalogue.models import builtin_models
from farm.clock import SystemClock
from farm.ids import new_id
from farm.model import Artifact, AttemptStatus, JobStatus, RenderSettings, Tier
from farm.settings import DataDirectory
from farm.store import schema
from farm.store.audit import audit
from farm.store.engine import migrate, open_engine
from farm.store.reader import Reader
from farm.store.registry import Registry
from farm.store.requests import NewJob, Requests
from farm.store.writer import Writer
from node_agent.identity import Identity, save_identity
from scheduler.loop import Scheduler
from tests.farm_process import free_ray_port
from tests.pictures import street
from tests.waiting import wait_until

if TYPE_CHECKING:
    from scheduler.cluster import Cluster

CARDS = int(os.environ.get("FARM_STRESS_CARDS", "50"))
JOBS = int(os.environ.get("FARM_STRESS_JOBS", "1000"))
KILLS = 10
"""Workers that are killed in the middle of a render, spread over the run."""
LIMIT_S = 3000.0
SMALLEST = RenderSettings("animatic", 64, 64, 4, 1, 1.0, 4, 7, "pan left")
"""The least that animatic makes: the farm shall be measured, not the renders."""


@dataclass
class Outcome:
    """What the run came to."""

    took_s: float
    killed: int
    lost: int
    most_at_once: int
    missing: int
    twice: int
    wrong: list[str]


def run(root: Path) -> None:
    """Makes all clips, then audits."""
    outcome = asyncio.run(_drive(root))
    assert outcome.wrong == [], "\n".join(outcome.wrong)
    assert (outcome.missing, outcome.twice) == (0, 0), outcome
    record(
        "stress",
        f"## Fifty cards, a thousand jobs\n\n{JOBS} drafts of 64x64x4 on {CARDS} CPU workers of one PC, through the real store, scheduler "
        f"and Ray; workers are killed (SIGKILL) in mid-render and the scheduler is replaced half-way (`benchmarks/stress.py`). Must: none "
        f"lost, none twice, and the audit (`farm/store/audit.py`) finds nothing wrong.\n\n"
        f"| what | figure |\n|---|---|\n"
        f"| jobs submitted, finished, missing, finished twice | {JOBS}, {JOBS - outcome.missing}, {outcome.missing}, {outcome.twice} |\n"
        f"| workers killed, attempts lost and made again | {outcome.killed}, {outcome.lost} |\n"
        f"| most attempts at once | {outcome.most_at_once} |\n"
        f"| from the first job to the last clip | {outcome.took_s:.0f} s, {JOBS / outcome.took_s:.1f} jobs per second |\n"
        f"| what the audit found | nothing |",
    )


async def _drive(root: Path) -> Outcome:
    data = DataDirectory(root / "data")
    for directory in (data.root, data.run, data.previews, data.secrets):
        directory.mkdir(parents=True, exist_ok=True)
    migrate(data.database_url)
    writing = open_engine(data.database_url, writes=True)
    reader = Reader(open_engine(data.database_url, writes=False))
    artifacts = ArtifactStore(data.artifacts)
    with _ray(data) as (address, ray):
        from scheduler import ray_cluster  # noqa: PLC0415 - Ray reads its environment when it is imported

        ray_cluster.AGENT_CLASS = "benchmarks.fleet:FleetAgentActor"
        cluster = ray_cluster.RayCluster()
        cluster.connect(address)
        watch = _Watch(reader, ray)
        async with _scheduler(data, cluster, reader, artifacts):
            await _until(lambda: len(reader.cards()) == CARDS, "the cards are there")
            picture = artifacts.put(_png(root), "image/png")
            began = time.monotonic()
            submitted = _submit(Requests(writing), picture)
            await _until(lambda: watch.look() >= JOBS // 2, "half of the jobs are finished")
        async with _scheduler(data, cluster, reader, artifacts):
            await _until(lambda: watch.look() >= JOBS, "all jobs are finished")
            took_s = time.monotonic() - began
            spool = data.node_home / "spool"
            await _until(lambda: not any(spool.iterdir()), "nothing is left on the node")
        wrong = audit(writing, artifacts, submitted)
    attempts = schema.attempts
    with writing.connect() as connection:
        lost = connection.scalars(sa.select(attempts.c.id).where(attempts.c.status == AttemptStatus.LOST))
        lost_attempts = len(lost.all())
        finished = sa.select(attempts.c.job_id).where(attempts.c.status == AttemptStatus.FINISHED)
        times = Counter(connection.scalars(finished))
    twice = sum(number > 1 for number in times.values())
    missing = len(set(submitted) - set(times))
    return Outcome(took_s, watch.killed, lost_attempts, watch.most_at_once, missing, twice, wrong)


@contextmanager
def _ray(data: DataDirectory, cards: int = CARDS) -> Iterator[tuple[str, psutil.Process]]:
    """Real Ray daemons with one node of the farm on them; its address, and the process above all its workers."""
    node_id, ports, temp_dir = new_id(), daemons.RayPorts(free_ray_port()), daemons.temp_dir_for(data.root)
    save_identity(data.node_home, Identity(node_id, "stress"))
    data.ray_token.write_text(new_token())
    data.ray_token.chmod(0o600)
    environment = daemons.ray_environment(os.environ, token=data.ray_token, node_home=data.node_home)
    environment |= {"FARM_STRESS_CARDS": str(cards), "PYTHONPATH": str(Path(__file__).parent.parent)}
    os.environ.update(environment)
    daemons.prepare_temp_dir(temp_dir)
    command = daemons.head_command(
        address=daemons.LOOPBACK_NODE, ports=ports, temp_dir=temp_dir, object_store_mib=200, node_id=node_id
    )
    log = data.root / "ray.log"
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_until(lambda: daemons.READY_MARK in log.read_text(errors="replace"), 60, "Ray has started")
        yield f"{daemons.LOOPBACK_NODE}:{ports.base}", psutil.Process(process.pid)
    finally:
        below = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(daemons.RAY_GRACE_S)
        for left in below:
            with suppress(psutil.NoSuchProcess):
                left.kill()


@asynccontextmanager
async def _scheduler(
    data: DataDirectory, cluster: "Cluster", reader: Reader, artifacts: ArtifactStore
) -> AsyncIterator[None]:
    """A scheduler that ends from one moment to the next, as a killed one does."""
    engine = open_engine(data.database_url, writes=True)
    scheduler = Scheduler(
        cluster,
        Writer(engine),
        reader,
        Requests(engine),
        Registry(engine),
        artifacts,
        builtin_models(),
        SystemClock(),
        feed_socket=data.feed_socket,
        previews=data.previews,
        checkpoints=data.checkpoints,
        lease_s=30.0,
        tiers="soft",
    )
    task = asyncio.create_task(scheduler.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        engine.dispose()


def _png(root: Path) -> bytes:
    path = root / "street.png"
    street(96, 96).image.save(path)
    return path.read_bytes()


def _submit(requests: Requests, picture: Artifact) -> list[str]:
    new = NewJob(SMALLEST, Tier.PREVIEW, draft=True, picture=picture)
    now = time.time()
    return [requests.submit(new, now)[0].id for _ in range(JOBS)]


class _Watch:
    """Looks at how far the jobs are, and kills workers on the way."""

    def __init__(self, reader: Reader, ray: psutil.Process) -> None:
        self.killed = 0
        self.most_at_once = 0
        self._reader = reader
        self._ray = ray
        self._random = random.Random(7)  # noqa: S311 - which worker is killed is no secret

    def look(self) -> int:
        """How many jobs are finished; none may have failed."""
        counts = self._reader.counts()
        assert counts[JobStatus.FAILED] == 0, "no job may fail: a killed worker is not its fault"
        self.most_at_once = max(self.most_at_once, counts[JobStatus.RUNNING])
        finished = counts[JobStatus.FINISHED]
        if self.killed < KILLS and finished >= (self.killed + 1) * JOBS // (KILLS + 2):
            self._kill_one()
        return finished

    def _kill_one(self) -> None:
        """A worker that is at an encoder is in the middle of a render."""
        busy = [process for process in self._ray.children(recursive=True) if _is_rendering(process)]
        if busy:
            self._random.choice(busy).kill()
            self.killed += 1


def _is_rendering(process: psutil.Process) -> bool:
    try:
        is_worker = any("CardWorker" in part for part in process.cmdline())
        return is_worker and any("ffmpeg" in child.name() for child in process.children())
    except psutil.Error:
        return False


async def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end, f"did not come about in {LIMIT_S:.0f} s: {what}"
        await asyncio.sleep(0.5)
