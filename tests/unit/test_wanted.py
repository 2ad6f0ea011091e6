"""Which models a PC fetches: what some card of it could run, and what it has not already."""

from dataclasses import replace
from pathlib import Path

import pytest

from farm.catalogue.models import ModelRow, builtin_models
from farm.model import CardKind, PcieLink
from farm.weights import Manifest, Shelf
from farm.wire import CardReport
from node_agent import wanted
from node_agent.wanted import could_run, wanted_models
from tests.unit.test_weights import write_checkpoint

MODELS = builtin_models()
CPU = CardReport("CPU-1", CardKind.CPU, "CPU", ram_gib=16.0)


def gpu(name: str, vram_gib: float, ram_gib: float = 16.0) -> CardReport:
    return CardReport(
        "GPU-1",
        CardKind.CUDA,
        name,
        vram_gib,
        vram_gib - 0.6,
        (7, 5),
        pcie=PcieLink(3, 16, 16),
        bus_gb_s=12.0,
        ram_gib=ram_gib,
    )


RTX_2060 = gpu("RTX 2060", 6.0)


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The PC's own Hugging Face cache is not the test's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def names(cards: list[CardReport], shelf: Shelf, models: dict[str, ModelRow] | None = None) -> set[str]:
    return set(wanted_models(MODELS if models is None else models, cards, shelf))


def test_a_card_gets_what_it_can_hold_and_a_cpu_nothing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "models")
    assert names([RTX_2060], shelf) == {"i2vgen-xl", "svd", "svd-xt"}
    assert names([CPU], shelf) == set()
    assert names([CPU, RTX_2060], shelf) == {"i2vgen-xl", "svd", "svd-xt"}
    assert names([], shelf) == set()
    assert not could_run(MODELS["i2vgen-xl"], gpu("GTX 1030", 1.0)), "not even its smallest clip"
    assert not could_run(MODELS["i2vgen-xl"], gpu("GTX 1050", 2.0, ram_gib=2.5)), (
        "nor can its PC hold the weights"
    )


def test_a_card_that_its_owner_uses_just_now_counts_with_all_of_its_memory() -> None:
    played = replace(RTX_2060, usable_gib=0.4, others_gib=5.0)
    assert could_run(MODELS["i2vgen-xl"], played)
    assert not could_run(MODELS["i2vgen-xl"], replace(played, usable_gib=None))


def test_without_torch_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "torch_here", lambda: False)
    assert names([RTX_2060], Shelf(tmp_path / "models")) == set()


def test_what_the_owner_has_is_not_fetched_again_but_what_came_from_the_head_is_kept_new(
    tmp_path: Path,
) -> None:
    shelf = Shelf(tmp_path / "models")
    row = replace(MODELS["i2vgen-xl"], source=str(write_checkpoint(tmp_path / "own")))
    models = {"i2vgen-xl": row}
    assert names([RTX_2060], shelf, models) == set()
    shelf.half("i2vgen-xl").mkdir(parents=True)
    shelf.put(Manifest("i2vgen-xl", "head", ()))
    assert names([RTX_2060], shelf, models) == {"i2vgen-xl"}
