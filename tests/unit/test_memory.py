"""The memory law and the planner, against what was measured on an H100 with full-size networks (torch 2.11, expandable segments)."""

import sys
from dataclasses import replace
from itertools import pairwise
from subprocess import run
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.models import builtin_models
from farm.catalogue.networks import network, network_from_dict
from farm.errors import ConfigurationError
from farm.model import MemoryPlan, RenderSettings
from farm.planning import memory, plans
from farm.planning.memory import Room, peak_gib, stage_peaks_gib, step_seconds
from farm.planning.plans import best_plan, leaner, smallest_peak_gib
from farm.planning.residency import SMALL_MIB, ring_mib, staying
from farm.planning.stepping import pass_seconds

I2VGEN = builtin_models()["i2vgen-xl"]
STANDARD = RenderSettings("i2vgen-xl", 512, 512, frames=16, steps=50, guidance=9.0, fps=8, seed=1)
NET = network("i2vgen-xl")
SETTINGS = st.builds(
    replace,
    st.just(STANDARD),
    width=st.integers(32, 160).map(lambda n: n * 8),
    height=st.integers(32, 90).map(lambda n: n * 8),
    frames=st.integers(1, 48),
    guidance=st.sampled_from([1.0, 9.0]),
)
ROOMS = st.builds(
    Room,
    st.floats(0.3, 24),
    ram_gib=st.none() | st.floats(0, 64),
    bus_gb_s=st.none() | st.floats(0.5, 60),
    scale=st.floats(0.5, 60),
    precision=st.sampled_from(["fp16", "fp32"]),
)


def allocated(name: str, width: int, height: int, frames: int, piece_mib: int) -> float:
    """GiB that one guided step with all weights on the card takes, without what the allocator keeps for itself."""
    net = network(name)
    work = 2 * frames * width * height / 1e6
    return (net.mib + memory.layers_mib(net, work, piece_mib, 2, frames)) / 1024


@pytest.mark.parametrize(
    ("name", "width", "height", "frames", "piece_mib", "measured"),
    [
        # Sizes that the coefficients are from.
        ("i2vgen-xl", 512, 512, 16, 0, 5.27),
        ("i2vgen-xl", 512, 512, 16, 512, 3.60),
        ("i2vgen-xl", 512, 512, 16, 128, 3.40),
        ("svd", 1024, 576, 14, 0, 6.76),
        ("svd", 1024, 576, 14, 256, 4.34),
        # Sizes that were held back.
        ("i2vgen-xl", 1280, 704, 16, 0, 11.56),
        ("i2vgen-xl", 1280, 704, 16, 1024, 5.53),
        ("i2vgen-xl", 1280, 704, 16, 256, 4.85),
        ("i2vgen-xl", 384, 384, 16, 512, 3.33),
        ("i2vgen-xl", 768, 768, 16, 0, 8.50),
        ("i2vgen-xl", 768, 768, 16, 512, 4.55),
        ("i2vgen-xl", 512, 512, 24, 512, 4.05),
        ("svd", 1024, 576, 25, 0, 9.78),
        ("svd", 1024, 576, 25, 512, 5.49),
        ("svd", 768, 448, 14, 512, 3.91),
    ],
)
def test_the_law_is_within_what_it_promises_of_what_was_measured(
    name: str, width: int, height: int, frames: int, piece_mib: int, measured: float
) -> None:
    assert allocated(name, width, height, frames, piece_mib) == pytest.approx(measured, rel=memory.LAW_WITHIN)


@pytest.mark.parametrize(
    ("name", "width", "height", "decode", "measured"),
    [
        ("i2vgen-xl", 512, 512, "frame", 0.56),
        ("i2vgen-xl", 512, 512, "tiles", 0.50),
        ("i2vgen-xl", 1280, 704, "frame", 1.86),
        ("i2vgen-xl", 1280, 704, "tiles", 1.01),
        ("svd", 1024, 576, "frame", 2.29),
        ("svd", 1024, 576, "tiles", 1.35),
    ],
)
def test_the_vae_takes_what_whole_renders_measured(
    name: str, width: int, height: int, decode: Literal["frame", "tiles"], measured: float
) -> None:
    """GiB beside its weights while a clip is decoded (benchmarks/render.py, an H100), by the law that `farm calibrate` made on an H200.

    A render holds its latents and what libraries keep besides, some 0.03 GiB.
    """
    law = builtin_models()[name].memory
    assert law is not None
    settings = replace(STANDARD, model=name, width=width, height=height, frames=4)
    found = memory.vae_mib(law, settings, MemoryPlan("by_stage", decode=decode), 1.0) / 1024
    assert found - law.parts_gib["vae"] + 0.03 == pytest.approx(measured, rel=0.03)


