"""A whole real farm of a test's own: `farm up` in its own directory on random ports, with its real Ray, to be used and to be killed."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Self

import psutil

from farm.artifacts import ArtifactStore
from farm.client import Farm
from farm.settings import DataDirectory
from farm.store.audit import audit
from farm.store.engine import open_engine
from farm.store.reader import Reader
from tests.waiting import wait_until

READY_S = 60.0
CARD_WORKER = "CardWorker"
"""What stands in the command line of a card worker's process."""


def free_port() -> int:
    """A port that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ray_port(span: int = 120) -> int:
    """The first of `span` ports in a row of which none is in use, below the range that the kernel gives out."""
    start = 12000 + (os.getpid() * 131) % 15000
    for base in range(start, start + 4000, span):
        taken = {entry.laddr.port for entry in psutil.net_connections("inet") if entry.laddr}
        if not taken.intersection(range(base, base + span)):
            return base
    raise AssertionError("no free ports for Ray")


def steps_done(client: Farm, job_id: str) -> int:
    """How many steps of a running job are done; 0 while none is known."""
    progress = client.job(job_id).progress
    return progress.done if progress is not None else 0


class FarmProcess:
    """`farm up` as a child. Use as a context manager; everything it started is gone afterwards, and its store passes the audit."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.data = DataDirectory(root)
        self.port = free_port()
        self.ray_port = free_ray_port()
        self._environment = {**os.environ, **environment}
        self._log = root.with_name(root.name + "-up.log")
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, float] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        self.stop()
        self._note_processes()
        left = [pid for pid, born in self._seen.items() if _born(pid) == born]
        for pid in left:
            psutil.Process(pid).kill()
        assert not left, f"the farm left processes behind: {left}"
        if kind is None and self.data.database.exists():
            engine = open_engine(self.data.database_url, writes=False)
            assert audit(engine, ArtifactStore(self.data.artifacts)) == []
            engine.dispose()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sign_in_link(self) -> str:
        found = re.findall(r"http://\S+/signin\?token=\S+", self._log.read_text())
        return str(found[-1])

    def start(self) -> None:
        """Starts the farm and waits until it is ready."""
        began = self._log.stat().st_size if self._log.exists() else 0
        self.data.root.parent.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable, "-m", "farm.cli.main", "up", "--data", str(self.data.root),
            "--port", str(self.port), "--ray-port", str(self.ray_port),
        ]  # fmt: skip
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env=self._environment, start_new_session=True
            )
        process = self._process

        def ready() -> bool:
            said = self._log.read_bytes()[began:].decode()
            assert process.poll() is None, f"`farm up` ended:\n{said}"
            return "is ready" in said

        wait_until(ready, READY_S, "the farm is ready")
        self._note_processes()

    def stop(self) -> None:
        """Ends the farm as Ctrl-C would."""
        if self._process is not None and self._process.poll() is None:
            self._note_processes()
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
        self._process = None

    def pid_of(self, part: str) -> int:
        """The process id of a part: "scheduler", "dashboard" or "ray"."""
        traces = json.loads((self.data.run / "pids.json").read_text())["children"]
        return int(next(trace["pid"] for trace in traces if trace["name"] == part))

    def kill(self, part: str) -> None:
        """SIGKILL for one part."""
        os.kill(self.pid_of(part), signal.SIGKILL)

    def freeze(self, part: str) -> None:
        """SIGSTOP for one part; ends with `kill_head`."""
        os.kill(self.pid_of(part), signal.SIGSTOP)

    def kill_head(self) -> None:
        """SIGKILL for every process of the head at once: supervisor, scheduler, dashboard, Ray and its workers."""
        assert self._process is not None
        self._note_processes()
        everything = [psutil.Process(pid) for pid, born in self._seen.items() if _born(pid) == born]
        for process in everything:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended as those before it were killed
                process.kill()
        psutil.wait_procs(everything, timeout=10)
        self._process.wait(10)
        self._process = None

    def client(self) -> Farm:
        """The client, as the head's own user."""
        return Farm(self.address, self.data.admin_token.read_text().strip())

    def reader(self) -> Reader:
        """The store, read beside the running farm."""
        return Reader(open_engine(self.data.database_url, writes=False))

    def _note_processes(self) -> None:
        """Remembers all that runs below, also what Ray put into sessions of their own."""
        if self._process is None or self._process.poll() is not None:
            return
        supervisor = psutil.Process(self._process.pid)
        for process in [supervisor, *supervisor.children(recursive=True)]:
            born = _born(process.pid)
            if born is not None:
                self._seen[process.pid] = born


def processes_below(pid: int, word: str) -> list[int]:
    """The living processes with this word in their command line, of those that descend from a process."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended as it was asked
            living = process.status() != psutil.STATUS_ZOMBIE
            if living and any(word in part for part in process.cmdline()):
                found.append(process.pid)
    return found


def card_workers(farm: FarmProcess) -> list[int]:
    """The process ids of the card workers of the farm's own PC."""
    return processes_below(farm.pid_of("ray"), CARD_WORKER)


def _born(pid: int) -> float | None:
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None
