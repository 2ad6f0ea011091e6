"""Is somebody at this PC? Keyboard and mouse through logind, other programs' work through the kernel's accounts. None: not known."""

import logging
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping

import psutil

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
"""Pause between two looks: each starts `loginctl` and walks over the farm's processes, some milliseconds of a core."""
SHARE_OVER_S = 20.0
"""The share of the cores is a mean over this long: a program that starts is no owner at work."""
_LIMIT_S = 2.0
_ASKED = ("Class", "Seat", "Type", "Remote", "State", "IdleHint", "IdleSinceHint")
_GRAPHICAL = ("x11", "wayland", "mir")


def at_keyboard() -> bool | None:
    """Whether keyboard or mouse of this PC were used lately, as its desktop tells logind; None where there is no logind, or no word of it.

    How long "lately" is, is the desktop's own setting (5 minutes in GNOME), and 5 minutes on a text console.
    """
    loginctl = shutil.which("loginctl")
    if loginctl is None:
        return None
    try:
        listed = _run([loginctl, "list-sessions", "--no-legend"])
        names = [line.split()[0] for line in listed.splitlines() if line.split()]
        if not names:
            return False
        asked = [f"--property={name}" for name in _ASKED]
        return used_lately(_run([loginctl, "show-session", *asked, *names]))
    except (OSError, subprocess.SubprocessError) as error:
        log.debug("logind does not say who is there: %s", error)
        return None


def _run(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_LIMIT_S).stdout


def used_lately(told: str) -> bool | None:
    """What `loginctl show-session` says of keyboard and mouse: a block of "Name=value" lines for each session, empty lines between.

    Sessions from elsewhere have no keyboard here. A desktop that never told logind of idleness says "no" for ever, without a time: from
    that nothing follows.
    """
    unknown = False
    for block in told.split("\n\n"):
        session = dict(line.partition("=")[::2] for line in block.splitlines())
        if not _is_here(session) or session.get("IdleHint") != "no":
            continue
        if session.get("Type") in _GRAPHICAL and session.get("IdleSinceHint", "0") == "0":
            unknown = True
            continue
        return True
    return None if unknown else False


def _is_here(session: Mapping[str, str]) -> bool:
    return (
        session.get("Class") == "user"
        and bool(session.get("Seat"))
        and session.get("Remote") == "no"
        and session.get("State") != "closing"
    )


class CpuShare:
    """The share (0 to 1) of all cores that programs besides the farm's take.

    `look` gives (busy, all, the farm's) seconds of processor time so far, and `clock` monotonic seconds.
    """

    def __init__(self, look: Callable[[], tuple[float, float, float]], clock: Callable[[], float]) -> None:
        self._look = look
        self._clock = clock
        self._looks: deque[tuple[float, tuple[float, float, float]]] = deque()

    def of_others(self) -> float | None:
        """The mean over the last `SHARE_OVER_S`; None until it was watched for that long."""
        now = self._clock()
        self._looks.append((now, self._look()))
        while len(self._looks) > 2 and now - self._looks[1][0] >= SHARE_OVER_S:
            self._looks.popleft()
        since, first = self._looks[0]
        if now - since < SHARE_OVER_S:
            return None
        busy, whole, ours = (new - old for new, old in zip(self._looks[-1][1], first, strict=True))
        # A process of ours that ended takes its time with it: then the farm's share counts as none, never as less.
        return max(0.0, min(1.0, (busy - max(0.0, ours)) / whole)) if whole > 0 else None


def processor_times() -> tuple[float, float, float]:
    """Seconds of processor time since the PC started: busy, all, and the farm's, which are the children of Ray's daemon here."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return whole - idle, whole, sum(_seconds(process) for process in farm_processes())


def farm_processes() -> list[psutil.Process]:
    """Ray's daemon on this PC and all that it started, as seen from one of its actors."""
    daemon = psutil.Process().parent()
    return [] if daemon is None else [daemon, *daemon.children(recursive=True)]


class FarmProcesses:
    """Whether a process is of this node: a descendant of its Ray daemon. Made in one of its actors; remembers whom it was asked about."""

    def __init__(self) -> None:
        self._daemon = psutil.Process().ppid()
        self._known: dict[tuple[int, float], bool] = {}

    def __call__(self, pid: int) -> bool:
        """Whether the process of this id is one."""
        try:
            process = psutil.Process(pid)
            who = (pid, process.create_time())
            if who not in self._known:
                self._known[who] = any(parent.pid == self._daemon for parent in process.parents())
            return self._known[who]
        except psutil.Error:
            return False


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
        return float(times.user + times.system)
    except psutil.Error:
        return 0.0
