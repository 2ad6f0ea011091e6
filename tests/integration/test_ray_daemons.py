"""Ray's daemons as `farm.daemons` builds their command lines: up, guarded by the token, and down without a trace."""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from farm import daemons, supervise
from farm.daemons import RayPorts
from farm.supervise import Child, Program
from tests.farm_process import free_ray_port
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

DRIVER = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except Exception as error:
    print("REFUSED", error, file=sys.stderr)
    raise SystemExit(3)

@ray.remote(num_cpus=0)
def add(a, b):
    return a + b

print("LABELS", sorted(n["Labels"].get("farm-node", "") for n in ray.nodes() if n["Alive"]))
print("SUM", ray.get(add.remote(40, 2), timeout=60))
"""


class RayHead:
    """A head's daemons in a directory of their own."""

    def __init__(self, root: Path) -> None:
        self.token = root / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.environment = daemons.ray_environment(os.environ, token=self.token)
        self.ports = RayPorts(free_ray_port())
        self.address = f"{daemons.LOOPBACK_NODE}:{self.ports.base}"
        self.temp_dir = daemons.temp_dir_for(root)
        self._log = root / "ray.log"

    def start(self) -> Child:
        daemons.prepare_temp_dir(self.temp_dir)
        command = daemons.head_command(
            address=daemons.LOOPBACK_NODE,
            ports=self.ports,
            temp_dir=self.temp_dir,
            object_store_mib=100,
            node_id="HEADNODE",
        )
        child = Child(Program("ray", command, self.environment, self._log, daemons.RAY_GRACE_S))

        def ready() -> bool:
            assert child.exit_code is None, child.said()
            return any(daemons.READY_MARK in line for line in child.said())

        wait_until(ready, 60, "Ray is up")
        return child


@pytest.fixture
def head(tmp_path: Path) -> Iterator[RayHead]:
    found = RayHead(tmp_path)
    yield found
    shutil.rmtree(found.temp_dir, ignore_errors=True)


def drive(head: RayHead, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DRIVER, head.address],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_only_a_driver_with_the_token_gets_in_and_nothing_stays_behind(head, tmp_path):
    child = head.start()
    try:
        served = drive(head, head.environment)
        assert "SUM 42" in served.stdout, served.stderr
        assert "LABELS ['HEADNODE']" in served.stdout
        without = {name: value for name, value in head.environment.items() if not name.startswith("RAY_AUTH")}
        without["HOME"] = str(tmp_path)  # ~/.ray/auth_token must not help
        without["RAY_NUM_REDIS_GET_RETRIES"] = (
            "3"  # a driver asks for 20 s, once a second; it is refused each time
        )
        refused = drive(head, without)
        assert refused.returncode == 3, refused.stdout
        assert "InvalidAuthToken" in refused.stderr
        below = psutil.Process(child.pid).children(recursive=True)
        listening = {
            entry.laddr.port
            for process in [psutil.Process(child.pid), *below]
            for entry in process.net_connections("tcp")
            if entry.status == psutil.CONN_LISTEN
        }
        # One firewall line must cover all of it.
        assert listening
        assert listening <= set(range(head.ports.base, head.ports.last + 1))
    finally:
        began = time.monotonic()
        child.end()
        took = time.monotonic() - began
    assert [process for process in below if supervise.birth(process.pid) is not None] == []
    assert took < 10.0


def test_ray_starts_again_at_once_after_it_was_killed(head):
    """`ray start --head` refused with "already running" as long as a raylet of the killed one was still ending."""
    first = head.start()
    first_processes = psutil.Process(first.pid).children(recursive=True)
    psutil.Process(first.pid).kill()
    wait_until(lambda: first.exit_code is not None, 10, "ray start is dead")
    first.end()
    assert [process for process in first_processes if supervise.birth(process.pid) is not None] == []
    second = head.start()
    try:
        assert "SUM 42" in drive(head, head.environment).stdout
    finally:
        second.end()
