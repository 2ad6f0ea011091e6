"""What an idle node costs its owner: processor time and memory of the farm's own processes, and of Ray's, with no model loaded.

A real head and a real `farm join` beside it on this PC. Only what belongs to the node counts. Then a node with eight cards: the same agent
and workers, on Ray daemons of their own.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bare import Bare
from benchmarks.record import record
from benchmarks.stress import _ray
from farm.auth import TokenKind, new_token
from farm.client import Farm
from farm.settings import DataDirectory
from farm.store.engine import open_engine
from farm.store.registry import Registry
from node_agent.rest import REST_AFTER_S, WARM_MOST
from scheduler.watch import EVERY_S, HOLD_S
from tests.farm_process import FarmProcess, free_ray_port
from tests.waiting import wait_until

SETTLE_S = 20.0
MEASURE_S = 60.0
MIB = 1024**2
CARDS = 8
OURS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("`farm join`", lambda line: "farm.cli.main join" in line),
    ("node agent", lambda line: "NodeAgent" in line or "FleetAgent" in line),
    ("card worker", lambda line: "CardWorker" in line),
)
BARE: tuple[str, Callable[[str], bool]] = ("an actor of Ray that does nothing", lambda line: "Bare" in line)


@dataclass
class Cost:
    """Seconds of processor time; MiB resident, and of that what counts when shared pages are shared out (PSS)."""

    cpu_s: float = 0.0
    rss_mib: float = 0.0
    pss_mib: float = 0.0
    processes: int = 0


def run(root: Path) -> None:
    """Measures a minute."""
    with FarmProcess(root / "data") as farm:
        join = _join(farm, root)
        try:
            with farm.client() as client:
                wait_until(lambda: _state(client) == "idle", 120, "the node's card is idle")
            time.sleep(SETTLE_S)
            before = _costs(join.pid)
            began = time.monotonic()
            time.sleep(MEASURE_S)
            took, after = time.monotonic() - began, _costs(join.pid)
        finally:
            join.terminate()
            join.wait(30)
    missing = [name for name, _ in OURS if name not in after]
    assert not missing, f"not all of the node ran: {missing}"
    many = asyncio.run(_many_cards(root))
    _record({name: _during(before.get(name), cost, took) for name, cost in after.items()}, many)


async def _many_cards(root: Path) -> dict[str, tuple[Cost, float]]:
    """The parts of an idle node with many cards, once those of its workers rest that may."""
    data = DataDirectory(root / "many")
    for directory in (data.root, data.run, data.secrets):
        directory.mkdir(parents=True)
    with _ray(data, CARDS) as (address, daemon):
        import ray  # noqa: PLC0415 - it reads its environment when it is imported

        from scheduler import ray_cluster  # noqa: PLC0415

        ray_cluster.AGENT_CLASS = "benchmarks.fleet:FleetAgentActor"
        cluster = ray_cluster.RayCluster()
        cluster.connect(address)
        (node_id,) = await cluster.nodes()

        async def look_until(over: Callable[[], bool], limit_s: float) -> None:
            """As the head does: the next question once the last is answered, which a PC without news holds for a while."""
            end = time.monotonic() + limit_s
            while not over():
                assert time.monotonic() < end, _costs(daemon.pid)
                began = time.monotonic()
                await cluster.report(node_id, HOLD_S)
                await asyncio.sleep(max(0.0, EVERY_S / 2 - (time.monotonic() - began)))

        def workers() -> int:
            found = _costs(daemon.pid).get("card worker")
            return 0 if found is None else found.processes

        try:
            await look_until(lambda: workers() == CARDS, 120)
            await look_until(lambda: workers() == WARM_MOST, REST_AFTER_S + 60)
            bare: Any = ray.remote(Bare)
            idler = bare.options(num_cpus=0).remote()
            ray.get(idler.ready.remote())
            await look_until(lambda: _costs(daemon.pid)[BARE[0]].processes == 1, 30)
            began, before = time.monotonic(), _costs(daemon.pid)
            await look_until(lambda: time.monotonic() - began >= MEASURE_S, MEASURE_S + 30)
            took, after = time.monotonic() - began, _costs(daemon.pid)
        finally:
            ray.shutdown()
    return {
        name: _during(before.get(name), cost, took)
        for name, cost in after.items()
        if name in dict((*OURS[1:], BARE))
    }


def _join(farm: FarmProcess, root: Path) -> subprocess.Popen[bytes]:
    engine = open_engine(farm.data.database_url, writes=True)
    code = new_token()
    Registry(engine).add_token(code, TokenKind.JOIN, "benchmark", time.time(), expires_at=time.time() + 600)
    engine.dispose()
    words = [
        "join",
        farm.address,
        "--token",
        code,
        "--name",
        "idle",
        "--home",
        str(root / "node"),
    ]
    with (root / "join.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "farm.cli.main", *words, "--ray-port", str(free_ray_port() + 480)],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=os.environ | {"FARM_AS_USER": "root"},
        )


def _state(client: Farm) -> str | None:
    return next((card.state for card in client.cards() if card.node_name == "idle"), None)


def _costs(pid: int) -> dict[str, Cost]:
    """By part: ours by name, and all else that the node runs as Ray's."""
    found: dict[str, Cost] = {}
    join = psutil.Process(pid)
    for process in [join, *join.children(recursive=True)]:
        try:
            line, times, memory = " ".join(process.cmdline()), process.cpu_times(), process.memory_full_info()
        except psutil.Error:
            continue
        name = next((name for name, matches in (*OURS, BARE) if matches(line)), "Ray")
        cost = found.setdefault(name, Cost())
        cost.cpu_s += times.user + times.system
        cost.rss_mib += memory.rss / MIB
        cost.pss_mib += memory.pss / MIB
        cost.processes += 1
    return found


