"""The evaluation in fresh processes: the five dimensions of a real clip, kept; failures are results."""

import json
import os
import sys
import tempfile
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from farm.catalogue.article import BenchSetting, article
from farm.catalogue.models import builtin_models
from farm.cli import calibrate
from farm.cli.sample import write_sample
from farm.errors import ConfigurationError
from farm.model import CardKind, MemoryPlan
from farm.own_bench import BenchResult, read_bench
from farm.planning.plans import streamed_gib
from farm.settings import FarmSettings
from farm.weights import MANIFEST
from farm.wire import CardReport
from node_agent import bench as bench_module
from node_agent.bench import bench, choose_plan, limit_s, within_limits
from tests.farm_verbs import run_apart, run_here
from tests.storage import SETTINGS
from tests.unit.test_weights import write_checkpoint

SMALL = BenchSetting("small", 128, 96, 4, 2, 7.5)
CPU = CardReport("CPU-local", CardKind.CPU, "CPU (a test's)")


def test_the_articles_rows_are_of_its_settings() -> None:
    found = article()
    names = {setting.name for setting in found.settings}
    assert names == {"standard", "low-spec"}
    assert {row.setting for row in found.rows} == names
    best = next(row for row in found.rows if row.card == "RTX 3060")
    assert (best.first_frame_s, best.total_s, best.peak_gb, best.rating) == (65, 89, 11.2, 4.2)


def test_a_model_that_takes_fewer_frames_gets_fewer() -> None:
    standard = article().settings[0]
    assert within_limits(builtin_models()["svd"], standard).frames == 14
    assert within_limits(builtin_models()["i2vgen-xl"], standard) == standard


def test_a_fresh_process_measures_a_real_clip(tmp_path: Path) -> None:
    told: list[str] = []
    picture = write_sample(tmp_path / "sample.png")
    found = bench(builtin_models()["animatic"], CPU, SMALL, picture, lambda doing, _d, _t: told.append(doing))
    assert found.failure is None
    assert found.startup_s is not None
    assert found.startup_s > 0.05
    assert found.first_frame_s is not None
    assert found.total_s is not None
    assert 0 < found.first_frame_s <= found.total_s
    assert found.peak_gib is not None
    assert found.peak_gib > 0.02
    assert found.rating is None
    assert "denoise" in told


def test_a_bench_that_is_broken_off_leaves_no_half_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was ended in the midst of the clip, whose folder stayed among the temporary files."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    long = BenchSetting("long", 512, 512, 120, 1, 1.0)

    def stop(doing: str, _done: int, _total: int) -> None:
        if doing == "denoise":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench(builtin_models()["animatic"], CPU, long, write_sample(tmp_path / "sample.png"), stop)
    assert list(scratch.iterdir()) == []


def test_weights_that_the_farm_brought_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a PC that has joined, or beside another --data, a bench saw no weights and said to download them."""
    monkeypatch.setenv("FARM_MODEL_STORE", "")  # so that what the verb sets is undone
    monkeypatch.delenv("FARM_MODEL_STORE")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("node_agent.identity.user_data_path", lambda _name: tmp_path / "node")
    monkeypatch.setattr(
        "node_agent.probe.cards", lambda *_: (CardReport("GPU-1", CardKind.CUDA, "GTX 1080"),)
    )
    monkeypatch.setattr("node_agent.probe.beside_others", tuple)
    seen: list[Path] = []
    monkeypatch.setattr("farm.cli.bench._run", lambda *_: seen.append(FarmSettings().shelf) or [])
    assert "are not on this PC" in run_here(["bench", "--data", str(tmp_path / "data")]).stderr
    for home in (tmp_path / "node", tmp_path / "data"):  # the head's own go first
        write_checkpoint(home / "models" / "i2vgen-xl")
        (home / "models" / "i2vgen-xl" / MANIFEST).write_text("{}")
        done = run_here(["bench", "--data", str(tmp_path / "data")])
        assert (done.returncode, done.stderr, seen.pop()) == (0, "", home / "models")
        monkeypatch.delenv("FARM_MODEL_STORE")


def test_a_render_that_fails_is_a_result_with_its_reason(tmp_path: Path) -> None:
    picture = tmp_path / "missing.png"
    found = bench(builtin_models()["animatic"], CPU, SMALL, picture, lambda *_: None)
    assert found.failure is not None
    assert "FileNotFoundError" in found.failure
    assert found.total_s is None


def test_a_card_without_room_for_any_plan_is_a_result(tmp_path: Path) -> None:
    tiny = CardReport("GPU-1", CardKind.CUDA, "GT 710", vram_gib=1.0, usable_gib=0.4)
    found = bench(builtin_models()["i2vgen-xl"], tiny, SMALL, tmp_path / "any.png", lambda *_: None)
    assert found.failure == "no memory plan fits what is free of this card and of its PC's memory now"


def test_weights_stream_from_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench counted on all of its PC's memory: beside other programs it asked for what was not there, which a job never does."""
    row = builtin_models()["i2vgen-xl"]
    small = CardReport(
        "GPU-1",
        CardKind.CUDA,
        "GTX 1650",
        vram_gib=4.0,
        usable_gib=3.4,
        compute_capability=(7, 5),
        ram_gib=16.0,
    )

    def streamed(free_gib: float) -> float:
        monkeypatch.setattr("node_agent.hostram.free_ram_gib", lambda: free_gib)
        choice = choose_plan(row, small, replace(SETTINGS, model=row.name, width=512, height=512, frames=16))
        assert choice is not None
        return streamed_gib(row, choice.plan)

    alone = streamed(14.0)
    assert alone > 1.5
    assert streamed(alone + 0.5) <= alone - 0.5
    monkeypatch.setattr("node_agent.hostram.free_ram_gib", lambda: 0.0)
    assert bench(row, replace(small, usable_gib=1.8), SMALL, Path("any"), lambda *_: None).failure is not None


