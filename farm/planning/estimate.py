"""How many seconds a render takes, from the catalogue alone: a prior until the card was seen at work. Pure.

One law for every card, from its data sheet and from what the network computes and moves (`Network.counted`, per work):

    products = max(TFLOP / (REACHED * TFLOPS), GB / (REACHED * bandwidth), DRIVING / shader TFLOPS)
    rest     = GB of all other kernels / (REACHED * bandwidth)
    step     = work * (products + rest)

TFLOPS is the rate of what computes the products: the tensor cores with 32-bit sums, else the shaders. Where shaders compute the products
they drive them too, and the two add up. In single precision all bytes double. DRIVING is what the products ask of everything around the
tensor cores (addresses, copies to shared memory, too little work for a wide card), counted in TFLOP of the shaders: it follows from the
step that was measured on an H200, whose tensor cores wait for the rest four fifths of the time. That an H100, with the same cores and 0.7
of the bandwidth, is 5 to 7 % slower there confirms the share of the bandwidth (8 % by this law). What attention adds at larger pictures
(`Network.timed`) was measured there too: 17 % from 512x512 to 1280x704, where the products of a step grow by 22 %.

Held against the article's five times in `docs/benchmarks.md`. What a memory plan costs on top comes from the measured network too.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Final

from farm.catalogue.cards import CardRow, find_card
from farm.catalogue.models import ModelRow
from farm.catalogue.networks import Network, network
from farm.catalogue.rules import Precision
from farm.model import Card, CardKind, MemoryPlan, RenderSettings
from farm.planning.memory import FP32, Room, step_seconds
from farm.planning.rules import precision_for

REACHED: Final = 0.8
"""The share of a data sheet's rates that good kernels reach, of bandwidth and of products alike."""

_TENSOR_CORES_SINCE: Final = (7, 0)
_WAITING: Final = 1.5
"""Products that take so many times their arithmetic are waited for; an H200's take 2.5 times."""
_CPU_TFLOPS: Final = 0.5
_CPU_BANDWIDTH_GB_S: Final = 40.0
"""Guesses for a desktop: what eight AVX2 cores sustain, and two channels of DDR4-2666 (42.7 at most)."""

_OTHERS_RAM_GIB: Final = 3.0
"""What the system and a worker take of a card's share of its PC's memory beside the weights that stream: torch and CUDA alone are 1.5 to
2 GiB. What is really free is looked at by the worker when a job begins, so that no card's verdict changes with each heartbeat."""

_UNKNOWN: Final[dict[Precision, str]] = {"fp16": "RTX 3050", "fp32": "GTX 1050 Ti"}
"""What a card that no table knows is taken for, by what it computes in: better a pleasant surprise than a promise broken. In single
precision that is an old card, or a small one of a laptop."""


def seconds(row: ModelRow, card: Card, settings: RenderSettings, plan: MemoryPlan) -> float:
    """Predicted seconds of one render on `card`, from the loaded model to the last frame."""
    return sum(steps_and_rest(row, card, settings, plan))


def steps_and_rest(
    row: ModelRow, card: Card, settings: RenderSettings, plan: MemoryPlan
) -> tuple[float, float]:
    """The same in two: the denoising steps, and all beside them. A card's history corrects each by itself.

    What has no steps, or a law of its own for a processor, is all rest.
    """
    law = row.time
    if law.cpu_s_per_frame_megapixel is not None:
        work = settings.frames * settings.width * settings.height / 1e6
        return 0.0, law.fixed_s + law.cpu_s_per_frame_megapixel * work
    if row.memory is None:
        return 0.0, law.fixed_s
    room = room_of(row, card, 0.0)
    # Also on a card that computes in half precision: a picture that was broken in that is made anew.
    if plan.precision == "fp32":
        room = replace(room, scale=scale_of(row, card, plan.precision))
    return settings.steps * step_seconds(row, settings, plan, room), law.fixed_s


def room_of(row: ModelRow, card: Card, usable_gib: float) -> Room:
    """What the planner must know of a card to choose a plan for a model that may take `usable_gib` of it."""
    ram = None if card.ram_gib is None else max(0.0, card.ram_gib - _OTHERS_RAM_GIB)
    return Room(usable_gib, ram, card.bus_gb_s, scale_of(row, card), precision_for(card))


def scale_of(row: ModelRow, card: Card, precision: Precision | None = None) -> float:
    """Seconds on `card` for each second on the card that the model's network was measured on; 1 without any measurement.

    In the card's own precision, unless another is named.
    """
    if row.memory is None:
        return 1.0
    net = network(row.memory.network)
    if card.kind is CardKind.CPU:
        return (
            _work_s(net, _CPU_TFLOPS, _CPU_TFLOPS, _CPU_BANDWIDTH_GB_S, apart=False, wide=FP32)
            / net.step_per_work_s
        )
    own = precision_for(card)
    known = find_card(card.name, card.vram_gib) or find_card(_UNKNOWN[own])
    assert known is not None  # noqa: S101 - a test holds the names to the catalogue
    return card_work_s(net, known, (precision or own) == "fp32") / net.step_per_work_s


def card_work_s(net: Network, card: CardRow, fp32: bool) -> float:
    """Seconds of a step per work on a card of the catalogue, by the law above."""
    apart = not fp32 and card.compute_capability >= _TENSOR_CORES_SINCE
    tflops = card.fp32_tflops if fp32 else card.fp16_tflops
    shaders = card.fp32_tflops
    return _work_s(net, tflops, shaders, card.bandwidth_gb_s, apart=apart, wide=FP32 if fp32 else 1)


def _work_s(
    net: Network, tflops: float, shader_tflops: float, bandwidth_gb_s: float, *, apart: bool, wide: int
) -> float:
    counted = net.counted
    bandwidth = REACHED * bandwidth_gb_s / wide
    computing = counted.tflop / (REACHED * tflops)
    driving = _driving_tflop(net) / shader_tflops
    products = max(computing, driving) if apart else computing + driving
    return max(products, counted.products_gb / bandwidth) + counted.rest_gb / bandwidth


@lru_cache(maxsize=16)
def _driving_tflop(net: Network) -> float:
    """What is left of the measured step after the rest, times the shaders' rate of the card that it was measured on.

    Only tensor cores that wait tell it. Where the arithmetic itself takes most of the time, as on old cards, it is taken for nothing, as on
    cards like these it nearly is.
    """
    measured = find_card(str(net.measured.get("card", "")))
    if measured is None or measured.compute != "fp16" or measured.compute_capability < _TENSOR_CORES_SINCE:
        return 0.0
    products = net.step_per_work_s - net.counted.rest_gb / (REACHED * measured.bandwidth_gb_s)
    computing = net.counted.tflop / (REACHED * measured.fp16_tflops)
    return products * measured.fp32_tflops if products > _WAITING * computing else 0.0
