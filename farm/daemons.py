"""How Ray's daemons are started: command lines, environment, ports and temporary directory. Starts nothing and imports no Ray.

Everything here was tried with the pinned Ray; `tests/integration/test_ray_daemons.py` tries it again.
"""

import hashlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from farm.errors import ConfigurationError
from farm.settings import QUIET_ENVIRONMENT
from farm.tls import RAY_NAMES, TlsFiles, ray_variables

READY_MARK = "Ray runtime started."
"""What `ray start` prints once its daemons run and are registered with the head."""

LOOPBACK_NODE = "127.0.0.2"
"""The address of a Ray that serves this PC alone. Ray replaces 127.0.0.1 by the PC's address on the LAN, and breaks when a laptop changes
networks; it takes any other loopback address as it is."""

SECOND_LOOPBACK_NODE = "127.0.0.3"
"""The address of a node beside such a head on the same PC: a driver finds its own daemons by address, so they must differ."""

RAY_GRACE_S = 8.0
"""Ray has this long to end; it takes 1 to 3 s."""

_SOCKET_TAIL = len("/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store.12345")
_SOCKET_PATH_LIMIT = 107  # sun_path of Linux, less its end mark


@dataclass(frozen=True, slots=True)
class RayPorts:
    """One block of ports for all of a PC's Ray daemons, so that one firewall line covers them."""

    base: int

    WORKERS_FROM = 20
    SIZE = 120
    """20 for daemons, 100 for actors: agent, workers, drivers and Ray's spare processes."""

    @property
    def last(self) -> int:
        """The last port of the block."""
        return self.base + self.SIZE - 1

    def named(self) -> dict[str, int]:
        """Ray's options and their ports, save the GCS's, which is `base` on a head."""
        names = (
            "node-manager-port",
            "object-manager-port",
            "runtime-env-agent-port",
            "dashboard-agent-listen-port",
            "dashboard-agent-grpc-port",
            "metrics-export-port",
        )
        ports = {name: self.base + 1 + index for index, name in enumerate(names)}
        return ports | {"min-worker-port": self.base + self.WORKERS_FROM, "max-worker-port": self.last}

    def listened(self) -> range:
        """The daemons' own ports, which must be free at the start."""
        return range(self.base, self.base + 7)


def head_command(
    *, address: str, ports: RayPorts, temp_dir: Path, object_store_mib: int, node_id: str | None
) -> list[str]:
    """The head's daemons in the foreground, on `address`; without `node_id` the farm places nothing on this PC."""
    return [
        *_RAY_START,
        "--head",
        f"--port={ports.base}",
        "--include-dashboard=false",
        "--no-monitor",  # Ray's autoscaler: 82 MB for nothing to scale
        *_common(address, ports, temp_dir, object_store_mib, node_id),
    ]


def node_command(
    *, head: str, address: str, ports: RayPorts, temp_dir: Path, object_store_mib: int, node_id: str
) -> list[str]:
    """A node's daemons in the foreground, joining the Ray at `head` ("address:port")."""
    return [
        *_RAY_START,
        f"--address={head}",
        *_common(address, ports, temp_dir, object_store_mib, node_id),
    ]