def _during(before: Cost | None, after: Cost, seconds: float) -> tuple[Cost, float]:
    """The cost at the end, and the share of a core in between."""
    return after, (after.cpu_s - (before.cpu_s if before is not None else 0.0)) / seconds


def _rows(costs: dict[str, tuple[Cost, float]]) -> str:
    ours = [costs[name] for name, _ in OURS]
    rows = [(name, *costs[name]) for name, _ in OURS]
    total = Cost(
        rss_mib=sum(cost.rss_mib for cost, _ in ours),
        pss_mib=sum(cost.pss_mib for cost, _ in ours),
        processes=sum(cost.processes for cost, _ in ours),
    )
    rows.append(("**the farm's own**", total, sum(share for _, share in ours)))
    beside = {"Ray": "Ray's own", BARE[0]: BARE[0]}
    rows += [(shown, *costs[name]) for name, shown in beside.items() if name in costs]
    return "\n".join(
        f"| {name} | {cost.processes} | {share * 100:.1f} % | {cost.rss_mib:.0f} | {cost.pss_mib:.0f} |"
        for name, cost, share in rows
    )


def _record(costs: dict[str, tuple[Cost, float]], many: dict[str, tuple[Cost, float]]) -> None:
    head = "| what | processes | of a core | MiB resident | MiB, shared pages shared out |\n|---|---|---|---|---|\n"
    record(
        "idle-node",
        f"## An idle node\n\nA PC that joined and has nothing to do, over {MEASURE_S:.0f} s, no model loaded, no graphics card "
        "(`benchmarks/idle_node.py`). Must, Ray's own apart: 3 % of a core, 400 MB.\n\n"
        f"{head}{_rows(costs)}\n\n"
        f"With {CARDS} cards (CPU cards, whose workers are those of a graphics card without its model), when the workers have rested that "
        f"may (`node_agent/rest.py`); `farm join` as above. "
        f"Beside them {BARE[0]}, which is what any process of Ray's costs:\n\n{head}{_rows({OURS[0][0]: costs[OURS[0][0]], **many})}",
    )
