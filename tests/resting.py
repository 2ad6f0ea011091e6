"""A PC with three cards whose idle workers rest soon, on real Ray: a driver of its own, since Ray reads its environment once per process.

`python -m tests.resting DIRECTORY` prints what it saw as JSON. As a module it is what Ray imports on the node's side.
"""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from farm.ids import new_id
from farm.model import MemoryPlan, StageKind
from farm.settings import DataDirectory
from farm.wire import NodeReport, Order
from node_agent.rest import WARM_MOST
from scheduler.cluster import Cluster, NodeGoneError

CARDS = 3
LIMIT_S = 120.0


def quick_agent(now: Path) -> Any:
    """The real agent with three cards, whose workers rest after half a second once the file `now` is there.

    It has no patience with the first that it wakes, as if that started slowly.
    """
    import ray

    from benchmarks.fleet import FleetAgent
    from node_agent.agent import CONCURRENCY, WAKE_S
    from node_agent.rest import Rests

    class QuickRests(Rests):
        def due(self, cards: Iterable[str], at: float) -> list[str]:
            return super().due(cards, at) if now.exists() else []

    class QuickAgent(FleetAgent):
        def __init__(self) -> None:
            super().__init__()
            self._rests = QuickRests(rest_after_s=0.5)
            self._patience = iter([0.01])

        @property
        def _wake_s(self) -> float:
            return next(self._patience, WAKE_S)

        @_wake_s.setter
        def _wake_s(self, _usual: float) -> None: ...

    remote: Any = ray.remote
    return remote(num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups=CONCURRENCY)(QuickAgent)


def workers(ray_process: psutil.Process) -> int:
    """How many card workers run."""
    from tests.farm_process import CARD_WORKER, processes_below

    return len(processes_below(ray_process.pid, CARD_WORKER))


async def drive(root: Path) -> dict[str, Any]:
    """Waits until workers rest, then has every card render."""
    from benchmarks.stress import _png, _ray

    data = DataDirectory(root / "data")
    for directory in (data.root, data.run, data.secrets):
        directory.mkdir(parents=True)
    picture = _png(root)
    with _ray(data, CARDS) as (address, ray_process):
        import ray

        try:
            return await look(address, ray_process, picture, root / "now")
        finally:
            ray.shutdown()  # before its daemons end: it would wait a minute for them


async def heard(cluster: Cluster, node_id: str) -> NodeReport:
    """The node's report, asked for again as the scheduler does: on a busy PC its agent starts for longer than one ask waits."""
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            return await cluster.report(node_id)
        except NodeGoneError:
            assert time.monotonic() < end, "the node never answered"


async def heard_until(cluster: Cluster, node_id: str, true: Callable[[], bool], what: str) -> NodeReport:
    """The node's first report after which it is true."""
    end = time.monotonic() + LIMIT_S
    while True:
        report = await heard(cluster, node_id)
        if true():
            return report
        assert time.monotonic() < end, what


async def start(cluster: Cluster, node_id: str, card_id: str, order: Order, picture: bytes) -> None:
    """Begins an attempt, asking again as the scheduler does where a worker starts for longer than one ask waits."""
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            return await cluster.start(node_id, card_id, order, picture)
        except NodeGoneError:
            assert time.monotonic() < end, "the worker never took the order"


async def said(cluster: Cluster, node_id: str, card_id: str, attempt: str) -> set[str]:
    """The kinds of what an attempt says until it is over."""
    after, kinds, end = 0, set[str](), time.monotonic() + LIMIT_S
    while not kinds & {"done", "failed"}:
        assert time.monotonic() < end, kinds
        with suppress(NodeGoneError):
            events = await cluster.follow(node_id, card_id, attempt, after, 5.0)
            kinds |= {one.kind for one in events}
            after = max([after, *(one.seq for one in events)])
    return kinds


async def look(address: str, ray_process: psutil.Process, picture: bytes, now: Path) -> dict[str, Any]:
    """What happens there; `now`: the file with which workers begin to rest."""
    from benchmarks.stress import SMALLEST
    from scheduler import ray_cluster

    ray_cluster.resolve_name = lambda _name: quick_agent(now)
    cluster = ray_cluster.RayCluster()
    cluster.connect(address)
    (node_id,) = await cluster.nodes()
    # First all of them: on a busy PC the first would rest before the last has started.
    await heard_until(cluster, node_id, lambda: workers(ray_process) == CARDS, "not every card had a worker")
    now.touch()
    await heard_until(cluster, node_id, lambda: workers(ray_process) <= WARM_MOST, "they did not rest")
    saw: dict[str, Any] = {}
    saw["left"] = workers(ray_process)
    report = await heard(cluster, node_id)
    saw["fit_for_work"] = sum(one.tested and one.answers and one.trouble is None for one in report.cards)
    saw["left_after_a_report"] = workers(ray_process)
    saw["done"] = 0
    for card in report.cards:
        attempt = new_id()
        sha256 = hashlib.sha256(picture).hexdigest()
        order = Order(attempt, new_id(), StageKind.GENERATE, SMALLEST, MemoryPlan(), sha256, draft=True)
        began = time.monotonic()
        await start(cluster, node_id, card.id, order, picture)
        saw["slowest_start_s"] = max(saw.get("slowest_start_s", 0.0), time.monotonic() - began)
        saw["done"] += "done" in await said(cluster, node_id, card.id, attempt)
    saw["at_the_end"] = workers(ray_process)
    report = await heard(cluster, node_id)
    saw["answering"] = sum(one.answers for one in report.cards)
    return saw


if __name__ == "__main__":
    print("SAW", json.dumps(asyncio.run(drive(Path(sys.argv[1])))))
