"""A PC with a booted systemd, on this one: its own processes, cgroups and mounts over a throw-away copy of this PC's files.

    with SystemdMachine(tmp_path) as machine:
        machine.run(["systemctl", "start", "some.service"])

The copy is an overlay in memory: nothing that happens there stays. The network is this PC's own, so a farm on loopback is found. Needs
root and `systemd-nspawn` (Debian: systemd-container).
"""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pytest

ROOT = Path(__file__).parent.parent
PROJECT = "/srv/of-the-tests/project"
"""Where this checkout is seen there."""
LIBRARIES = [f"/srv/of-the-tests/libraries-{number}" for number in range(4)]
BOOT_S = 60.0
_BOOT = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
: >"$1/root/etc/machine-id"
chmod 755 "$1/root/root"  # the Python of these tests may lie there, and the node's user shall run it
root="$1/root" name="$2"
shift 2
exec systemd-nspawn --quiet --boot --directory="$root" --machine="$name" --register=no --keep-unit --console=pipe "$@" \\
    systemd.unit=basic.target
"""


def why_impossible() -> str | None:
    """Why no systemd can be booted here; None if one may."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "booting a systemd needs Linux and root"
    for tool in ("systemd-nspawn", "nsenter", "unshare", "runuser"):
        if shutil.which(tool) is None:
            return f"the program `{tool}` is missing (Debian: systemd-container, util-linux)"
    return None


def _shown() -> list[str]:
    """What the copy would not have where it lies: /tmp is another one there, and a unit's is its own; other file systems are left out."""
    places = {ROOT: PROJECT} | {Path(one): place for one, place in zip(_libraries(), LIBRARIES, strict=False)}
    base = Path(sys.base_prefix)
    if base.stat().st_dev != Path("/").stat().st_dev or base.is_relative_to("/tmp"):  # noqa: S108 - nothing is written
        places[base] = str(base)
    return [f"--bind-ro={one}:{place}" for one, place in places.items()]


def _libraries() -> list[str]:
    return [one for one in sys.path if one.endswith("site-packages")]


class SystemdMachine:
    """Boots on entry; all of it is gone on exit."""

    def __init__(self, directory: Path) -> None:
        self._place = directory / "machine"
        self._log = directory / "machine.log"
        self._name = f"farm{secrets.token_hex(4)}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> Self:
        reason = why_impossible()
        if reason is not None:
            pytest.skip(f"no booted systemd: {reason}")
        self._place.mkdir()
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _BOOT, "sh", self._place, self._name, *_shown()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_booted()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(
        self, command: Sequence[str], limit_s: float = 60.0, environment: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Runs a program there, as root and with a bare environment; exit code and what it said."""
        bare = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C",
        }
        done = subprocess.run(
            ["nsenter", "-t", str(self._init), "-m", "-p", "-u", "-i", "-C", "-r", "-w", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=bare | dict(environment or {}),
            timeout=limit_s,
            check=False,
        )
        return done.returncode, done.stdout.decode(errors="replace")

    def must(self, *command: str, limit_s: float = 60.0, **environment: str) -> str:
        """What a program there said, which must have succeeded."""
        code, said = self.run(command, limit_s, environment)
        assert code == 0, f"{command} ended with {code}:\n{said}"
        return said

    @property
    def python(self) -> str:
        """Our Python there, without any libraries but its own."""
        return os.path.realpath(sys.executable)

    @property
    def libraries(self) -> list[str]:
        """Where the libraries of these tests are seen there."""
        return LIBRARIES[: len(_libraries())]

    def processes(self) -> list[psutil.Process]:
        """All that runs there."""
        return psutil.Process(self._init).children(recursive=True)

    def _wait_booted(self) -> None:
        assert self._nspawn is not None
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end:
            if self._nspawn.poll() is not None:
                pytest.skip(f"no booted systemd: {self._log.read_text(errors='replace')[-500:]}")
            with contextlib.suppress(psutil.Error, subprocess.TimeoutExpired, StopIteration):
                self._init = next(
                    one.pid
                    for one in psutil.Process(self._nspawn.pid).children(recursive=True)
                    if one.name() == "systemd"
                )
                if self.run(["systemctl", "is-active", "basic.target"], 5.0)[0] == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(
            f"systemd did not boot in {BOOT_S:.0f} s: {self._log.read_text(errors='replace')[-2000:]}"
        )

    def _end(self) -> None:
        if self._nspawn is None:
            return
        with contextlib.suppress(psutil.Error):
            for one in psutil.Process(self._nspawn.pid).children():
                one.kill()
        if self._init:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, 9)  # the kernel ends all the others with it
        self._nspawn.kill()
        self._nspawn.wait(10)
        for left in (
            f"/run/systemd/nspawn/propagate/{self._name}",
            f"/run/systemd/nspawn/unix-export/{self._name}",
        ):
            shutil.rmtree(left, ignore_errors=True)
