"""The line pasted by root on a PC with a real, booted systemd: a service of a user who may do nothing else, until it is uninstalled."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from dashboard.joining.package import package
from farm.client import Farm
from farm.unprivileged import NODE_USER
from node_agent.uninstall import SYSTEM_UNIT, UNIT
from tests.farm_process import FarmProcess
from tests.pictures import street
from tests.systemd_machine import PROJECT, SystemdMachine
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

PLACE = "/opt/old-gpu-farm"
HOME = f"/var/lib/{NODE_USER}"
PREPARE = """
import pathlib, subprocess, sys
venv = pathlib.Path(sys.argv[1]) / "venv"
subprocess.run([sys.executable, "-m", "venv", venv], check=True)
(site,) = venv.glob("lib/python*/site-packages")
(site / "tests.pth").write_text(sys.argv[3])
(venv / (".farm-lock-" + sys.argv[2])).touch()
"""
"""An environment as on a PC that was a node before, so that no test depends on an index; the farm itself comes as the head's wheel."""

HEAD_BESIDE = """
import pathlib
from farm.first_steps import prepare
from farm.settings import DataDirectory
prepare(DataDirectory(pathlib.Path("/srv/head")))
"""
"""A head's data on the same PC, with the rights that the head itself gives it."""


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[FarmProcess]:
    with FarmProcess(tmp_path / "data") as made:
        yield made


def line_of(farm: FarmProcess) -> str:
    bearer = {"authorization": f"Bearer {farm.data.admin_token.read_text().strip()}"}
    answer = httpx.post(f"{farm.address}/api/v1/tokens", json={}, headers=bearer, trust_env=False, timeout=20)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["linux"]).replace(f"http://ADDRESS:{farm.port}", farm.address)


def is_idle(client: Farm) -> bool:
    return any(card.node_name == "attic" and card.state == "idle" for card in client.cards())


def shown(machine: SystemdMachine, what: str) -> str:
    return machine.must("systemctl", "show", "--value", "--property", what, UNIT).strip()


def node_processes(machine: SystemdMachine) -> list[psutil.Process]:
    """What runs there of the service, by its cgroup."""
    found = []
    for process in machine.processes():
        try:
            groups = Path(f"/proc/{process.pid}/cgroup").read_text()
        except OSError:
            continue
        if UNIT in groups:
            found.append(process)
    return found


def test_the_line_of_root_makes_a_service_of_an_unprivileged_user(farm: FarmProcess, tmp_path: Path) -> None:
    with SystemdMachine(tmp_path) as machine, farm.client() as client:
        lock = package().lock_sha256("head.txt")
        machine.must(machine.python, "-c", PREPARE, PLACE, lock, "\n".join(machine.libraries))
        said = machine.must("sh", "-c", f"{line_of(farm)} --service --name attic --tag attic", limit_s=120)
        assert f"The node runs as {NODE_USER}" in said
        machine.must("systemd-analyze", "verify", str(SYSTEM_UNIT))
        wait_until(lambda: is_idle(client), 60, "its card is idle")
        root_by_hand_becomes_that_user_too(machine, farm)
        it_renders(client, tmp_path)
        it_may_do_nothing_else(machine)
        it_comes_back_when_killed(machine, client)

        began = time.monotonic()
        machine.must("systemctl", "stop", UNIT)
        print(f"stopped after {time.monotonic() - began:.1f} s")
        assert (shown(machine, "Result"), shown(machine, "ExecMainStatus")) == ("success", "0")
        assert node_processes(machine) == []
        machine.must("systemctl", "start", UNIT)

        said = machine.must("/usr/local/bin/farm", "leave", "--uninstall", limit_s=90)
        assert f"Removed the user {NODE_USER}" in said, said
        for left in (SYSTEM_UNIT, PLACE, HOME, "/usr/local/bin/farm"):
            assert machine.run(["test", "-e", str(left)])[0] == 1, left
        assert machine.run(["id", NODE_USER])[0] == 1
        assert machine.run(["systemctl", "is-active", UNIT])[0] != 0
        paths = {"PYTHONPATH": ":".join([PROJECT, *machine.libraries])}
        by_hand = [machine.python, "-P", "-m", "farm.cli.main", "join", farm.address]
        code, said = machine.run(by_hand, environment=paths)
        assert code == 1, "without that user root is not taken instead"
        assert f"there is no user {NODE_USER} here" in said
        assert "useradd" in said


