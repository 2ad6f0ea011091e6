"""A farm on several machines: `farm up` on the first, `farm join` on the others, each in a namespace of its own."""

import json
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from farm import daemons
from farm.answers.machines import CardView
from farm.artifacts import ArtifactStore
from farm.client import Farm
from farm.settings import DataDirectory
from farm.store.audit import audit
from farm.store.engine import open_engine
from tests.network.netbed import Bed, Machine, Running, require, wait_until
from tests.pictures import street

FARM = (sys.executable, "-P", "-m", "farm.cli.main")
PORT = 8000
CLOCK_SHIM = Path(__file__).parent.parent / "clock_shim"
SMALL: dict[str, object] = {"preset": "draft", "width": 256, "height": 192, "frames": 8, "prompt": "pan left"}
LONG: dict[str, object] = {
    "preset": "draft",
    "width": 960,
    "height": 544,
    "frames": 160,
    "prompt": "pan left",
}
"""Ten seconds and more of rendering: time enough to pull plugs."""

RAYS = """
import json, sys, ray
ray.init(address=sys.argv[1], namespace="farm", log_to_driver=False, logging_level="ERROR")
print("RAYS", json.dumps([n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Labels"].get("farm-node") == sys.argv[2]]))
"""
"""A driver on the head that asks Ray for the lives of a node."""


class Head:
    """`farm up` on a machine, with its data on the machine's disk. The test speaks to it over the bridge."""

    def __init__(self, machine: Machine, environment: dict[str, str]) -> None:
        self.machine = machine
        self.data = DataDirectory(machine.directory / "data")
        self.url = f"http://{machine.address}:{PORT}"
        self.up: Running | None = None
        self.ready_after_s = 0.0
        self._environment = environment
        self._submitted: list[str] = []

    def start(self) -> None:
        options = ("--data", str(self.data.root), "--host", self.machine.address, "--port", str(PORT))
        command = [*FARM, "up", "--no-local-node", *options]
        self.up = self.machine.start(command, "up", self._environment)
        self.ready_after_s = self.up.wait_for("Ctrl-C ends the farm", 90)

    def client(self) -> Farm:
        return Farm(self.url, self.data.admin_token.read_text().strip())

    def code(self, minutes: str = "10") -> str:
        words = (
            "token",
            "new",
            "--kind",
            "join",
            "--minutes",
            minutes,
            "--data",
            str(self.data.root),
            "--json",
        )
        exit_code, said = self.machine.run([*FARM, *words])
        assert exit_code == 0, said
        return str(json.loads(said)["token"])

    def submit(self, settings: dict[str, object], **more: object) -> str:
        """A job with a picture; returns its id."""
        picture = self.machine.directory / "street.png"
        if not picture.exists():
            street(640, 480).image.save(picture)
        with self.client() as client:
            job = client.submit(picture, **(settings | more))
        self._submitted.append(job.id)
        return job.id

    def rows(self, question: str, *values: str) -> list[tuple[str, ...]]:
        """Asks the database, as it is on the disk."""
        with closing(sqlite3.connect(f"file:{self.data.database}?mode=ro", uri=True)) as connection:
            return connection.execute(question, values).fetchall()

    def status(self, job_id: str) -> str:
        return self.rows("SELECT status FROM jobs WHERE id = ?", job_id)[0][0]

    def attempts(self, job_id: str) -> list[tuple[str, str]]:
        """Status and node of a job's attempts, in order."""
        told = self.rows("SELECT status, node_id FROM attempts WHERE job_id = ? ORDER BY number", job_id)
        return [(status, node_id) for status, node_id in told]

    def wait_finished(self, *job_ids: str, limit_s: float = 120.0) -> None:
        """Waits until these jobs are finished."""
        wait_until(
            lambda: all(self.status(job_id) == "finished" for job_id in job_ids),
            limit_s,
            lambda: f"jobs to finish: {[(self.status(job_id), self.attempts(job_id)) for job_id in job_ids]}",
        )

    def card(self, node: "Node") -> CardView | None:
        """A node's card as the farm shows it; None before the node has told of it."""
        with self.client() as client:
            return next((card for card in client.cards() if card.node_id == node.id), None)

    def wait_card(self, node: "Node", *states: str, limit_s: float = 60.0) -> CardView:
        """Waits until a node's card is shown so."""
        found: list[CardView | None] = [None]

        def shown() -> bool:
            found[0] = self.card(node)
            return found[0] is not None and found[0].state in states

        wait_until(shown, limit_s, lambda: f"{node.name} to be {' or '.join(states)}: {found[0]}")
        assert found[0] is not None
        return found[0]

    def rays_of(self, node: "Node") -> set[str]:
        """Ray's ids of a node, as far as Ray holds them for alive: each start of its daemons has another."""
        facts = json.loads(self.data.ray_facts.read_text())
        exit_code, said = self.machine.run(
            [sys.executable, "-c", RAYS, facts["address"], node.id],
            60.0,
            daemons.ray_environment({}, token=self.data.ray_token),
        )
        assert exit_code == 0, said
        (told,) = (line for line in said.splitlines() if line.startswith("RAYS "))
        return set(json.loads(told.removeprefix("RAYS ")))

    def audit(self) -> None:
        """No job is lost, none is there twice, and the clips are whole."""
        engine = open_engine(self.data.database_url, writes=False)
        assert audit(engine, ArtifactStore(self.data.artifacts), self._submitted) == []
        engine.dispose()


