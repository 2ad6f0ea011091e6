"""What the heartbeats of 200 PCs cost the head, over the transports of production, with no Ray daemon on any sender.

A PC has two. `farm join` greets the head's web server every 10 s: 200 of them do so here, with the node's own client, payload and
credentials, against a real `farm up`. And the scheduler asks each PC's agent for its report, through Ray, which answers at once when there
is news and else after some seconds: the real scheduler asks for 200 PCs here, each with a card of its own, and a few actors beside the
head's own Ray answer for all, by the agent's own rule. Processor time is the kernel's account of the head's processes.
"""

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.record import record
from benchmarks.senders import NODES, STAYS_S, WITH_MODELS, WITH_OWNERS, Spokesman, node_id
from benchmarks.stress import _ray, _scheduler
from farm.artifacts import ArtifactStore
from farm.auth import TokenKind, new_token
from farm.model import Node
from farm.settings import DataDirectory
from farm.store.engine import migrate, open_engine
from farm.store.reader import Reader
from farm.store.registry import Registry
from farm.wire import NodeReport
from node_agent.head_line import HeadLine
from node_agent.join import HELLO_EVERY_S
from scheduler.watch import HOLD_S
from tests.farm_process import FarmProcess
from tests.waiting import wait_until

SPOKESMEN = 2
"""Actors that answer for the PCs."""
SETTLE_S = 10.0
MEASURE_S = 30.0
MOST = 0.20
"""Of a core, for both together."""


def run(root: Path) -> None:
    """Measures both."""
    idle, greeted, greetings = _greetings(root)
    asked, reports = asyncio.run(_reports(root))
    per_s = (greetings / MEASURE_S, reports / MEASURE_S)
    total = greeted + asked
    record(
        "heartbeats",
        f"## The heartbeats of {NODES} PCs\n\nProcessor time of the head's processes over {MEASURE_S:.0f} s, by the kernel's account: "
        f"{NODES} senders without Ray daemons of their own greet the real dashboard every {HELLO_EVERY_S:.0f} s, with the node's own "
        f"client, and the real scheduler asks {NODES} agents through Ray, which hold their answers for {HOLD_S:g} s at most "
        f"(`benchmarks/heartbeats.py`). Of every {WITH_OWNERS}th PC the owner comes or goes every {STAYS_S:.0f} s, every {WITH_MODELS}th "
        f"fetches a model. Must: {MOST:.0%} of a core.\n\n"
        "| heartbeat | a second | head's process | of a core |\n|---|---|---|---|\n"
        f"| `farm join` greets, HTTP | {per_s[0]:.0f} | dashboard | {greeted:.1%} |\n"
        f"| the agent reports, Ray | {per_s[1]:.0f} | scheduler | {asked:.1%} |\n"
        f"| **both** | | | **{total:.1%}** |\n"
        f"| for comparison: no PC at all | | dashboard | {idle:.1%} |",
    )
    assert total <= MOST, f"{total:.1%} of a core"


def _greetings(root: Path) -> tuple[float, float, int]:
    """The dashboard's share of a core without and with the senders, and how often they greeted."""
    with FarmProcess(root / "data") as farm:
        tokens = _members(farm.data)
        dashboard = psutil.Process(farm.pid_of("dashboard"))
        idle = _share(dashboard)
        senders = [_Sender(farm.address, number, token) for number, token in enumerate(tokens)]
        try:
            wait_until(lambda: all(one.answered for one in senders), 60, "all PCs are greeted back")
            time.sleep(SETTLE_S)
            before = sum(one.answered for one in senders)
            busy = _share(dashboard)
            answered = sum(one.answered for one in senders) - before
        finally:
            for one in senders:
                one.stop.set()
            for one in senders:
                one.thread.join()
        failed = [one.failure for one in senders if one.failure]
    assert not failed, failed[0]
    return idle, busy, answered


