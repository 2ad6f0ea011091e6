"""Child processes that end with their supervisor: start, watch, restart with patience, and end them by their own id.

Each child leads a session of its own, so that Ctrl-C in the terminal reaches only the supervisor, which then takes things down in
order, and so that what a child left behind can be found: Ray's workers leave their process group but not their session.

If the supervisor itself is killed, the kernel sends SIGTERM to its children (`PR_SET_PDEATHSIG`): a farm without its supervisor would go
on half alive, with nothing to restart its parts. What even then stays is written in `pids.json` and ended at the next start.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Self

import psutil

LOG_LIMIT = 10_000_000
"""Bytes after which a log is set aside when its child is next started; one older log is kept."""

_PR_SET_PDEATHSIG = 1
_PRCTL = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Program:
    """A child to be: command, environment, log, and the seconds it has to end after SIGTERM."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    grace_s: float = 5.0


class Child:
    """A running program. Make it in the main thread: the kernel's watch is for the thread that started it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        program.log.parent.mkdir(parents=True, exist_ok=True)
        rotate(program.log)
        with program.log.open("ab") as log:
            self._log_from = log.tell()
            self._process = subprocess.Popen(
                list(program.command),
                env=dict(program.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509 - supervisors have one thread
            )
        self.started = time.monotonic()
        self.trace = Trace(program.name, self._process.pid, birth(self._process.pid) or 0.0)
        self._asked: float | None = None

    @property
    def pid(self) -> int:
        """The process id, which is its session's too."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if one ended it."""
        return self._process.poll()

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started

    def said(self, limit: int = 40) -> list[str]:
        """The last lines it wrote since it was started."""
        with self.program.log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_from, size - 16_384))
            return log.read().decode(errors="replace").splitlines()[-limit:]

    def has_dead(self, name: str) -> bool:
        """Whether a process of this name, started by it, has ended without its noticing."""
        with contextlib.suppress(psutil.Error):
            below = psutil.Process(self.pid).children()
            return any(one.status() == psutil.STATUS_ZOMBIE and one.name() == name for one in below)
        return False

    def ask_to_end(self) -> None:
        """Sends SIGTERM, to it alone: it takes its own children down."""
        if self._asked is None:
            self._asked = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()

    def end(self, *, grace_s: float | None = None) -> int:
        """Ends it and whatever is left of its session; returns its exit code. Seconds are counted from the first asking."""
        self.ask_to_end()
        asked = self._asked if self._asked is not None else time.monotonic()
        grace = self.program.grace_s if grace_s is None else grace_s
        try:
            self._process.wait(max(0.0, asked + grace - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        end_session(self.pid, patience_s=0.5)
        return self._process.returncode


def _end_with(parent: int) -> Callable[[], None]:
    def in_child() -> None:
        if _PRCTL is not None:
            _PRCTL(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # it died before the kernel was told
                os._exit(1)

    return in_child


@dataclass(slots=True)
class Backoff:
    """How long to wait before a restart: doubles from `first_s` to `longest_s`, forgets after a run of `calm_s`."""

    first_s: float = 1.0
    longest_s: float = 30.0
    calm_s: float = 60.0
    failures: int = 0

    def after_run(self, lasted_s: float) -> float:
        """Seconds to wait now that a run of `lasted_s` seconds ended."""
        if lasted_s >= self.calm_s:
            self.failures = 0
        self.failures += 1
        return float(min(self.longest_s, self.first_s * 2.0 ** min(self.failures - 1, 20)))


class Bell:
    """The supervisor's ears: SIGINT, SIGTERM and SIGHUP ask it to stop, a child's end wakes it. One per process, main thread only."""

    def __init__(self) -> None:
        self.stopping = False
        self.hurry = False
        self._former: dict[int, object] = {}
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup, or a shell's background job
                self._former[number] = signal.signal(number, self._on_stop)
        self._former[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave us
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> bool:
        """Waits until a signal comes or the time is over; True once it is time to stop."""
        if not self.stopping:
            select.select([self._read], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)
        return self.stopping

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.hurry = self.stopping  # asked twice
        self.stopping = True


@dataclass(frozen=True, slots=True)
class Trace:
    """A child's trace on disk: its process id and when that process began, so that a reused id is not mistaken for it."""

    name: str
    pid: int
    born: float


def write_traces(path: Path, traces: Sequence[Trace]) -> None:
    """Notes the running children, for the start after a crash."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps({"boot": _boot_id(), "children": [asdict(trace) for trace in traces]}))
    beside.replace(path)


def end_leftovers(path: Path, *, patience_s: float = 5.0) -> list[str]:
    """Ends what a killed supervisor left running; returns the names of what had to be ended.

    Only what is surely ours is touched: noted since this boot, and either led by the very process that was noted, or without a leader
    and begun after it (the kernel gives no new process an id that is still a session's).
    """
    try:
        noted = json.loads(path.read_text())
        traces = [Trace(str(row["name"]), int(row["pid"]), float(row["born"])) for row in noted["children"]]
        same_boot = noted["boot"] == _boot_id()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []
    ended = []
    if same_boot:
        deadline = time.monotonic() + patience_s  # they were told to end when their supervisor died
        for trace in traces:
            leader = birth(trace.pid)
            if leader is not None and abs(leader - trace.born) > 0.001:
                continue
            left = end_session(
                trace.pid, patience_s=max(0.0, deadline - time.monotonic()), born_after=trace.born
            )
            if left:
                ended.append(trace.name)
    path.unlink(missing_ok=True)
    return ended


def end_session(session: int, *, patience_s: float, born_after: float = 0.0) -> list[int]:
    """Waits for the members of a session to end, then kills the rest; returns the ids of those it killed."""
    deadline = time.monotonic() + patience_s
    while members := session_members(session, born_after):
        if time.monotonic() >= deadline:
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            _wait_gone(session, born_after)
            return members
        time.sleep(0.05)
    return []


def session_members(session: int, born_after: float = 0.0) -> list[int]:
    """The living processes of a session that began at or after a time in seconds (see `birth`)."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getsid(pid) != session:
                continue
        except (ProcessLookupError, PermissionError):
            continue
        born = birth(pid)
        if born is not None and born >= born_after:
            found.append(pid)
    return found


def birth(pid: int) -> float | None:
    """When a process began, in seconds since boot, unmoved by changes of the wall clock; None if there is none, or only its corpse."""
    try:
        # Fields after the name, which may itself hold blanks and brackets: state is the first, the start the twentieth.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def rotate(log: Path) -> None:
    """Sets a large log aside as `NAME.1`, over the older one."""
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_name(log.name + ".1"))


def _wait_gone(session: int, born_after: float) -> None:
    deadline = time.monotonic() + 5.0
    while session_members(session, born_after) and time.monotonic() < deadline:
        time.sleep(0.02)


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
