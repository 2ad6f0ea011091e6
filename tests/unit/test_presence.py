"""Signs of a person at the PC: what logind says, and other programs' share of the cores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.presence import (
    SHARE_OVER_S,
    CpuShare,
    FarmProcesses,
    at_keyboard,
    processor_times,
    used_lately,
)


def session(**told: str) -> str:
    usual = {"Class": "user", "Seat": "seat0", "Type": "wayland", "Remote": "no", "State": "active"}
    usual |= {"IdleHint": "no", "IdleSinceHint": "1732400000000000"}
    return "\n".join(f"{name}={value}" for name, value in (usual | told).items()) + "\n"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (session(), True),
        (session(IdleHint="yes"), False),
        (session(Type="tty", IdleSinceHint="0"), True),
        (session(IdleSinceHint="0"), None),
        (session(Remote="yes", Seat=""), False),
        (session(Class="greeter"), False),
        (session(State="closing"), False),
        (session(IdleHint="yes") + "\n" + session(), True),
        (session(IdleSinceHint="0") + "\n" + session(IdleHint="yes"), None),
        ("", False),
    ],
)
def test_what_logind_says_of_keyboard_and_mouse(told: str, expected: bool | None) -> None:
    assert used_lately(told) is expected


@pytest.fixture
def loginctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `loginctl` that answers what lies in `sessions` and `shown` beside it."""
    program = tmp_path / "loginctl"
    program.write_text(
        '#!/bin/sh\ncd "$(dirname "$0")"\ncase "$1" in\nlist-sessions) cat sessions;;\nshow-session) cat shown;;\nesac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_the_sessions_of_this_pc_are_asked(loginctl: Path) -> None:
    (loginctl / "sessions").write_text("  3 1000 ann seat0 tty2 active no -\n")
    (loginctl / "shown").write_text(session())
    assert at_keyboard() is True
    (loginctl / "sessions").write_text("")
    assert at_keyboard() is False, "nobody is signed in"
    (loginctl / "loginctl").write_text("#!/bin/sh\necho 'no bus' >&2\nexit 1\n")
    assert at_keyboard() is None


def test_without_logind_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert at_keyboard() is None


def test_the_share_of_others_is_a_mean_over_twenty_seconds() -> None:
    seconds = iter([0.0, 10.0, 20.0, 25.0])
    # busy, all (of four cores), the farm's
    times = iter(
        [(100.0, 1000.0, 50.0), (130.0, 1040.0, 60.0), (160.0, 1080.0, 70.0), (220.0, 1100.0, 130.0)]
    )
    share = CpuShare(lambda: next(times), lambda: next(seconds))
    assert share.of_others() is None
    assert share.of_others() is None
    assert share.of_others() == pytest.approx((60 - 20) / 80)
    assert share.of_others() == pytest.approx((120 - 80) / 100)
    assert SHARE_OVER_S == 20.0


def test_processor_times_grow_and_count_this_pc() -> None:
    busy, whole, ours = processor_times()
    again = processor_times()
    assert 0 <= busy <= whole
    assert ours >= 0
    assert again[1] >= whole


def test_a_process_of_the_farm_is_a_descendant_of_its_daemon() -> None:
    """The worker that had just started was taken for its owner's program, and driven off."""
    ours = FarmProcesses()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert ours(child.pid), "a child of a child of what started this process"
        assert not ours(1)
    finally:
        child.kill()
        child.wait()
    assert not ours(child.pid)
