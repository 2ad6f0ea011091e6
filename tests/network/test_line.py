"""The line of "Add a PC", pasted for real on another machine: from the head's script to a node that Ray sees, and away again.

The environment is there, as on a PC that was a node before: it sees the packages of the one that runs the tests, so that no test depends on
an index. The farm itself comes as the head's wheel.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from dashboard.joining.package import package
from node_agent.uninstall import MARK
from tests.network.farms import Head, Node, farm_of

pytestmark = [pytest.mark.network, pytest.mark.timeout(400)]

JOINED_WITHIN_S = 20.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Head, Node]]:
    """A farm, and another PC that is not yet in it."""
    with farm_of(tmp_path_factory.mktemp("farm"), "attic") as (head, (node,)):
        yield head, node


def line_of(head: Head) -> str:
    """The line for Linux, as the dashboard shows it."""
    token = head.data.admin_token.read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.post(f"{head.url}/api/v1/tokens", json={}, headers=headers, timeout=20, trust_env=False)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["linux"])


def prepared(place: Path) -> Path:
    """A folder as the script leaves it, with the locked packages in its environment."""
    venv = place / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "tests.pth").write_text("\n".join(one for one in sys.path if one.endswith("site-packages")))
    (venv / f".farm-lock-{package().lock_sha256('head.txt')}").touch()
    return place


def test_the_line_makes_a_pc_a_node_within_20_s_and_uninstalling_leaves_nothing(
    pair: tuple[Head, Node], tmp_path: Path
) -> None:
    head, node = pair
    home = tmp_path / "home"
    home.mkdir()
    place = prepared(home / "program")
    env = {"HOME": str(home), "FARM_PROGRAM": str(place), "FARM_NODE_HOME": str(node.home), "PYTHONPATH": ""}
    env |= {"XDG_DATA_HOME": str(home / "data"), "XDG_CONFIG_HOME": str(home / "config")}
    line = line_of(head)
    pasted = node.machine.start(["sh", "-c", line], "line", env)
    seconds = pasted.wait_for("Connected", 90)
    print(f"joined {seconds:.1f} s after the line was pasted\n{pasted.output()}")
    assert len(head.rays_of(node)) == 1
    # The figure is for a PC that does nothing else.
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert seconds < JOINED_WITHIN_S * busy, f"load {busy:.1f} per core\n{pasted.output()}"
    assert "wrong" not in pasted.output(), "farm doctor was run and is content"
    assert (place / MARK).read_text().strip()
    where = "import farm; print(farm.__file__)"
    _, file = node.machine.run([str(place / "venv/bin/python"), "-P", "-c", where], environment=env)
    assert file.startswith(str(place)), "the node runs the wheel, not the checkout"
    farm = home / ".local/bin/farm"
    assert farm.readlink() == place / "venv/bin/farm"
    # By the number in its lock: the process that was started here is the shell around it.
    node.machine.run(["sh", "-c", f"kill -TERM $(cat {node.home}/lock)"])
    assert pasted.wait(30) == 0, pasted.output()

    before = {path: path.stat().st_mtime_ns for path in (place / "venv").rglob("*.dist-info/RECORD")}
    again = node.machine.start(["sh", "-c", line], "line", env)
    again.wait_for("Connected", 60)  # this PC is known, so the used code does not matter
    after = {path: path.stat().st_mtime_ns for path in (place / "venv").rglob("*.dist-info/RECORD")}
    assert after == before, "the second time nothing is installed"

    code, said = node.machine.run([str(farm), "leave", "--uninstall"], environment=env)
    assert code == 0, said
    assert again.wait(30) == 0, again.output()
    # What pip's helpers leave in a home of their own accord aside.
    ours = [
        path
        for place in (".local", "data", "config")
        for path in (home / place).rglob("*")
        if not path.is_dir()
    ]
    assert ours == [], said
    assert not (home / "program").exists()
    assert not node.home.exists()
    assert node.machine.processes() == []
    listed = httpx.get(
        f"{head.url}/api/v1/nodes",
        headers={"authorization": f"Bearer {head.data.admin_token.read_text().strip()}"},
        trust_env=False,
    )
    assert [one["name"] for one in json.loads(listed.text)], "its history stays"


def test_a_script_that_is_not_the_line_s_is_not_run(pair: tuple[Head, Node], tmp_path: Path) -> None:
    head, node = pair
    line = line_of(head)
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "FARM_PROGRAM": str(prepared(home / "program")), "PYTHONPATH": ""}
    sha = line.split("echo ")[1].split("'")[0]
    code, said = node.machine.run(["sh", "-c", line.replace(sha, "0" * 64)], environment=env)
    assert code != 0
    assert "FAILED" in said
    assert not (home / "program" / MARK).exists()
