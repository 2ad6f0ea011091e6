"""The memory law against what was measured on an H200: full-size I2VGen-XL, torch 2.11, default allocator."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.models import builtin_models
from farm.model import MemoryPlan, RenderSettings
from farm.planning.memory import TIME_FACTORS, peak_gib, plans_for, plans_of, smallest_peak_gib

I2VGEN = builtin_models()["i2vgen-xl"]
STANDARD = RenderSettings("i2vgen-xl", 512, 512, frames=16, steps=50, guidance=9.0, fps=8, seed=1)
RESIDENT, OFFLOAD = MemoryPlan("resident", "together"), MemoryPlan("by_stage", "together")
OFFLOAD_IN_TURN = MemoryPlan("by_stage", "in_turn")


@pytest.mark.parametrize(
    ("plan", "width", "height", "frames", "reserved"),
    [
        # The whole pipeline.
        (RESIDENT, 256, 256, 16, 5.795),
        (RESIDENT, 512, 512, 8, 6.539),
        (RESIDENT, 512, 512, 16, 8.434),
        (RESIDENT, 768, 768, 16, 12.822),
        (OFFLOAD, 512, 512, 8, 4.672),
        (OFFLOAD, 512, 512, 16, 6.375),
        (OFFLOAD, 768, 768, 16, 10.607),
        # One UNet step with nothing else on the card: what offloading comes down to.
        (OFFLOAD, 256, 256, 16, 3.666),
        (OFFLOAD, 512, 512, 24, 7.910),
        (OFFLOAD, 1280, 704, 16, 14.455),
        (OFFLOAD, 1024, 1024, 16, 16.359),
        (OFFLOAD_IN_TURN, 512, 512, 16, 4.508),
        (OFFLOAD_IN_TURN, 768, 768, 16, 6.621),
        (OFFLOAD_IN_TURN, 1280, 704, 16, 8.633),
        (OFFLOAD_IN_TURN, 1024, 1024, 16, 9.600),
    ],
)
def test_the_law_is_never_low_and_at_most_five_percent_high(
    plan: MemoryPlan, width: int, height: int, frames: int, reserved: float
) -> None:
    law = peak_gib(I2VGEN, replace(STANDARD, width=width, height=height, frames=frames), plan)
    assert reserved * 0.999 <= law <= reserved * 1.05


@pytest.mark.parametrize(
    ("usable", "plan"),
    [
        (3.4, None),
        (5.4, OFFLOAD_IN_TURN),  # a 6 GB card
        (6.6, OFFLOAD),
        (7.4, OFFLOAD),  # an 8 GB card
        (11.4, RESIDENT),
    ],
)
def test_the_fastest_plan_that_fits_the_standard_preset(usable: float, plan: MemoryPlan | None) -> None:
    assert plans_for(I2VGEN, STANDARD, usable) == plan


def test_a_card_whose_memory_is_not_known_fits_nothing() -> None:
    assert plans_for(I2VGEN, STANDARD, None) is None


def test_a_model_that_needs_no_gpu_memory_fits_anywhere() -> None:
    animatic = builtin_models()["animatic"]
    settings = replace(STANDARD, model="animatic")
    assert plans_for(animatic, settings, None) == MemoryPlan()
    assert peak_gib(animatic, settings, MemoryPlan()) == 0.0


def test_few_frames_are_bound_by_the_decoder_not_by_the_unet() -> None:
    """512x512: the VAE's 0.616 GiB for one frame are more than the UNet's 0.162 for each, three times over."""
    one = peak_gib(I2VGEN, replace(STANDARD, frames=1), RESIDENT)
    assert one == pytest.approx(4.64 + 0.28 + 1.355 * 2.35 * 0.262144)
    assert one == peak_gib(I2VGEN, replace(STANDARD, frames=3), RESIDENT)
    assert one < peak_gib(I2VGEN, replace(STANDARD, frames=4), RESIDENT)


def test_offloaded_the_decoder_has_the_card_to_itself() -> None:
    large = replace(STANDARD, width=1024, height=1024, frames=1)
    assert peak_gib(I2VGEN, large, OFFLOAD_IN_TURN) == pytest.approx(0.16 + 0.28 + 1.355 * 2.35 * 1.048576)


def test_without_guidance_there_is_nothing_to_take_in_turn() -> None:
    plain = replace(STANDARD, guidance=1.0)
    assert plans_of(plain) == (RESIDENT, OFFLOAD)
    assert peak_gib(I2VGEN, plain, OFFLOAD) == peak_gib(I2VGEN, STANDARD, OFFLOAD_IN_TURN)


SETTINGS = st.builds(
    replace,
    st.just(STANDARD),
    width=st.integers(32, 240).map(lambda n: n * 8),
    height=st.integers(32, 240).map(lambda n: n * 8),
    frames=st.integers(1, 64),
    guidance=st.floats(0, 30),
)


@given(SETTINGS, st.floats(0.1, 150))
def test_a_plan_fits_and_no_faster_one_does(settings: RenderSettings, usable: float) -> None:
    plan = plans_for(I2VGEN, settings, usable)
    if plan is None:
        assert smallest_peak_gib(I2VGEN, settings) > usable
        return
    assert peak_gib(I2VGEN, settings, plan) <= usable
    faster = [other for other in plans_of(settings) if TIME_FACTORS[other] < TIME_FACTORS[plan]]
    assert all(peak_gib(I2VGEN, settings, other) > usable for other in faster)


@given(SETTINGS, st.floats(0.1, 50), st.floats(0, 50))
def test_more_memory_never_makes_it_slower_or_impossible(
    settings: RenderSettings, usable: float, more: float
) -> None:
    small, large = (plans_for(I2VGEN, settings, gib) for gib in (usable, usable + more))
    assert small is None or (large is not None and TIME_FACTORS[large] <= TIME_FACTORS[small])


def test_plans_are_listed_fastest_first() -> None:
    assert list(TIME_FACTORS.values()) == sorted(TIME_FACTORS.values())
