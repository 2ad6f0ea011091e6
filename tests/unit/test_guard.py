"""The owner's first right: a real worker process on a card of the fake NVML, from which a game drives it off."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from farm.events import Event, Yielded
from node_agent.guard import CALM_S, GRACE_S, QUIET_S, WATCHFUL_S, Guard, Senses, WorkerSeen, _kill
from node_agent.look import readings
from node_agent.owner import Kept, OwnerRules
from node_agent.pause import pause, resume
from node_agent.readings import CardReading
from node_agent.spool import Spool
from tests.fake_nvml import FakeGpu, FakeNvml
from tests.fakes import MovedClock
from tests.waiting import wait_until

LIMIT_S = 20.0
CARD = "GPU-2060"
ROOT = Path(__file__).parent.parent.parent
GAME = (5150, 4120)
HELD_MIB = 3000
OWNER_WAITS_S = 2.0
"""The farm's promise: by then the card's memory is the owner's."""


@dataclass
class Pc:
    """A PC with one card, its owner's signs, and at most one real worker process, which holds memory for as long as it lives."""

    home: Path
    rules: OwnerRules = field(default_factory=OwnerRules)
    clock: MovedClock = field(default_factory=MovedClock)
    gpu: FakeGpu = field(
        default_factory=lambda: FakeGpu("NVIDIA GeForce RTX 2060", CARD, 6144, temperature=60)
    )
    process: subprocess.Popen[str] | None = None
    at_keyboard: bool | None = None
    looks: int = 0
    game: bool = False
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.spool = Spool(self.home / "spool")
        self.rules.save(self.home)
        senses = Senses(self.readings, lambda: self.at_keyboard, lambda: None, self.is_ours)
        self.guard = Guard(self.home, self.spool, senses, self, self.clock)
        self.guard.guard([CARD])

    # --- the card ---
    def readings(self, whole: bool = True) -> dict[str, CardReading]:
        self.looks += 1
        worker = ((self.process.pid, HELD_MIB),) if self.process is not None and self.alive() else ()
        self.gpu.compute = worker
        self.gpu.graphics = (GAME,) if self.game else ()
        self.gpu.used_mib = sum(mib or 0 for _, mib in self.gpu.compute + self.gpu.graphics)
        return readings(whole)

    def is_ours(self, pid: int) -> bool:
        return self.process is not None and pid == self.process.pid

    # --- the worker ---
    def start(self, pace_s: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.worker_process", str(self.spool.root), str(pace_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self.started.append(self.process)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "at work\n"

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def worker(self, card_id: str) -> WorkerSeen | None:
        return WorkerSeen(self.process.pid, HELD_MIB / 1024) if self.process is not None else None

    def ask_way(self, card_id: str, told: str) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(told + "\n")
        self.process.stdin.flush()

    def gone(self, card_id: str) -> None:
        self.process = None

    # --- time ---
    def later(self, seconds: float) -> None:
        """Lets time pass, with a look as often as the guard's own thread has one."""
        end = self.clock.seconds + seconds
        while self.clock.seconds < end - 1e-9:
            self.clock.move(min(WATCHFUL_S, end - self.clock.seconds))
            self.guard.look()

    def until(self, holds: Callable[[], bool], limit_s: float) -> float:
        """Looks until something holds; the seconds that it took by the clock, which may be no more than `limit_s`."""
        began = self.clock.seconds
        while not holds():
            assert self.clock.seconds - began < limit_s, f"did not come about in {limit_s} s"
            self.later(WATCHFUL_S)
        return self.clock.seconds - began

    def last_word(self) -> Event:
        return self.spool.events("A1", 0)[-1]


@contextmanager
def pc(home: Path, rules: OwnerRules, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pc]:
    made = Pc(home, rules)
    FakeNvml([made.gpu], programs={5150: "/home/ann/space.x86_64"}).install(monkeypatch)
    try:
        yield made
    finally:
        for process in made.started:
            process.kill()
            process.communicate()


@pytest.fixture
def owner_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pc]:
    with pc(tmp_path, OwnerRules(only_idle=True), monkeypatch) as made:
        yield made


def memory_is_free(made: Pc) -> bool:
    made.readings()
    return made.gpu.used_mib == GAME[1]


def test_a_game_gets_the_card_s_memory_and_the_render_leaves_its_last_step(owner_first: Pc) -> None:
    owner_first.start(pace_s=0.01)
    left = owner_first.process
    assert left is not None
    owner_first.later(CALM_S)
    assert owner_first.guard.kept(CARD) is None
    owner_first.game = True
    owner_first.later(WATCHFUL_S)
    assert owner_first.guard.kept(CARD) == Kept("space.x86_64 uses the card")
    wait_until(lambda: left.poll() is not None, LIMIT_S, "the worker stops at its next step and ends")
    owner_first.later(WATCHFUL_S)
    assert memory_is_free(owner_first)
    word = owner_first.last_word()
    assert isinstance(word, Yielded)
    assert word.reason == "The card is kept for its owner: space.x86_64 uses the card."
    kept = owner_first.spool.read("A1", "checkpoint.safetensors")
    checkpoints = [event for event in owner_first.spool.events("A1", 0) if event.kind == "checkpoint"]
    assert kept == f"after step {checkpoints[-1].step}".encode()  # type: ignore[union-attr]  # its kind says what it is


