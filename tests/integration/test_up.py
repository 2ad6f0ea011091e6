"""The life of `farm up`: ready, its parts killed one by one, itself killed, refused when it must be, and down."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from farm import daemons, supervise
from farm.settings import DataDirectory
from tests.farm_process import free_port, free_ray_port
from tests.farm_verbs import run_here
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

FARM = (sys.executable, "-P", "-m", "farm.cli.main")


class Up:
    """`farm up --no-local-node` as a person at a terminal runs it."""

    def __init__(self, root: Path) -> None:
        self.data = DataDirectory(root / "data")
        self.port, self.ray_port = free_port(), free_ray_port()
        self._log = root / "up.log"
        self._seen: dict[int, float] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        return [
            *(*FARM, "up", "--no-local-node", "--data", str(self.data.root)),
            *("--port", str(self.port), "--ray-port", str(self.ray_port)),
        ]

    def start(self) -> float:
        """Seconds until it was ready."""
        began = time.monotonic()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)
        self.wait_for("Ctrl-C ends the farm")
        self.note()
        return time.monotonic() - began

    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        assert self.process is not None
        wait_until(lambda: text in self.said() or self.process.poll() is not None, 90, text)
        assert text in self.said(), self.said()

    def note(self) -> None:
        """Remembers the processes that run below it now."""
        assert self.process is not None
        for process in psutil.Process(self.process.pid).children(recursive=True):
            born = supervise.birth(process.pid)
            if born is not None:
                self._seen[process.pid] = born

    def alive(self) -> list[int]:
        """Those that were seen and still live."""
        return [pid for pid, born in self._seen.items() if supervise.birth(pid) == born]

    def pid_of(self, part: str) -> int | None:
        try:
            children = json.loads((self.data.run / "pids.json").read_text())["children"]
        except FileNotFoundError:
            return None
        return next((int(child["pid"]) for child in children if child["name"] == part), None)

    def facts(self) -> dict[str, str] | None:
        try:
            return dict(json.loads(self.data.ray_facts.read_text()))
        except FileNotFoundError:
            return None

    def healthy(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def end(self, number: int = signal.SIGINT) -> tuple[int, float]:
        """Exit code, and seconds that it took."""
        assert self.process is not None
        if self.process.poll() is None:
            self.note()
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(40), time.monotonic() - began


@pytest.fixture(scope="module")
def one_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """What these tests start, kill and start again: each start takes ten seconds of a core."""
    found = Up(tmp_path_factory.mktemp("farm"))
    yield found
    if found.process is not None and found.process.poll() is None:
        found.end()
    left = found.alive()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(daemons.temp_dir_for(found.data.root), ignore_errors=True)
    assert left == [], "the farm left processes behind"


@pytest.fixture
def up(one_farm: Up) -> Up:
    """The farm, running."""
    if one_farm.process is None or one_farm.process.poll() is not None:
        one_farm.start()
    return one_farm


def farm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*FARM, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_a_second_farm_on_the_same_directory_and_one_on_the_same_port_are_refused(up, tmp_path):
    same = farm("up", "--data", str(up.data.root))
    assert same.returncode == 1
    assert f"A farm already runs on {up.data.root} (process {up.process.pid})" in same.stderr
    other = farm(
        "up", "--data", str(tmp_path / "other"), "--port", str(up.port), "--ray-port", str(free_ray_port())
    )
    assert other.returncode == 1
    assert f"Port {up.port}, wanted for the dashboard, is taken by" in other.stderr
    assert "--port" in other.stderr
    ray = farm(
        "up", "--data", str(tmp_path / "other"), "--port", str(free_port()), "--ray-port", str(up.ray_port)
    )
    assert ray.returncode == 1
    assert f"Port {up.ray_port}, wanted for Ray, is taken by" in ray.stderr
    assert "--ray-port" in ray.stderr
    assert up.healthy()


def test_parts_that_are_killed_come_back(up):
    for part in ("scheduler", "dashboard"):
        killed = up.pid_of(part)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda p=part, k=killed: up.pid_of(p) not in (None, k), 20, f"another {part}")
        assert f"{part} ended with signal 9" in up.said()
    wait_until(up.healthy, 20, "the dashboard answers again")
    before, scheduler = up.facts(), up.pid_of("scheduler")
    os.kill(up.pid_of("ray"), signal.SIGKILL)
    wait_until(lambda: up.facts() is None, 20, "nodes are told that Ray is gone")
    wait_until(lambda: up.facts() is not None, 60, "Ray is back")
    assert up.facts() == before  # Ray kept its state: no node needs to join again
    wait_until(lambda: up.pid_of("scheduler") not in (None, scheduler), 20, "a scheduler for the new Ray")
    assert "Traceback" not in up.said()


def test_kill_9_of_the_supervisor_and_a_new_start(up):
    up.process.kill()
    up.process.wait()
    assert up.start() < 60
    assert up.healthy()
    assert up.end()[0] == 0


def test_a_broken_state_of_ray_costs_the_nodes_a_new_join_and_nothing_else(up):
    """Ray gives up with "Failed to start GCS" for ever when the files of its state are damaged, as by a full disk."""
    first = up.facts()
    assert up.end()[0] == 0
    for manifest in (up.data.root / "ray" / "gcs").rglob("MANIFEST*"):
        manifest.write_bytes(b"garbage")
    up.start()
    assert "begins anew" in up.said()
    assert up.facts()["epoch"] != first["epoch"]
    assert list((up.data.root / "ray" / "gcs.broken").rglob("MANIFEST*"))


def test_up_and_down(up):
    assert up.healthy()
    link = re.search(r"http://127\.0\.0\.1:\d+/signin\?token=\S+", up.said())
    assert link is not None
    assert httpx.get(link.group()).status_code in (302, 303, 307)
    for secret in (up.data.ray_token, up.data.admin_token):
        assert secret.stat().st_mode & 0o777 == 0o600
    assert up.facts() == {
        "address": f"{daemons.LOOPBACK_NODE}:{up.ray_port}",
        "epoch": json.loads((up.data.root / "ray" / "epoch.json").read_text())["epoch"],
    }
    code, took = up.end(signal.SIGTERM)
    assert code == 0, up.said()
    assert took < 8.0
    print(f"down after {took:.1f} s")
    assert up.alive() == []
    assert not up.data.ray_facts.exists()
    assert "Traceback" not in up.said()


def run_token(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_here(["token", *arguments, "--data", str(data)])


def test_tokens_are_made_and_listed_without_being_shown(tmp_path):
    missing = run_token(tmp_path / "none", "new", "--kind", "join")
    assert missing.returncode == 1
    assert "There is no farm in" in missing.stderr
    from farm.first_steps import prepare

    prepare(DataDirectory(tmp_path / "data"))
    wanted = ("--kind", "join", "--minutes", "5", "--name", "attic", "--json")
    made = farm("token", "new", *wanted, "--data", str(tmp_path / "data"))
    assert made.returncode == 0, made.stderr
    body = json.loads(made.stdout)
    assert 0 < body["expires_at"] - time.time() <= 300
    listed = run_token(tmp_path / "data", "list", "--json")
    assert body["token"] not in listed.stdout
    rows = {row["name"]: row["kind"] for row in json.loads(listed.stdout)}
    assert rows == {"this PC": "admin", "farm up": "signin", "attic": "join"}
    table = run_token(tmp_path / "data", "list")
    assert "attic" in table.stdout
    assert "good until" in table.stdout
    assert run_token(tmp_path / "data", "new", "--kind", "nonsense").returncode == 2