_RAY_START = (sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block")


def _common(
    address: str, ports: RayPorts, temp_dir: Path, object_store_mib: int, node_id: str | None
) -> Iterator[str]:
    yield f"--node-ip-address={address}"
    yield f"--temp-dir={temp_dir}"
    yield f"--object-store-memory={object_store_mib * 1_000_000}"
    yield "--include-log-monitor=false"
    yield "--disable-usage-stats"
    for name, port in ports.named().items():
        yield f"--{name}={port}"
    if node_id is not None:
        yield f"--labels=farm-node={node_id}"


def ray_environment(
    base: Mapping[str, str], *, token: Path, node_home: Path | None = None, tls: TlsFiles | None = None
) -> dict[str, str]:
    """The environment of Ray's daemons and of every driver: quiet, with the farm's own token, and its certificates where it has TLS.

    The user's `RAY_ADDRESS` and tokens for another Ray are left out: `ray start --head` would refuse or join the wrong one.
    """
    foreign = {"RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_NAMESPACE", "RAY_TMPDIR", *RAY_NAMES}
    found = {name: value for name, value in base.items() if name not in foreign}
    found |= QUIET_ENVIRONMENT
    # Ray waits up to 30 s for actors to move away before it ends. Ours never do, and a node that is killed while it waits has not signed
    # off: the head took it for alive for 13 s more.
    found["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"] = "0"
    # Ray starts a Python process for each core ahead of tasks that may come, 50 to 70 MB each. The farm has no tasks, and few actors.
    found |= {"RAY_enable_worker_prestart": "0", "RAY_prestart_worker_first_driver": "0"}
    found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "PYTHONUNBUFFERED": "1"}
    found |= ray_variables(tls)
    if node_home is not None:
        found["FARM_NODE_HOME"] = str(node_home)
    return found


def temp_dir_for(root: Path) -> Path:
    """Ray's temporary directory for the farm in `root`: named by a hash, since socket paths below it may have 107 characters."""
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:12]
    found = Path(tempfile.gettempdir()) / f"farm-{digest}"
    if len(str(found)) + _SOCKET_TAIL > _SOCKET_PATH_LIMIT:
        found = Path("/tmp") / f"farm-{digest}"  # noqa: S108 - private by mode and owner, see prepare_temp_dir
    return found


def prepare_temp_dir(path: Path) -> None:
    """Makes Ray's temporary directory ours alone, and fit for another start. No daemon of ours may run.

    `ray start --head` refuses when the address noted in `ray_current_cluster` is the one it wants and any raylet on the PC has
    that address on its command line, even one that is just ending: so the note goes. Of the logs, those of the last session stay.

    Raises:
        ConfigurationError: somebody else's directory is in the way.
    """
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.getuid():
        raise ConfigurationError(
            f"Ray's temporary directory {path} belongs to somebody else.", f"Remove it: sudo rm -r {path}"
        )
    path.chmod(0o700)
    (path / "ray_current_cluster").unlink(missing_ok=True)
    sessions = sorted(entry for entry in path.glob("session_2*") if entry.is_dir())
    for old in sessions[:-1]:
        shutil.rmtree(old, ignore_errors=True)


def own_address_towards(host: str, port: int) -> str:
    """This PC's address on the way to `host`, by a UDP socket that sends nothing.

    Raises:
        OSError: the name is unknown or there is no way there.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((host, port))
        return str(sock.getsockname()[0])


def is_loopback(host: str) -> bool:
    """Whether only this PC can reach a server on `host`."""
    return host == "localhost" or host.startswith("127.")


_REASONS = (
    (
        ("AuthenticationError", "InvalidAuthToken", "UNAUTHENTICATED", "Unauthenticated"),
        "the head's Ray refused our token",
    ),
    (("Version mismatch",), "this PC's Ray or Python has another version than the head's"),
    (("marked as dead by the GCS",), "the head had given this PC up, which did not answer for a minute"),
    (("WrongClusterID",), "the head's Ray is another one than before"),
    (("Failed to connect to GCS", "RPC error: Deadline", "UNAVAILABLE"), "the head's Ray did not answer"),
    (("already running", "Address already in use"), "another Ray uses its ports"),
)
"""What Ray writes, and what it means; the first that is found counts."""


def why_it_failed(log_tail: Sequence[str]) -> str:
    """One sentence on why `ray start` ended, from the last lines of its log."""
    text = "\n".join(log_tail)
    for marks, reason in _REASONS:
        if any(mark in text for mark in marks):
            return reason
    errors = [line for line in log_tail if "Error" in line or "ERR" in line]
    return (errors or list(log_tail) or ["it said nothing"])[-1].strip()[:200]
