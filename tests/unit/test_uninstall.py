"""What `farm leave --uninstall` takes away: only what the join line's script made. systemd's `systemctl` is faked."""

import configparser
import os
import subprocess
from pathlib import Path

import pytest

from node_agent.uninstall import MARK, UNIT, program_folder, remove_programs, remove_service, unit_file
from tests.unit.test_join_line import SCRIPT


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and a `systemctl` that notes what it is asked."""
    tools, told = tmp_path / "bin", tmp_path / "asked"
    tools.mkdir()
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {told}\n')
    (tools / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return told


def test_the_service_is_stopped_disabled_and_forgotten(asked: Path) -> None:
    unit_file().parent.mkdir(parents=True)
    unit_file().write_text("[Unit]\n")
    said: list[str] = []
    remove_service(said.append)
    assert asked.read_text().splitlines() == [f"--user disable --now {UNIT}", "--user daemon-reload"]
    assert not unit_file().exists()
    assert said == [f"Removed the service {UNIT}."]
    remove_service(said.append)
    assert len(said) == 1, "where there is none, nothing is asked"


def test_a_service_that_stops_slowly_is_removed_all_the_same(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`farm leave` ended with a trace: the unit stayed, its farm was not told, and the PC was paused for good."""
    monkeypatch.setattr("node_agent.uninstall.LIMIT_S", 0.2)
    with (tmp_path / "bin/systemctl").open("a") as script:
        script.write("exec sleep 20 >/dev/null 2>&1\n")
    unit_file().parent.mkdir(parents=True)
    unit_file().write_text("[Unit]\n")
    said: list[str] = []
    remove_service(said.append)
    assert not unit_file().exists()
    assert said == [f"Removed the service {UNIT}."]


def test_the_unit_lies_where_the_script_puts_it(asked: Path) -> None:
    text = SCRIPT.decode()
    assert 'units="${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user"' in text
    assert unit_file() == Path.home() / ".config/systemd/user" / UNIT
    assert f'>"$place/{MARK}"' in text


def test_the_script_writes_a_unit_that_starts_the_node_and_uninstalling_finds_it(
    asked: Path, tmp_path: Path
) -> None:
    functions = SCRIPT.decode().removesuffix('main "$@"\n')
    subprocess.run(
        ["sh", "-c", f"{functions}\nhead=http://head:8000 venv=/there/venv\nwrite_unit"], check=True
    )
    unit = configparser.RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # documented way to keep capitals
    unit.read(unit_file())
    assert unit["Service"]["ExecStart"] == '"/there/venv/bin/farm" join http://head:8000'
    assert unit["Service"]["Restart"] == "on-failure"
    assert unit["Install"]["WantedBy"] == "default.target"
    remove_service(lambda _line: None)
    told = [line.removeprefix("--user ").split(" ")[0] for line in asked.read_text().splitlines()]
    assert told == ["daemon-reload", "enable", "restart", "disable", "daemon-reload"]
    assert not unit_file().exists()


def test_a_checkout_s_environment_is_no_folder_of_ours(tmp_path: Path) -> None:
    """`farm leave --uninstall` in a developer's checkout must not remove the checkout."""
    (tmp_path / "venv").mkdir()
    assert program_folder(tmp_path / "venv") is None
    (tmp_path / MARK).write_text("farm-1\n")
    assert program_folder(tmp_path / "venv") == tmp_path


@pytest.mark.parametrize("ours", [True, False])
def test_the_link_goes_only_if_it_is_ours(ours: bool, asked: Path, tmp_path: Path) -> None:
    place, link = tmp_path / "program", tmp_path / ".local/bin/farm"
    (place / "venv/bin").mkdir(parents=True)
    link.parent.mkdir(parents=True)
    link.symlink_to(place / "venv/bin/farm" if ours else tmp_path / "another/farm")
    said: list[str] = []
    remove_programs(place, said.append)
    assert not place.exists()
    assert link.is_symlink() is not ours
    assert said == [f"Removed the farm's programs in {place}."]