def _members(data: DataDirectory) -> list[str]:
    """Makes the PCs nodes; their credentials."""
    engine = open_engine(data.database_url, writes=True)
    registry, now = Registry(engine), time.time()
    tokens = [new_token() for _ in range(NODES)]
    for number, token in enumerate(tokens):
        registry.see_node(Node(node_id(number), f"pc{number}", "127.0.0.1", now), [], now)
        registry.add_token(token, TokenKind.NODE, f"pc{number}", now, node_id=node_id(number))
    engine.dispose()
    return tokens


class _Sender:
    """One PC's greetings, in a thread, as `farm join` sends them. They begin spread over the interval, as PCs do."""

    def __init__(self, head: str, number: int, token: str) -> None:
        self.answered = 0
        self.failure: Exception | None = None
        self.stop = threading.Event()
        self._line, self._token, self._name = HeadLine(head), token, f"pc{number}"
        self.thread = threading.Thread(target=self._send, args=(number * HELLO_EVERY_S / NODES,), daemon=True)
        self.thread.start()

    def _send(self, first_after_s: float) -> None:
        pause = first_after_s
        try:
            while not self.stop.wait(pause):
                self._line.hello(self._token, self._name)
                self.answered += 1
                pause = HELLO_EVERY_S
        except Exception as error:  # noqa: BLE001 - reported by the thread that measures
            self.failure = error
        finally:
            self._line.close()


async def _reports(root: Path) -> tuple[float, int]:
    """This process's share of a core while it is the head's scheduler, and how many reports it took in."""
    data = DataDirectory(root / "reports")
    for directory in (data.root, data.run, data.previews, data.secrets):
        directory.mkdir(parents=True, exist_ok=True)
    migrate(data.database_url)
    os.chdir(data.run)
    reader = Reader(open_engine(data.database_url, writes=False))
    with _ray(data) as (address, _):
        import ray  # noqa: PLC0415 - it reads its environment when it is imported

        from scheduler.ray_cluster import RayCluster  # noqa: PLC0415

        class ManyNodes(RayCluster):
            """The real cluster, save who is there and who answers."""

            taken = 0
            spokesmen: list[Any]

            async def nodes(self) -> set[str]:
                await super().nodes()  # it costs what it costs
                return {node_id(number) for number in range(NODES)}

            async def report(self, node_id: str, hold_s: float = 0.0) -> NodeReport:
                report = await super().report(node_id, hold_s)
                self.taken += 1
                return report

            def _agent(self, node_id: str) -> Any:
                number = int(node_id.removeprefix("pc"))
                return _Agent(self.spokesmen[number % SPOKESMEN], number)

        cluster = ManyNodes()
        cluster.connect(address)
        actor: Any = ray.remote(Spokesman)
        cluster.spokesmen = [
            actor.options(num_cpus=0, max_concurrency=NODES).remote() for _ in range(SPOKESMEN)
        ]
        async with _scheduler(data, cluster, reader, ArtifactStore(data.artifacts)):
            end = time.monotonic() + 60
            while len(reader.cards()) < NODES:
                assert time.monotonic() < end, "the cards are not there"
                await asyncio.sleep(0.5)
            await asyncio.sleep(SETTLE_S)
            before = cluster.taken
            busy = await asyncio.to_thread(_share, psutil.Process())
            taken = cluster.taken - before
        ray.shutdown()  # before its daemons end: it would wait a minute for them
    return busy, taken


class _Agent:
    """The handle of a PC's agent: `report.remote` asks who answers for the PC."""

    def __init__(self, spokesman: Any, number: int) -> None:
        self.report = self
        self._spokesman, self._number = spokesman, number

    def remote(self, known: str, hold_s: float) -> Any:
        """As Ray's."""
        return self._spokesman.report.remote(self._number, known, hold_s)


def _share(process: psutil.Process) -> float:
    """Of a core, over `MEASURE_S`."""
    before, began = process.cpu_times(), time.monotonic()
    time.sleep(MEASURE_S)
    after = process.cpu_times()
    spent = after.user + after.system - before.user - before.system
    return float(spent / (time.monotonic() - began))
