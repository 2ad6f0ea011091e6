"""Several PCs on this one: network namespaces joined by a bridge, each with processes, `/proc` and address of its own.

    with Bed(tmp_path, 2) as bed:
        head, node = bed.machines
        server = head.start(["farm", "up", "--host", head.address], "up")
        node.cut()           # its cable is pulled
        node.heal()
        node.worsen(0.05, 0.01)   # 50 ms each way, and one frame in a hundred is lost
        node.mend()
        head.power_cut()     # kill -9 of all that runs there
        head.power_on()

A machine is an init process in its own PID and mount namespace; others are entered into these. So the machine's processes see only each
other (Ray looks at every process of a PC before it starts), and all end with their init. Needs root.
"""

import contextlib
import itertools
import os
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pytest

from tests.waiting import pauses

_SLOW_LINE = Path(__file__).with_name("slow_line.py")
# An init that lets the kernel reap orphans: a machine whose dead stay visible would look alive to Ray and to us.
_INIT = "import signal, time\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nprint('up', flush=True)\nwhile True: time.sleep(3600)"


def why_impossible() -> str | None:
    """Why namespaces cannot be made here; None if they can."""
    if sys.platform != "linux":
        return "network namespaces exist on Linux only"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    for tool in ("ip", "unshare", "nsenter"):
        if shutil.which(tool) is None:
            return f"the program `{tool}` is missing (Debian: iproute2, util-linux)"
    try:
        _make_tun()
    except OSError as error:
        return f"/dev/net/tun, of which slow lines are made, cannot be opened: {error.strerror}"
    name = f"fbt{secrets.token_hex(3)}"
    tried = _try("ip", "netns", "add", name)
    if tried.returncode != 0:
        return f"`ip netns add` failed: {tried.stderr.strip()}"
    ran = _try("ip", "netns", "exec", name, "unshare", "-pf", "--mount-proc", "true")
    _ip("netns", "del", name)
    return None if ran.returncode == 0 else f"`unshare` failed: {ran.stderr.strip()}"


def _make_tun() -> None:
    """A container often lacks the device that its kernel has. Raises OSError where that has none either."""
    tun = Path("/dev/net/tun")
    if not tun.exists():
        tun.parent.mkdir(exist_ok=True)
        os.mknod(tun, stat.S_IFCHR | 0o600, os.makedev(10, 200))
    os.close(os.open(tun, os.O_RDWR))


def require() -> None:
    """Skips the test where there can be no bed; fails it where the environment says that there must be one."""
    reason = why_impossible()
    if reason is None:
        return
    if os.environ.get("FARM_REQUIRE_NETWORK_TESTS") == "1":
        pytest.fail(f"network tests are required here, but {reason}", pytrace=False)
    pytest.skip(f"no network test bed: {reason}")


