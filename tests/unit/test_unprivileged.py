"""Whom root becomes before a node does anything. `tests/integration/test_service.py` has it become one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from farm.errors import ConfigurationError
from farm.unprivileged import step_down

ROOT = Path(__file__).parents[2]
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@only_root
def test_root_is_not_taken_where_that_user_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="there is no user nobody-here") as caught:
        step_down("nobody-here", print)
    assert "useradd --system" in caught.value.remedy


@only_root
def test_farm_up_becomes_the_user_that_it_is_told_or_says_why_not(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "farm.cli.main",
        "up",
        "--as-user",
        "nobody-here",
        "--data",
        str(tmp_path / "data"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 1
    assert "there is no user nobody-here" in done.stderr
    assert "useradd --system" in done.stderr
    assert not (tmp_path / "data").exists()


@only_root
def test_root_goes_on_as_root_only_when_told_and_is_told_what_that_means() -> None:
    said: list[str] = []
    step_down("root", said.append)
    assert os.geteuid() == 0
    assert "runs as root" in said[0]


@only_root
def test_programs_that_the_user_cannot_read_are_named(tmp_path: Path) -> None:
    """A Python in root's home, which nobody else can start."""
    tmp_path.chmod(0o700)
    hidden = tmp_path / "python"
    hidden.symlink_to(sys.executable)
    program = (
        f"import sys; sys.executable = {str(hidden)!r}\n"
        "from farm.unprivileged import step_down\n"
        "from farm.errors import ConfigurationError\n"
        "try:\n    step_down('nobody', print)\n"
        "except ConfigurationError as error:\n    print(error.message, error.remedy)\n"
        "import os\nprint(os.getresuid())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT, timeout=30
    )
    first, ids = done.stdout.splitlines()
    assert f"cannot read the farm's programs: {hidden}" in first
    assert "/opt" in first
    assert "0" not in ids.strip("()").split(", "), "root is given up for good"


@pytest.mark.skipif(os.geteuid() == 0, reason="for those who are not root")
def test_who_is_not_root_becomes_nobody_else() -> None:
    with pytest.raises(ConfigurationError, match="Only root can become"):
        step_down("nobody", print)
    step_down("", print)
