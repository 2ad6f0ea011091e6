"""The evaluation in fresh processes: the five dimensions of a real clip, kept; failures are results."""

import json
from pathlib import Path
from typing import Any

import pytest

from farm.catalogue.article import BenchSetting, article
from farm.catalogue.models import builtin_models
from farm.cli.sample import write_sample
from farm.model import CardKind
from farm.wire import CardReport
from node_agent.bench import bench, within_limits
from tests.farm_verbs import run_apart, run_here

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


def test_a_render_that_fails_is_a_result_with_its_reason(tmp_path: Path) -> None:
    picture = tmp_path / "missing.png"
    found = bench(builtin_models()["animatic"], CPU, SMALL, picture, lambda *_: None)
    assert found.failure is not None
    assert "FileNotFoundError" in found.failure
    assert found.total_s is None


def test_a_card_without_room_for_any_plan_is_a_result(tmp_path: Path) -> None:
    tiny = CardReport("GPU-1", CardKind.CUDA, "GT 710", vram_gib=1.0, usable_gib=0.4)
    found = bench(builtin_models()["i2vgen-xl"], tiny, SMALL, tmp_path / "any.png", lambda *_: None)
    assert found.failure == "no memory plan fits this card"


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


def test_a_wrong_card_or_model_is_named(tmp_path: Path) -> None:
    for words, named in (
        (("--card", "GPU-nothing"), "GPU-nothing"),
        (("--model", "nothing"), "no model nothing"),
    ):
        done = run_here(["bench", "--data", str(tmp_path), *words])
        assert done.returncode == 2
        assert named in done.stderr
