"""The catalogue's data: cards found by the names that drivers and people write, and rows that make sense."""

import pytest

from farm.catalogue.cards import cards, find_card
from farm.catalogue.models import builtin_models
from farm.catalogue.presets import presets


@pytest.mark.parametrize(
    ("written", "vram_gb", "found"),
    [
        ("NVIDIA GeForce RTX 2060", 6.0, ("RTX 2060 6GB", 6)),
        ("RTX 2060", None, ("RTX 2060 6GB", 6)),
        ("rtx2060", None, ("RTX 2060 6GB", 6)),
        ("2060", None, ("RTX 2060 6GB", 6)),
        ("NVIDIA GeForce RTX 2070 SUPER", 8.0, ("RTX 2070 Super", 8)),
        ("rtx 2070super", None, ("RTX 2070 Super", 8)),
        ("NVIDIA GeForce GTX 1060 6GB", 6.0, ("GTX 1060 6GB", 6)),
        ("GeForce GTX 1080 Ti", 11.0, ("GTX 1080 Ti", 11)),
        ("GTX1080Ti", None, ("GTX 1080 Ti", 11)),
        ("GTX 1080", None, ("GTX 1080", 8)),
        ("NVIDIA GeForce RTX 3060", 12.0, ("RTX 3060 12GB", 12)),
        ("NVIDIA GeForce RTX 4060", 7.996, ("RTX 4060", 8)),
        ("Tesla P40", 22.4, ("Tesla P40", 24)),
        ("NVIDIA Tesla P100-PCIE-16GB", 15.9, ("Tesla P100", 16)),
        ("Tesla V100-SXM2-32GB", None, ("Tesla V100", 32)),
        ("V100", None, ("Tesla V100", 16)),
        ("Tesla T4", 15.0, ("Tesla T4", 16)),
        ("NVIDIA H100 80GB HBM3", 79.6, ("H100", 80)),
        ("NVIDIA H200", 139.8, ("H200", 141)),
    ],
)
def test_a_card_is_found_by_what_drivers_and_people_write(
    written: str, vram_gb: float | None, found: tuple[str, int]
) -> None:
    row = find_card(written, vram_gb)
    assert row is not None
    assert (row.name, row.vram_gb) == found


@pytest.mark.parametrize(
    ("written", "vram_gb"),
    [
        ("GTX 1060 3GB", None),  # another chip with the same number
        ("NVIDIA GeForce RTX 3060", 8.0),  # narrower memory than the 12 GB one
        ("NVIDIA GeForce RTX 2060 12GB", None),
        ("RTX 2070", None),
        ("NVIDIA GeForce RTX 3080 Laptop GPU", 16.0),
        ("Radeon RX 580", 8.0),
        ("", None),
    ],
)
def test_a_card_that_is_not_in_the_catalogue_is_not_mistaken_for_one(
    written: str, vram_gb: float | None
) -> None:
    assert find_card(written, vram_gb) is None


def test_every_row_can_be_found_by_its_own_name() -> None:
    for row in cards():
        assert find_card(row.name, row.vram_gb) is row


def test_rows_are_of_the_kind_they_say() -> None:
    """Pascal without fp16 and the GTX 16xx compute in fp32; elsewhere fp16 is never the slower one."""
    assert len(cards()) >= 22
    for row in cards():
        assert row.source.startswith("NVIDIA")
        assert 2 <= row.vram_gb <= 141
        assert 100 <= row.bandwidth_gb_s <= 5000
        crippled = row.compute_capability == (6, 1) or row.name.startswith("GTX 16")
        assert row.compute == ("fp32" if crippled or row.compute_capability < (5, 3) else "fp16")
        assert row.compute_tflops >= row.fp32_tflops
        if row.compute_capability == (6, 1):
            assert row.fp16_tflops == pytest.approx(row.fp32_tflops / 64, rel=0.02)


def test_presets_are_within_the_limits_of_their_models() -> None:
    for preset in presets().values():
        limits = builtin_models()[preset.model].limits
        for side in (preset.width, preset.height):
            assert limits.min_side <= side <= limits.max_side
            assert side % limits.multiple == 0
        assert preset.width * preset.height <= limits.max_pixels
        assert preset.frames <= limits.max_frames
        assert preset.steps <= limits.max_steps


def test_reference_cards_are_in_the_catalogue() -> None:
    named = [row.time.reference_card for row in builtin_models().values() if row.time.reference_card]
    assert named
    assert all(find_card(name) for name in named)