def test_encoding_in_single_precision_counts_where_decoding_takes_less() -> None:
    """One frame decoded in half precision against one picture, and weights, in single."""
    law = builtin_models()["svd"].memory
    assert law is not None
    settings = replace(STANDARD, model="svd", width=1024, height=576, frames=1)
    vae = law.vae
    encode = 2 * law.parts_gib["vae"] + vae.encode_frame[0] + vae.encode_frame[1] * 1.024 * 0.576
    found = memory.vae_mib(law, settings, MemoryPlan("by_stage"), 1.0) / 1024
    assert found == pytest.approx(encode)
    assert encode > law.parts_gib["vae"] + vae.decode_frame[0] + vae.decode_frame[1] * 1.024 * 0.576


@pytest.mark.parametrize(
    ("width", "height", "share", "scale", "bus_gb_s", "measured"),
    [
        (512, 512, 0.0, 1.0, 3.0, 0.969),
        (512, 512, 0.0, 1.0, 6.0, 0.558),
        (512, 512, 0.5, 1.0, 3.0, 0.513),
        (512, 512, 0.5, 1.0, 6.0, 0.336),
        (1280, 704, 0.3, 1.04, 3.0, 1.131),
        (1280, 704, 0.3, 1.04, 6.0, 0.903),
    ],
)
def test_a_slow_bus_costs_what_was_measured(
    width: int, height: int, share: float, scale: float, bus_gb_s: float, measured: float
) -> None:
    """Copies held down to the bus's rate on an H100, of which a step takes 1.07 of the catalogue's H200; the ring had 256 MiB."""
    work = NET.timed(2 * 16 * width * height / 1e6, width * height / 1e6)
    scale *= 1.07
    found = pass_seconds(NET, staying(NET, share), work=work, scale=scale, ring_mib=256, bus_gb_s=bus_gb_s)
    assert found == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    ("usable", "width", "height", "most_dearer"),
    [
        (5.4, 512, 512, 1.03),  # a 6 GB card
        (5.4, 1280, 704, 1.05),
        (3.4, 512, 512, 1.05),  # a 4 GB card
        (3.4, 1280, 704, 1.15),
        (1.6, 512, 512, 1.25),  # a 2 GB card
    ],
)
def test_small_cards_get_a_plan_that_is_nearly_as_fast_as_a_big_card_s(
    usable: float, width: int, height: int, most_dearer: float
) -> None:
    settings = replace(STANDARD, width=width, height=height)
    found = best_plan(I2VGEN, settings, Room(usable, bus_gb_s=12.0))
    assert found is not None
    assert found.peak_gib <= usable
    everything = step_seconds(I2VGEN, settings, MemoryPlan(), Room(99, bus_gb_s=12.0))
    assert found.step_s / everything <= most_dearer


def test_the_plan_follows_the_bus() -> None:
    """The slower the bus, the more weights stay on the card, paid for with smaller pieces."""
    shares = []
    for bus_gb_s in (24.0, 3.0, 0.8):
        found = best_plan(I2VGEN, STANDARD, Room(3.4, bus_gb_s=bus_gb_s))
        assert found is not None
        shares.append(found.plan.weights_on_card)
    assert shares == sorted(shares)
    assert shares[0] < 0.3
    assert shares[-1] > 0.6


def test_a_big_card_keeps_everything_and_runs_it_whole() -> None:
    found = best_plan(I2VGEN, STANDARD, Room(11.4))
    assert found is not None
    assert found.plan == MemoryPlan()


def test_host_memory_is_a_dimension() -> None:
    """16 GB of host RAM are not enough for every plan with streamed weights (Wan2GP#1612)."""
    assert best_plan(I2VGEN, STANDARD, Room(3.4, ram_gib=64)) is not None
    rich, poor = (best_plan(I2VGEN, STANDARD, Room(3.4, ram_gib=gib)) for gib in (64, 1.0))
    assert rich is not None
    assert poor is not None
    assert poor.plan.weights_on_card > rich.plan.weights_on_card
    assert best_plan(I2VGEN, STANDARD, Room(1.6, ram_gib=0.5)) is None


def test_fp32_takes_twice_the_weights_and_activations() -> None:
    wide, narrow = (
        stage_peaks_gib(I2VGEN, STANDARD, MemoryPlan("by_stage", precision=p)) for p in ("fp32", "fp16")
    )
    assert I2VGEN.memory is not None
    kept = network("i2vgen-xl").kept / 1024 + I2VGEN.memory.beside_gib
    assert wide["denoise"] - kept == pytest.approx(2 * (narrow["denoise"] - kept))