def it_renders(client: Farm, tmp_path: Path) -> None:
    """A draft on that PC."""
    picture = tmp_path / "street.png"
    street(320, 240).image.save(picture)
    job = client.wait(client.submit(picture, preset="draft", prompt="pan left", needs=["attic"]).id)
    assert job.status == "finished", job


def it_may_do_nothing_else(machine: SystemdMachine) -> None:
    """No process of the node is root's, and its worker can neither read secrets nor change what it runs."""
    uid, gid = (int(machine.must("id", flag, NODE_USER)) for flag in ("-u", "-g"))
    assert uid != 0
    ours = node_processes(machine)
    (worker,) = (one for one in ours if "CardWorker" in " ".join(one.cmdline()))
    for process in ours:
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        )
        assert set(status["Uid"].split()) == {str(uid)}, process
        assert int(status["CapEff"], 16) == 0, process
        assert int(status["CapBnd"], 16) == 0, process
        assert status["NoNewPrivs"].strip() == "1", process
    machine.must(f"{PLACE}/venv/bin/python", "-P", "-c", HEAD_BESIDE)
    assert machine.must("cat", "/srv/head/secrets/ray-token").strip()

    def tried(*command: str) -> str:
        """What a program says that sees and may do what the worker does."""
        inside = ["nsenter", "-t", str(worker.pid), "-m", "-r", "-S", str(uid), "-G", str(gid), *command]
        return subprocess.run(inside, capture_output=True, text=True, check=False, env={"LANG": "C"}).stderr

    for secret in ("/etc/shadow", "/srv/head/secrets/ray-token", "/srv/head/farm.sqlite3"):
        assert "Permission denied" in tried("/usr/bin/head", "-c1", secret), secret
    for program in (f"{PLACE}/venv/x", "/etc/x", "/usr/local/bin/x", "/root/x"):
        assert "Read-only file system" in tried("/usr/bin/touch", program), program
    assert tried("/usr/bin/touch", f"{HOME}/x") == "", "its own it may"


def root_by_hand_becomes_that_user_too(machine: SystemdMachine, farm: FarmProcess) -> None:
    """`farm join` of root: it found the running one by its lock, which lies in that user's home."""
    code, said = machine.run(["/usr/local/bin/farm", "join", farm.address])
    assert code == 1
    assert f"Going on as {NODE_USER}" in said
    assert "This PC is a node already" in said


def it_comes_back_when_killed(machine: SystemdMachine, client: Farm) -> None:
    """By systemd, and what the killed one left is ended."""
    machine.must(
        "sh",
        "-c",
        f"mkdir {SYSTEM_UNIT}.d && printf '[Service]\\nRestartSec=1\\n' >{SYSTEM_UNIT}.d/soon.conf",
    )
    machine.must("systemctl", "daemon-reload")
    before = {one.pid for one in node_processes(machine)}
    first = shown(machine, "MainPID")
    machine.must("kill", "-KILL", first)
    wait_until(lambda: shown(machine, "MainPID") not in ("0", first), 30, "systemd starts it again")
    wait_until(
        lambda: not before & {one.pid for one in node_processes(machine)}, 30, "nothing is left of the first"
    )
    wait_until(
        lambda: (
            any("CardWorker" in " ".join(one.cmdline()) for one in node_processes(machine))
            and is_idle(client)
        ),
        60,
        "its card is idle again",
    )
