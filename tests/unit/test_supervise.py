"""Children: start, watch, end, and what is left of them after a crash."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm import supervise
from farm.supervise import Backoff, Bell, Child, Program, Trace

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
# Its own child leaves the process group, as Ray's workers do, and ignores SIGTERM.
WITH_STRAY = f"""
import subprocess, sys, time
stray = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], process_group=0)
print("stray", stray.pid, flush=True)
time.sleep(600)
"""


def program(tmp_path: Path, code: str, grace_s: float = 5.0) -> Program:
    return Program(
        "it", [sys.executable, "-c", code], dict(os.environ), tmp_path / "logs" / "it.log", grace_s
    )


def eventually(condition: Callable[[], object], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_says_why_it_ended(tmp_path):
    child = Child(program(tmp_path, "print('hello'); raise SystemExit(3)"))
    eventually(lambda: child.exit_code is not None)
    assert child.exit_code == 3
    assert child.said() == ["hello"]


def test_what_an_earlier_run_said_is_not_what_this_one_said(tmp_path):
    """The mark of a former Ray in the same log would make the next one look ready at once."""
    for word in ("former", "present"):
        child = Child(program(tmp_path, f"print('{word}')"))
        eventually(lambda child=child: child.exit_code is not None)
    assert child.said() == ["present"]
    assert child.program.log.read_text().split() == ["former", "present"]


def test_a_child_that_ends_when_asked_is_not_killed(tmp_path):
    code = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(7)); print('up', flush=True); time.sleep(600)"
    child = Child(program(tmp_path, code))
    eventually(child.said)
    assert child.end() == 7


def test_a_child_that_does_not_listen_is_killed_after_its_grace(tmp_path):
    child = Child(program(tmp_path, STUBBORN, grace_s=0.2))
    eventually(child.said)
    began = time.monotonic()
    assert child.end() == -signal.SIGKILL
    assert 0.2 <= time.monotonic() - began < 3.0


def test_what_left_its_process_group_ends_too(tmp_path):
    """Ray's workers lead process groups of their own and were left behind when only the group was signalled."""
    child = Child(program(tmp_path, WITH_STRAY))
    eventually(child.said)
    stray = int(child.said()[0].split()[1])
    assert supervise.birth(stray) is not None
    child.end()
    assert supervise.birth(stray) is None
    assert supervise.session_members(child.pid) == []


def test_ctrl_c_in_the_terminal_does_not_reach_a_child(tmp_path):
    child = Child(program(tmp_path, "import time; time.sleep(600)"))
    assert os.getsid(child.pid) == child.pid != os.getsid(0)
    child.end()


def test_children_end_when_their_supervisor_is_killed(tmp_path):
    """`kill -9` of the supervisor must not leave a farm that nobody looks after."""
    code = f"""
import os, sys, time
from pathlib import Path
from farm.supervise import Child, Program
child = Child(Program("it", [sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), Path({str(tmp_path / "l")!r})))
print(child.pid, flush=True)
time.sleep(600)
"""
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    child = int(supervisor.stdout.readline())
    assert supervise.birth(child) is not None
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    eventually(lambda: supervise.birth(child) is None)


def test_leftovers_of_a_killed_supervisor_are_ended(tmp_path):
    """The leader is dead, its stray goes on: it is found by its session."""
    child = Child(program(tmp_path, WITH_STRAY))
    eventually(child.said)
    stray = int(child.said()[0].split()[1])
    traces = tmp_path / "pids.json"
    supervise.write_traces(traces, [child.trace])
    os.kill(child.pid, signal.SIGKILL)
    eventually(lambda: child.exit_code is not None)
    assert supervise.birth(stray) is not None
    assert supervise.end_leftovers(traces, patience_s=0.1) == ["it"]
    assert supervise.birth(stray) is None
    assert not traces.exists()


@pytest.mark.parametrize("other", ["later", "boot"])
def test_a_process_that_only_has_the_same_id_is_left_alone(tmp_path, other):
    """Process ids are used again: the one that has it now may be anybody's."""
    innocent = Child(program(tmp_path, STUBBORN, grace_s=0.1))
    eventually(innocent.said)
    traces = tmp_path / "pids.json"
    moved = 5.0 if other == "later" else 0.0
    supervise.write_traces(traces, [Trace("it", innocent.pid, innocent.trace.born - moved)])
    if other == "boot":
        traces.write_text(json.dumps(json.loads(traces.read_text()) | {"boot": "another"}))
    assert supervise.end_leftovers(traces, patience_s=0.0) == []
    assert innocent.exit_code is None
    innocent.end()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1, "children": [{"pid": 1}]}'])
def test_a_broken_trace_file_ends_nothing(tmp_path, text):
    traces = tmp_path / "pids.json"
    traces.write_text(text)
    assert supervise.end_leftovers(traces) == []


def test_a_corpse_does_not_live():
    corpse = subprocess.Popen([sys.executable, "-c", ""])
    eventually(lambda: supervise.birth(corpse.pid) is None)
    corpse.wait()


@given(st.lists(st.floats(0.0, 200.0), min_size=1, max_size=60))
def test_pauses_grow_to_a_limit_and_begin_again_after_a_calm_run(runs):
    backoff = Backoff(first_s=1.0, longest_s=30.0, calm_s=60.0)
    former = 0.0
    for lasted in runs:
        pause = backoff.after_run(lasted)
        assert 1.0 <= pause <= 30.0
        assert pause == (1.0 if lasted >= 60.0 or former == 0.0 else min(30.0, former * 2.0))
        former = pause


def test_the_bell_wakes_at_a_child_s_end_and_says_when_to_stop(tmp_path):
    with Bell() as bell:
        child = Child(program(tmp_path, "import time; time.sleep(0.2)"))
        began = time.monotonic()
        while child.exit_code is None and time.monotonic() - began < 20.0:
            assert not bell.wait(20.0)
        assert time.monotonic() - began < 10.0
        os.kill(os.getpid(), signal.SIGTERM)
        assert bell.wait(20.0)
        assert bell.stopping
        assert not bell.hurry
        os.kill(os.getpid(), signal.SIGINT)
        assert bell.wait(20.0)
        assert bell.hurry


def test_a_large_log_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "LOG_LIMIT", 10)
    log = tmp_path / "it.log"
    log.write_text("short")
    supervise.rotate(log)
    assert log.exists()
    log.write_text("more than ten bytes")
    supervise.rotate(log)
    assert not log.exists()
    assert (tmp_path / "it.log.1").read_text() == "more than ten bytes"
