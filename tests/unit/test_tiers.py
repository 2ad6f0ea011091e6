"""Tiers and bands: the contract's tables."""

from dataclasses import replace

import pytest

from farm.catalogue.presets import presets
from farm.model import CardKind, RenderSettings, Tier
from farm.planning.tiers import band_of, tier_of

STANDARD = RenderSettings("i2vgen-xl", 512, 512, frames=16, steps=50, guidance=9.0, fps=8, seed=1)

PRESETS = {
    # name: (model, width, height, frames, steps, guidance, fps, tier)
    "preview": ("i2vgen-xl", 512, 512, 8, 30, 7.5, 8, "preview"),
    "standard": ("i2vgen-xl", 512, 512, 16, 50, 9.0, 8, "preview"),
    "quality": ("i2vgen-xl", 768, 768, 16, 80, 9.0, 8, "quality"),
    "svd": ("svd", 1024, 576, 14, 25, 3.0, 7, "quality"),
    "native": ("i2vgen-xl", 1280, 704, 16, 50, 9.0, 8, "quality"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_the_presets_of_the_contract(name: str) -> None:
    row = presets()[name]
    settings = RenderSettings(
        row.model, row.width, row.height, row.frames, row.steps, row.guidance, row.fps, seed=0
    )
    numbers = (row.model, row.width, row.height, row.frames, row.steps, row.guidance, row.fps)
    assert (*numbers, str(tier_of(settings))) == PRESETS[name]


def test_the_draft_of_the_contract() -> None:
    row = presets()["draft"]
    assert (row.model, row.width, row.height, row.frames, row.fps) == ("animatic", 512, 512, 16, 8)


@pytest.mark.parametrize(
    ("change", "tier"),
    [
        ({}, Tier.PREVIEW),
        ({"width": 1024, "height": 256}, Tier.PREVIEW),
        ({"width": 520}, Tier.QUALITY),
        ({"frames": 17}, Tier.QUALITY),
        ({"steps": 51}, Tier.QUALITY),
        ({"guidance": 30.0, "fps": 60}, Tier.PREVIEW),
    ],
)
def test_more_than_any_one_limit_is_quality(change: dict[str, int], tier: Tier) -> None:
    assert tier_of(replace(STANDARD, **change)) is tier


@pytest.mark.parametrize(
    ("vram_gib", "band"),
    [
        (None, Tier.POST),
        (4.0, Tier.POST),
        (6.0, Tier.POST),
        (7.996, Tier.PREVIEW),  # 8188 MiB: an 8 GB card of the 40 series
        (8.0, Tier.PREVIEW),
        (11.0, Tier.PREVIEW),
        (11.99, Tier.QUALITY),  # 12282 MiB: a 12 GB card of the 40 series
        (12.0, Tier.QUALITY),
        (15.0, Tier.QUALITY),  # a T4
        (141.0, Tier.QUALITY),
    ],
)
def test_bands_by_nominal_memory(vram_gib: float | None, band: Tier) -> None:
    assert band_of(vram_gib, CardKind.CUDA) is band


def test_a_cpu_is_post_however_much_memory_the_pc_has() -> None:
    assert band_of(64.0, CardKind.CPU) is Tier.POST
