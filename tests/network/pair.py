"""A farm on one machine and a PC beside it: `farm up` and `farm join`, each in a namespace of its own."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm import daemons
from farm.settings import DataDirectory
from tests.network.netbed import Bed, Machine, Running, require

FARM = (sys.executable, "-P", "-m", "farm.cli.main")
PORT = 8000

WATCHER = """
import json, sys, time, ray
ray.init(address=sys.argv[1], namespace="farm", log_to_driver=False, logging_level="ERROR")
wanted, limit = sys.argv[2], time.monotonic() + float(sys.argv[3])
while time.monotonic() < limit:
    for node in ray.nodes():
        if node["Alive"] and node["Labels"].get("farm-node") == wanted:
            print("SEEN", json.dumps([node["NodeID"], node["NodeManagerAddress"]]))
            raise SystemExit(0)
    time.sleep(0.1)
raise SystemExit(4)
"""
"""A driver on the head that waits until Ray there sees a node alive."""


class Head:
    """`farm up` on a machine, with its data on the machine's disk."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.data = DataDirectory(machine.directory / "data")
        self.url = f"http://{machine.address}:{PORT}"
        self.up: Running | None = None
        self.ready_after_s = 0.0

    def start(self) -> None:
        options = ("--data", str(self.data.root), "--host", self.machine.address, "--port", str(PORT))
        self.up = self.machine.start([*FARM, "up", "--no-local-node", *options], "up")
        self.ready_after_s = self.up.wait_for("Ctrl-C ends the farm", 90)

    def code(self, minutes: str = "10") -> str:
        exit_code, said = self.machine.run(
            [
                *FARM,
                "token",
                "new",
                "--kind",
                "join",
                "--minutes",
                minutes,
                "--data",
                str(self.data.root),
                "--json",
            ]
        )
        assert exit_code == 0, said
        return str(json.loads(said)["token"])

    def sees(self, node_id: str, limit_s: float = 60.0) -> tuple[str, str]:
        """Ray's id and the address of a node, once Ray sees it alive."""
        facts = json.loads(self.data.ray_facts.read_text())
        exit_code, said = self.machine.run(
            [sys.executable, "-c", WATCHER, facts["address"], node_id, str(limit_s)],
            limit_s + 60.0,
            daemons.ray_environment({}, token=self.data.ray_token),
        )
        assert exit_code == 0, f"Ray never saw {node_id}:\n{said}"
        seen = next(line for line in said.splitlines() if line.startswith("SEEN"))
        ray_id, address = json.loads(seen.removeprefix("SEEN "))
        return str(ray_id), str(address)


class Node:
    """`farm join` on a machine."""

    def __init__(self, machine: Machine, head: Head) -> None:
        self.machine = machine
        self.head = head
        self.home = machine.directory / "node"

    def command(self, *more: str) -> list[str]:
        return [*FARM, "join", self.head.url, "--home", str(self.home), "--name", "attic", *more]

    def join(self, *more: str) -> Running:
        return self.machine.start(self.command(*more), "join")

    @property
    def id(self) -> str:
        return str(json.loads((self.home / "node.json").read_text())["node_id"])


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Head, Node]]:
    """A farm on one machine, and another machine that is not yet in it."""
    require()
    with Bed(tmp_path, 2) as bed:
        head = Head(bed.machines[0])
        node = Node(bed.machines[1], head)
        head.start()
        yield head, node
    for root in (head.data.root, node.home):
        shutil.rmtree(daemons.temp_dir_for(root), ignore_errors=True)