def test_what_is_not_free_is_said_before_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PC whose driver did not start was benched as a CPU without a word."""
    monkeypatch.setattr("node_agent.probe.cards", lambda *_: (replace(CPU, notice="Restart the PC."),))
    monkeypatch.setattr("farm.cli.bench._run", lambda *_: [])
    done = run_here(["bench", "--data", str(tmp_path)])
    assert (done.returncode, done.stderr) == (0, "Restart the PC.\n")
    taken = replace(CPU, others_gib=1.25)
    monkeypatch.setattr("node_agent.probe.beside_others", lambda _cards: (taken,))
    assert "hold 1.2 GiB of CPU (a test's)" in run_here(["bench", "--data", str(tmp_path)]).stderr


class Card:
    """A card, and in place of Python a program of the test's, which the bench starts for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._program = folder / "python"
        self.said = CardReport(
            "GPU-1",
            CardKind.CUDA,
            "GTX 1080",
            driver="550.120",
            vram_gib=8.0,
            usable_gib=7.4,
            compute_capability=(6, 1),
        )
        self.trouble: str | None = None
        self.asked: list[tuple[object, ...]] = []
        monkeypatch.setattr(sys, "executable", str(self._program))
        monkeypatch.setattr(bench_module, "card_trouble_apart", self._ask)
        bench_module._trouble.cache_clear()

    def _ask(self, *said: object) -> str | None:
        self.asked.append(said)
        return self.trouble

    def bench(self, program: str, reads: str = "cat > /dev/null") -> BenchResult:
        self._program.write_text(f"#!/bin/sh\n{reads}\n{program}\n")
        self._program.chmod(0o755)
        return bench(builtin_models()["i2vgen-xl"], self.said, SMALL, self._program, lambda *_: None)


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(tmp_path, monkeypatch)


def test_a_card_that_torch_does_not_serve_is_a_result_in_clear_words(card: Card) -> None:
    """A wrong torch or driver was seen only as whatever the render died of, after all its weights were read."""
    card.trouble = "Driver 470.256.02 is too old for CUDA 12.6: install driver 525.60.13 or newer on that PC."
    for _ in range(2):
        assert card.bench("echo should not run >&2; exit 9").failure == card.trouble.rstrip(".")
    assert card.asked == [("GTX 1080", "550.120", (6, 1), "GPU-1")], "torch is loaded once for all rows"
    card.said = replace(card.said, trouble="It is split.")
    assert card.bench("exit 9").failure == "It is split"