class Running:
    """A process on a machine. `pid` is its id on the real PC."""

    def __init__(self, entered: subprocess.Popen[bytes], pid: int, log: Path) -> None:
        self._entered = entered
        self.pid = pid
        self.log = log

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._entered.poll()

    def output(self) -> str:
        """What it wrote so far, both streams."""
        return self.log.read_text(errors="replace")

    def signal(self, number: int) -> None:
        """Sends a signal to it alone."""
        os.kill(self.pid, number)

    def wake_outside(self) -> None:
        """Wakes what waits for it on the real PC."""
        if self._entered.poll() is None:
            self._entered.send_signal(signal.SIGCONT)

    def wait(self, limit_s: float) -> int:
        """Its exit code, once it ended by itself."""
        return self._entered.wait(limit_s)

    def wait_for(self, text: str, limit_s: float) -> float:
        """Seconds until it wrote a text; fails with its output when it ended before or the time is over."""
        return wait_until(
            lambda: text in self.output(),
            limit_s,
            lambda: f"{text!r} in\n{self.output()}",
            give_up=lambda: self.exit_code is not None and text not in self.output(),
        )

    def end(self, limit_s: float = 15.0) -> int:
        """Asks it to end, and kills it when it does not."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGTERM)
        try:
            return self._entered.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self._entered.wait(5.0)


class Machine:
    """One PC of the bed."""

    def __init__(self, bed: "Bed", number: int) -> None:
        self.name = f"{bed.name}m{number}"
        self.address = f"{bed.net}.{number}"
        self.directory = bed.directory / f"pc{number}"
        self.directory.mkdir()
        self._bridge = bed.bridge
        self._link = f"{self.name}l"
        self._slow: subprocess.Popen[str] | None = None
        self._counter = itertools.count()
        self._started: list[Running] = []
        self._asleep: list[psutil.Process] = []
        self._init: subprocess.Popen[bytes] | None = None
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("link", "set", self._link, "master", bed.bridge, "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        _ip("-n", self.name, "link", "set", "eth0", "up")
        _ip("-n", self.name, "link", "set", "lo", "up")
        self.power_on()

    def power_on(self) -> None:
        """Boots it: nothing runs there yet, the disk is as it was."""
        self._init = subprocess.Popen(
            [
                *(_tool("ip"), "netns", "exec", self.name),
                *(_tool("unshare"), "-pf", "--kill-child", "--mount-proc", sys.executable, "-c", _INIT),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._init.stdout is not None
        said = self._init.stdout.readline()
        assert said == b"up\n", f"{self.name} did not boot: {said!r}"

    def power_cut(self) -> None:
        """Ends all its processes with SIGKILL at once."""
        assert self._init is not None
        os.kill(self._init_pid(), signal.SIGKILL)  # the kernel ends a PID namespace with its init
        self._init.wait(60.0)  # on a busy machine the kernel takes its time with all of Ray
        for running in self._started:
            running.wait(60.0)
        if self._init.stdout is not None:
            self._init.stdout.close()
        self._init = None

    def cut(self) -> None:
        """Pulls its cable."""
        _ip("link", "set", self._link, "down")

    def heal(self) -> None:
        """Plugs its cable in again."""
        _ip("link", "set", self._link, "up")

    def worsen(self, delay_s: float, loss: float, seed: int = 1) -> None:
        """Puts a bad line between it and the others, under what runs: `delay_s` each way, a share `loss` of the frames dropped."""
        near, far, between = (f"{self.name}{end}" for end in ("n", "f", "b"))
        self._slow = subprocess.Popen(
            [sys.executable, str(_SLOW_LINE), near, far, str(delay_s), str(loss), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._slow.stdout is not None
        said = self._slow.stdout.readline()
        assert said == "up\n", f"the slow line of {self.name} did not start: {said!r}"
        _ip("link", "add", between, "type", "bridge")
        _ip("link", "set", between, "up")
        _ip("link", "set", near, "master", between, "up")
        _ip("link", "set", far, "master", self._bridge, "up")
        _ip("link", "set", self._link, "master", between)

    def mend(self) -> tuple[int, int]:
        """Takes the bad line away again; returns how many frames it carried and how many it dropped."""
        assert self._slow is not None
        assert self._slow.stdout is not None
        _ip("link", "set", self._link, "master", self._bridge)
        self._slow.terminate()
        self._slow.wait(10.0)  # its devices end with it
        said = self._slow.stdout.read()
        self._slow.stdout.close()
        self._slow = None
        _ip("link", "del", f"{self.name}b")
        told = re.search(r"carried (\d+), dropped (\d+)", said)
        assert told is not None, f"the slow line of {self.name} broke: {said!r}"
        return int(told[1]), int(told[2])

    def suspend(self) -> None:
        """Stops all that runs there, as the lid of a laptop does."""
        self._asleep = self.processes()
        for process in self._asleep:
            with contextlib.suppress(psutil.NoSuchProcess):  # it was ending
                process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Lets it go on. So do the `nsenter`s outside, which stop with what they have entered."""
        for process in self._asleep:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
        for running in self._started:
            running.wake_outside()

    def start(
        self, command: Sequence[str], name: str, environment: Mapping[str, str] | None = None
    ) -> Running:
        """Starts a program there; both its streams go to a log."""
        log = self.directory / f"{name}-{next(self._counter)}.log"
        with log.open("wb") as file:
            entered = subprocess.Popen(
                [_tool("nsenter"), "-t", str(self._init_pid()), "-p", "-m", "-n", *command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(os.environ) | dict(environment or {}),
                start_new_session=True,
            )
        found: list[psutil.Process] = []

        def entered_child() -> bool:
            with contextlib.suppress(psutil.NoSuchProcess):
                found[:] = psutil.Process(entered.pid).children()
            return bool(found) or entered.poll() is not None

        wait_until(entered_child, 10.0, lambda: f"{command[0]} started on {self.name}")
        running = Running(entered, found[0].pid if found else entered.pid, log)
        self._started.append(running)
        return running

    def run(
        self,
        command: Sequence[str],
        limit_s: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Runs a program there to its end; returns exit code and output."""
        running = self.start(command, Path(command[0]).name, environment)
        try:
            return running.wait(limit_s), running.output()
        except subprocess.TimeoutExpired:
            running.signal(signal.SIGKILL)
            running.wait(5.0)
            raise AssertionError(f"{command} took over {limit_s} s:\n{running.output()}") from None

    def processes(self) -> list[psutil.Process]:
        """What runs there, its init and corpses aside."""
        if self._init is None:
            return []
        here = Path(f"/proc/{self._init_pid()}/ns/pid").readlink()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                inside = Path(f"/proc/{process.pid}/ns/pid").readlink() == here
                if inside and process.pid != self._init_pid() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def remove(self) -> None:
        """Ends it for good."""
        with contextlib.ExitStack() as each:
            each.callback(_try, "ip", "link", "del", self._link)
            each.callback(_try, "ip", "netns", "del", self.name)
            if self._slow is not None:
                each.callback(self.mend)
            if self._init is not None:
                each.callback(self.power_cut)

    def _init_pid(self) -> int:
        """The init's id on the real PC: `unshare` waits outside for it."""
        assert self._init is not None, f"{self.name} is off"
        return psutil.Process(self._init.pid).children()[0].pid


class Bed:
    """So many machines on one bridge. Removes all of it at the end, also when the test failed."""

    def __init__(self, directory: Path, machines: int) -> None:
        self.directory = directory
        self.name, self.net = "", ""
        self.machines: list[Machine] = []
        self._count = machines

    def __enter__(self) -> Self:
        self._claim()
        try:
            # The address lets the test itself speak to the machines.
            _ip("addr", "add", f"{self.net}.254/24", "dev", self.bridge)
            _ip("link", "set", self.bridge, "up")
            for number in range(1, self._count + 1):
                self.machines.append(Machine(self, number))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    @property
    def bridge(self) -> str:
        """The bridge's name, which no other bed has: making it is what claims the bed's number."""
        return f"{self.name}br"

    def _claim(self) -> None:
        """Takes a network that nobody here uses; of two processes that want the same one at once, the kernel gives it to one."""
        taken = {
            address.address.rpartition(".")[0]
            for all_of in psutil.net_if_addrs().values()
            for address in all_of
        }
        for number in range(256):
            self.name, self.net = f"fb{number}", f"10.77.{number}"
            if (
                self.net not in taken
                and _try("ip", "link", "add", self.bridge, "type", "bridge").returncode == 0
            ):
                return
        raise AssertionError("no network is free for a bed")

    def _remove(self) -> None:
        with contextlib.ExitStack() as each:  # all of it, also where one will not go
            each.callback(_try, "ip", "link", "del", self.bridge)
            for machine in self.machines:
                each.callback(machine.remove)


def wait_until(
    condition: Callable[[], bool],
    limit_s: float,
    what: Callable[[], str],
    give_up: Callable[[], bool] = lambda: False,
) -> float:
    """Waits for a condition; returns the seconds it took."""
    began = time.monotonic()
    for pause in pauses():
        if condition():
            break
        waited = time.monotonic() - began
        if waited > limit_s or give_up():
            raise AssertionError(f"waited {waited:.1f} s in vain for {what()}")
        time.sleep(pause)
    return time.monotonic() - began


def _ip(*arguments: str) -> None:
    done = _try("ip", *arguments)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


def _try(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_tool(tool), *arguments], capture_output=True, text=True, check=False)


def _tool(name: str) -> str:
    return shutil.which(name) or name
