"""Seconds from the catalogue alone."""

from dataclasses import replace

import pytest

from farm.catalogue.cards import cards
from farm.catalogue.models import builtin_models
from farm.model import Card, CardKind, MemoryPlan, RenderSettings
from farm.planning.estimate import seconds, slowness

I2VGEN, ANIMATIC = builtin_models()["i2vgen-xl"], builtin_models()["animatic"]
STANDARD = RenderSettings("i2vgen-xl", 512, 512, frames=16, steps=50, guidance=9.0, fps=8, seed=1)
PREVIEW = replace(STANDARD, frames=8, steps=30)


def gpu(name: str, vram_gib: float | None = None) -> Card:
    return Card(f"GPU-{name}", "n1", CardKind.CUDA, name, vram_gib=vram_gib)


CPU = Card("CPU-n1", "n1", CardKind.CPU, "Ryzen 5 3600")


@pytest.mark.parametrize(("settings", "article_s"), [(STANDARD, 118), (PREVIEW, 52)])
def test_the_reference_card_gives_the_runs_that_the_coefficients_are_from(
    settings: RenderSettings, article_s: float
) -> None:
    card = gpu("NVIDIA GeForce RTX 2070 SUPER", 8.0)
    assert seconds(I2VGEN, card, settings, MemoryPlan()) == pytest.approx(article_s, rel=0.01)


def test_within_a_factor_of_two_of_an_h200() -> None:
    """Measured: 0.215 s per 512x512x16 step, against 1.9 s on the reference card."""
    assert 0.5 < slowness(gpu("NVIDIA H200", 139.8), "RTX 2070 Super") / (0.215 / 1.9) < 2.0


def test_faster_cards_are_predicted_faster() -> None:
    names = ["GTX 1060 6GB", "RTX 2060", "RTX 2080 Ti", "RTX 3080", "RTX 4080", "H100", "H200"]
    times = [seconds(I2VGEN, gpu(name), STANDARD, MemoryPlan()) for name in names]
    assert times == sorted(times, reverse=True)


def test_all_cards_of_the_catalogue_are_between_a_gtx_1630_and_an_h200() -> None:
    factors = {row.name: slowness(gpu(row.name, row.vram_gb), "RTX 2070 Super") for row in cards()}
    assert factors["RTX 2070 Super"] == 1.0
    assert max(factors, key=factors.__getitem__) == "GTX 1630"
    assert min(factors, key=factors.__getitem__) == "H200"


def test_an_unknown_card_is_taken_for_slow_and_a_cpu_for_very_slow() -> None:
    assert slowness(gpu("NVIDIA GeForce RTX 9999"), "RTX 2070 Super") == 2.0
    assert slowness(CPU, "RTX 2070 Super") > 20


def test_plans_cost_what_was_measured() -> None:
    card = gpu("RTX 2070 Super")
    base = seconds(I2VGEN, card, STANDARD, MemoryPlan()) - 24.0
    in_turn = seconds(I2VGEN, card, STANDARD, MemoryPlan("resident", "in_turn")) - 24.0
    assert in_turn / base == pytest.approx(1.17, rel=0.01)


def test_without_guidance_a_step_is_half_as_long() -> None:
    card, plain = gpu("RTX 2070 Super"), replace(STANDARD, guidance=1.0)
    base = seconds(I2VGEN, card, STANDARD, MemoryPlan()) - 24.0
    assert seconds(I2VGEN, card, plain, MemoryPlan("resident", "in_turn")) - 24.0 == pytest.approx(
        base / 2, rel=0.01
    )


def test_a_draft_takes_a_fixed_part_and_a_part_for_each_frame_and_pixel() -> None:
    draft = replace(STANDARD, model="animatic", steps=1)
    law = ANIMATIC.time
    assert law.cpu_s_per_frame_megapixel is not None
    one = seconds(ANIMATIC, CPU, draft, MemoryPlan())
    assert one == pytest.approx(law.fixed_s + law.cpu_s_per_frame_megapixel * 16 * 0.262144)
    assert seconds(ANIMATIC, CPU, replace(draft, frames=32), MemoryPlan()) == pytest.approx(
        2 * one - law.fixed_s
    )