def test_a_card_that_hangs_does_not_hang_the_bench(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose process no signal ends: a driver that hangs keeps it."""
    row, plan = builtin_models()["i2vgen-xl"], MemoryPlan()
    few, many = (limit_s(row, card.said, replace(SETTINGS, steps=steps), plan) for steps in (1, 50))
    assert 900 < few < many < 4 * 3600
    monkeypatch.setattr(bench_module, "START_S", 0.5)
    monkeypatch.setattr(bench_module, "SLOW", 0.0)
    monkeypatch.setattr(bench_module, "END_S", 0.1)
    stuck = (
        """trap '' TERM; echo '{"doing": "decode", "done": 0, "total": 0}'; while :; do sleep 0.05; done"""
    )
    failure = card.bench(stuck).failure
    assert failure is not None
    assert "it was not done within 0 min, many times what was foretold, and was at 'decode'" in failure
    assert "restart this PC" in failure


def test_a_process_that_ends_at_once_is_a_result(card: Card) -> None:
    """One that had not taken its order yet ended the whole bench with a broken pipe."""
    assert card.bench("echo no such library >&2; exit 3", reads="exec <&-").failure == (
        "its process ended with code 3: no such library"
    )


def test_benches_calibrations_and_workers_have_one_environment(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Benches and calibrations were measured with torch's other allocator, and the head learned from them for the workers."""
    from node_agent import agent as agent_module

    expected = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "GPU-1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    for name in expected:
        monkeypatch.setenv(name, "another")
    names = "/".join(f"${name}" for name in expected)
    assert card.bench(f"""echo '{{"result": {{"torch": "'{names}'"}}}}'""").torch == "/".join(
        expected.values()
    )

    monkeypatch.setattr("node_agent.probe.cards", lambda *_: (card.said,))
    monkeypatch.setattr("node_agent.selftest.card_trouble", lambda *_: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: True)
    calibrate._choose_card("i2vgen-xl")
    assert {name: os.environ[name] for name in expected} == expected

    asked: dict[str, Any] = {}
    actor = SimpleNamespace(
        options=lambda **options: asked.update(options) or SimpleNamespace(remote=lambda *_, **__: None)
    )
    monkeypatch.setattr(agent_module, "CardWorkerActor", actor)
    context = SimpleNamespace(get_node_id=lambda: "ab" * 28)
    monkeypatch.setattr(agent_module.ray, "get_runtime_context", lambda: context)
    agent = object.__new__(agent_module.NodeAgent)
    agent._failed, agent._resting = set(), set()
    agent._start_worker(card.said)
    assert asked["runtime_env"]["env_vars"] == expected


def test_the_verb_keeps_results_and_shows_the_article(tmp_path: Path) -> None:
    """Without an NVIDIA card it benches the CPU with the draft model."""
    if (Path("/proc/driver/nvidia")).exists():
        pytest.skip("needs a PC without an NVIDIA card: there the verb would bench that")
    done = run_apart(["bench", "--data", str(tmp_path / "data"), "--json"], limit_s=150.0)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    lines = (tmp_path / "data" / "bench.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == said["results"]
    assert [row["setting"]["name"] for row in said["results"]] == ["standard", "low-spec"]
    assert len(said["article"]["rows"]) == 5


def test_results_that_cannot_be_kept_are_said_before_they_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk refused was a fault of the farm's own code, with a trace."""
    monkeypatch.setattr("node_agent.bench.bench", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    done = run_here(["bench", "--data", str(tmp_path / "file")])
    assert done.returncode == 1
    assert f"Cannot write {tmp_path / 'file' / 'bench.jsonl'}: " in done.stderr
    done = run_here(["calibrate", "animatic"])
    assert (done.returncode, "has no network to measure" in done.stderr) == (2, True), "no card would help"
    done = run_here(["calibrate", "svd", "--output", "/proc/self/svd.json"])
    assert done.returncode == 1
    assert "Cannot write /proc/self/svd.json: " in done.stderr

    measured = json.loads((resources.files("farm.catalogue") / "networks" / "svd.json").read_text())
    (tmp_path / "svd.json").mkdir()
    with pytest.raises(ConfigurationError, match=r"Cannot write .*svd\.json: Is a directory"):
        calibrate._write("svd", measured, tmp_path / "svd.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "svd.json"]


def test_a_row_after_half_a_line_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first row after a bench that was killed was lost with the half one before it."""
    row = BenchResult("2026-11-20T10:00:00+00:00", CPU.id, CPU.name, "animatic", SMALL, None)
    monkeypatch.setattr("node_agent.bench.bench", lambda *_: row)
    monkeypatch.setattr("node_agent.probe.cards", lambda *_: (CPU,))
    kept = tmp_path / "bench.jsonl"
    kept.write_text('{"at": "2026-')
    for rows in (2, 4):
        assert run_here(["bench", "--data", str(tmp_path), "--json"]).returncode == 0
        assert read_bench(kept) == [row] * rows


def test_a_wrong_card_or_model_is_named(tmp_path: Path) -> None:
    for words, named in (
        (("--card", "GPU-nothing"), "GPU-nothing"),
        (("--model", "nothing"), "no model nothing"),
    ):
        done = run_here(["bench", "--data", str(tmp_path), *words])
        assert done.returncode == 2
        assert named in done.stderr