def test_a_model_without_gpu_memory_fits_anywhere() -> None:
    animatic = builtin_models()["animatic"]
    settings = replace(STANDARD, model="animatic")
    assert peak_gib(animatic, settings, MemoryPlan()) == 0.0
    found = best_plan(animatic, settings, Room(0.0))
    assert found is not None
    assert found.plan == MemoryPlan()


@given(SETTINGS, ROOMS)
def test_a_plan_fits_and_is_only_missing_where_the_leanest_does_not(
    settings: RenderSettings, room: Room
) -> None:
    found = best_plan(I2VGEN, settings, room)
    if found is not None:
        assert found.peak_gib == peak_gib(I2VGEN, settings, found.plan)
        assert found.peak_gib <= room.usable_gib + 1e-6
        assert found.plan.precision == room.precision
        assert found.step_s == pytest.approx(step_seconds(I2VGEN, settings, found.plan, room))
        assert (
            found.step_s
            >= step_seconds(I2VGEN, settings, replace(MemoryPlan(), precision=room.precision), room) - 1e-9
        )
    elif room.ram_gib is None:
        wide = 2 if room.precision == "fp32" else 1
        assert room.usable_gib < 2.2 * wide * smallest_peak_gib(I2VGEN, settings) + 0.5


@given(SETTINGS, ROOMS, st.floats(0.01, 8))
def test_more_memory_is_never_slower(settings: RenderSettings, room: Room, more: float) -> None:
    small = best_plan(I2VGEN, settings, room)
    large = best_plan(I2VGEN, settings, replace(room, usable_gib=room.usable_gib + more))
    # Which units stay is chosen by weight: a little more room may swap one, hence a percent; and leave some of it free, hence five.
    assert small is None or (large is not None and large.step_s <= small.step_s * 1.06)


@given(SETTINGS, ROOMS)
def test_the_bound_that_ends_the_search_holds(settings: RenderSettings, room: Room) -> None:
    for plan in plans._fitting(I2VGEN, settings, room):
        assert (
            memory.least_seconds(I2VGEN, settings, plan, room)
            <= step_seconds(I2VGEN, settings, plan, room) + 1e-9
        )


@given(st.floats(0, 1))
def test_what_stays_is_never_more_than_the_share_and_the_small(share: float) -> None:
    stay = staying(NET, share)
    small = sum(unit.mib for unit in NET.units if unit.mib <= SMALL_MIB)
    assert sum(unit.mib for unit in NET.units if unit.name in stay) <= max(share * NET.mib, small) + 1e-3
    assert {unit.name for unit in NET.units if unit.mib <= SMALL_MIB} <= stay


def test_all_weights_stay_with_a_share_of_one() -> None:
    assert staying(NET, 1.0) == {unit.name for unit in NET.units}


def test_units_follow_each_other_through_the_smallest_ring() -> None:
    for share in (0.0, 0.3, 0.9):
        sizes = [unit.mib for unit in NET.units if unit.name not in staying(NET, share)]
        assert all(a + b <= ring_mib(NET, share) for a, b in pairwise(sizes))
    assert ring_mib(NET, 0.9) < ring_mib(NET, 0.0)
    assert ring_mib(NET, 1.0) == 0


def test_leaner_takes_a_tenth_less() -> None:
    less = leaner(I2VGEN, STANDARD, MemoryPlan())
    assert less is not None
    assert peak_gib(I2VGEN, STANDARD, less) <= 0.9 * peak_gib(I2VGEN, STANDARD, MemoryPlan())


def test_the_head_plans_without_torch() -> None:
    """A head has no torch, and planning must not cost it the import of numpy."""
    code = "import farm.planning.plans, farm.planning.eligibility, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_networks_files_are_whole() -> None:
    for row in builtin_models().values():
        if row.memory is None:
            continue
        net = network(row.memory.network)
        assert sum(unit.share for unit in net.units) == pytest.approx(1.0, abs=1e-3)
        assert len({unit.name for unit in net.units}) == len(net.units)
        assert all(layer.fixed + layer.per_piece / 2 <= layer.whole * 1.2 for layer in net.layers)
        assert net.measured["card"]


def test_a_network_nobody_measured_is_named() -> None:
    with pytest.raises(ConfigurationError, match="Nobody has measured a network called tiny"):
        network("tiny")
    with pytest.raises(ConfigurationError, match="measurements of the network half cannot be used"):
        network_from_dict("half", {"measured": {}, "units": []})