class Node:
    """`farm join` on a machine."""

    def __init__(self, machine: Machine, head: Head, name: str) -> None:
        self.machine = machine
        self.head = head
        self.name = name
        self.home = machine.directory / "node"

    def command(self, *more: str) -> list[str]:
        return [*FARM, "join", self.head.url, "--home", str(self.home), "--name", self.name, *more]

    def join(self, *more: str, clock_off_s: float = 0.0) -> Running:
        """Starts to join, on a PC whose clock is wrong by so much."""
        environment = {}
        if clock_off_s:
            path = os.pathsep.join(filter(None, (str(CLOCK_SHIM), os.environ.get("PYTHONPATH"))))
            environment = {"PYTHONPATH": path, "FARM_TEST_CLOCK_OFF_S": str(clock_off_s)}
        return self.machine.start(self.command(*more), "join", environment)

    @property
    def id(self) -> str:
        return str(json.loads((self.home / "node.json").read_text())["node_id"])

    def raylet(self) -> tuple[int, float]:
        """The process of Ray's daemon there, which is another one after every start of it."""
        (found,) = (
            (process.pid, process.create_time())
            for process in self.machine.processes()
            if process.name() == "raylet"
        )
        return found

    def spooled(self, what: str) -> bool:
        """Whether an attempt there has said an event of this kind."""
        wanted = f'"kind": "{what}"'.encode()
        return any(wanted in path.read_bytes() for path in (self.home / "spool").glob("*/events.jsonl"))

    def wait_spooled(self, what: str, limit_s: float = 60.0) -> None:
        """Waits for an event of this kind on the node's own disk."""
        wait_until(lambda: self.spooled(what), limit_s, lambda: f"an event {what!r} on {self.name}")

    def wait_spool_empty(self) -> None:
        """Waits until the head has let the node forget what it made."""
        wait_until(
            lambda: not list((self.home / "spool").iterdir()), 30, lambda: "the node's spool is cleared"
        )


@contextmanager
def farm_of(directory: Path, *names: str, **environment: str) -> Iterator[tuple[Head, list[Node]]]:
    """A farm that is up, and other machines that are not yet in it. `environment` is that of `farm up`. Ends with the audit."""
    require()
    with Bed(directory, 1 + len(names)) as bed:
        first, *others = bed.machines
        head = Head(first, environment)
        nodes = [Node(machine, head, name) for machine, name in zip(others, names, strict=True)]
        head.start()
        yield head, nodes
        head.audit()
    for root in (head.data.root, *(node.home for node in nodes)):
        shutil.rmtree(daemons.temp_dir_for(root), ignore_errors=True)