def test_a_worker_in_a_long_step_is_killed_and_its_attempt_ends_without_blame(owner_first: Pc) -> None:
    owner_first.start(pace_s=600.0)
    left = owner_first.process
    assert left is not None
    owner_first.later(CALM_S)
    owner_first.game = True
    took = owner_first.until(lambda: owner_first.process is None, OWNER_WAITS_S)
    assert GRACE_S <= took <= OWNER_WAITS_S
    wait_until(lambda: left.poll() is not None, LIMIT_S, "the killed process is gone")
    assert memory_is_free(owner_first)
    assert isinstance(owner_first.last_word(), Yielded)
    seqs = [event.seq for event in owner_first.spool.events("A1", 0)]
    assert seqs == sorted(set(seqs)), "the last word has a number of its own"


def test_the_card_is_the_farm_s_again_when_the_owner_has_been_away_for_a_while(owner_first: Pc) -> None:
    owner_first.game = True
    owner_first.later(CALM_S)
    owner_first.game = False
    owner_first.later(QUIET_S - CALM_S)
    assert owner_first.guard.kept(CARD) is not None
    owner_first.later(2 * CALM_S)
    assert owner_first.guard.kept(CARD) is None


def test_what_others_hold_is_seen_with_and_without_only_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pc(tmp_path, OwnerRules(), monkeypatch) as made:
        made.later(CALM_S)
        assert made.guard.others_gib(CARD) == 0.0
        made.game = True
        made.later(CALM_S)
        assert made.guard.others_gib(CARD) == 4.25, "4.02 GiB, rounded up"
        assert made.guard.kept(CARD) is None
        assert made.guard.vitals(CARD) is not None


def test_a_pause_is_seen_at_the_next_look_and_drives_the_worker_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pc(tmp_path, OwnerRules(), monkeypatch) as made:
        made.start(pace_s=0.01)
        left = made.process
        assert left is not None
        pause(tmp_path)
        made.later(WATCHFUL_S)
        assert made.guard.kept(CARD) == Kept("paused on that PC with `farm local pause`")
        wait_until(lambda: left.poll() is not None, LIMIT_S, "the worker ends")
        made.later(WATCHFUL_S)
        assert resume(tmp_path)
        made.later(WATCHFUL_S)
        assert made.guard.kept(CARD) is None
        assert not resume(tmp_path)


def test_a_hot_card_keeps_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pc(tmp_path, OwnerRules(max_temperature_c=75.0), monkeypatch) as made:
        made.start(pace_s=0.01)
        made.gpu.temperature = 80
        made.later(CALM_S + GRACE_S)
        kept = made.guard.kept(CARD)
        assert kept is not None
        assert not kept.at_once
        assert made.alive()
        made.gpu.temperature = 72
        made.later(CALM_S)
        assert made.guard.kept(CARD) is not None, "it has to cool by 5 degrees"
        made.gpu.temperature = 70
        made.later(CALM_S)
        assert made.guard.kept(CARD) is None


def test_somebody_at_the_keyboard_keeps_the_card(owner_first: Pc) -> None:
    owner_first.at_keyboard = True
    owner_first.later(6.0)
    assert owner_first.guard.kept(CARD) == Kept("somebody is at the PC")


def test_under_wsl_the_memory_that_others_use_is_the_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pc(tmp_path, OwnerRules(only_idle=True), monkeypatch) as made:
        names = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
        made.gpu.faults = dict.fromkeys(names, 3)
        made.later(CALM_S)
        assert made.guard.kept(CARD) is None
        made.game = True
        made.later(CALM_S)
        assert made.guard.kept(CARD) == Kept("other programs hold 4.0 GiB of the card")


def test_an_idle_pc_is_looked_at_every_two_seconds_and_a_watched_worker_four_times_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pc(tmp_path, OwnerRules(only_idle=True), monkeypatch) as made:
        made.later(CALM_S)
        before = made.looks
        made.later(10 * CALM_S)
        assert made.looks - before == 10
        made.start(pace_s=0.01)
        made.later(CALM_S)
        before = made.looks
        made.later(10 * WATCHFUL_S)
        assert made.looks - before == 10


def test_rules_that_cannot_be_read_keep_every_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pc(tmp_path, OwnerRules(), monkeypatch) as made:
        (tmp_path / OwnerRules.FILE).write_text("{")
        senses = Senses(made.readings, lambda: None, lambda: None, made.is_ours)
        guard = Guard(tmp_path, made.spool, senses, made, made.clock)
        guard.guard([CARD])
        kept = guard.kept(CARD)
        assert kept is not None
        assert "farm join" in kept.why


def is_over(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("how", ["it leaves", "it is killed"])
def test_the_test_of_a_card_ends_with_the_worker_that_asked_for_it(how: str) -> None:
    """It went on without it: on a slow PC a game had to do without half a gigabyte of its card for another minute."""
    ends = "import node_agent.worker; sys.stdin.read(); node_agent.worker._end()"
    child = "subprocess.Popen(['sleep', '600'], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)"
    worker = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; print({child}.pid, flush=True); {ends}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    test = psutil.Process(int(worker.stdout.readline()))
    try:
        if how == "it is killed":
            _kill(worker.pid)
        worker.stdin.close()
        worker.wait(LIMIT_S)
        wait_until(lambda: is_over(test), 5, "the test to end")
    finally:
        worker.kill()
        with suppress(psutil.NoSuchProcess):
            test.kill()
        worker.stdout.close()
