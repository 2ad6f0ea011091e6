"""How many seconds a render takes, from the catalogue alone: a prior until the card was seen at work. Pure.

A reference card's measured seconds are scaled by half the ratio of computing rates and half the ratio of
memory bandwidths: a UNet step is bound by both. Held against an H200 it guesses within a factor of two;
history and calibration make it sharp. What a memory plan costs on top comes from the measured network.
"""

from farm.catalogue.cards import CardRow, find_card
from farm.catalogue.models import ModelRow
from farm.catalogue.networks import network
from farm.model import Card, CardKind, MemoryPlan, RenderSettings
from farm.planning.memory import Room, step_seconds
from farm.planning.rules import precision_for

_COMPUTE_SHARE = 0.5
_CPU_TFLOPS = 0.5
_CPU_BANDWIDTH_GB_S = 40.0
"""Guesses for a desktop: what eight AVX2 cores sustain, and two channels of DDR4-2666 (42.7 at most)."""

_OTHERS_RAM_GIB = 3.0
"""What the system and a worker take of a PC's memory beside the weights that stream: torch and CUDA alone are 1.5 to 2 GiB."""

_UNKNOWN_SLOWNESS = 2.0  # a card that no table knows: better a pleasant surprise than a promise broken


def seconds(row: ModelRow, card: Card, settings: RenderSettings, plan: MemoryPlan) -> float:
    """Predicted seconds of one render on `card`, from the loaded model to the last frame."""
    work = settings.frames * settings.width * settings.height / 1e6
    law = row.time
    if law.cpu_s_per_frame_megapixel is not None:
        return law.fixed_s + law.cpu_s_per_frame_megapixel * work
    if row.memory is None or law.reference_s_per_frame_step_megapixel is None:
        return law.fixed_s
    return law.fixed_s + settings.steps * step_seconds(row, settings, plan, room_of(row, card, 0.0))


def room_of(row: ModelRow, card: Card, usable_gib: float) -> Room:
    """What the planner must know of a card to choose a plan for a model that may take `usable_gib` of it."""
    ram = None if card.ram_gib is None else max(0.0, card.ram_gib - _OTHERS_RAM_GIB)
    return Room(usable_gib, ram, card.bus_gb_s, scale_of(row, card), precision_for(card))


def scale_of(row: ModelRow, card: Card) -> float:
    """Seconds on `card` for each second on the card that the model's network was measured on; 1 without any measurement."""
    law = row.time
    if row.memory is None or law.reference_s_per_frame_step_megapixel is None:
        return 1.0
    per_work = law.reference_s_per_frame_step_megapixel / 2  # guided: two passes to a frame
    return per_work / network(row.memory.network).step_per_work_s * slowness(card, law.reference_card)


def slowness(card: Card, reference: str | None) -> float:
    """Seconds on `card` for each second on the reference card of the catalogue; above 1 is slower."""
    base = find_card(reference) if reference else None
    if base is None:
        return 1.0
    if card.kind is CardKind.CPU:
        return _slowness_of(base, _CPU_TFLOPS, _CPU_BANDWIDTH_GB_S)
    row = find_card(card.name, card.vram_gib)
    return _slowness_of(base, row.compute_tflops, row.bandwidth_gb_s) if row else _UNKNOWN_SLOWNESS


def _slowness_of(base: CardRow, tflops: float, bandwidth: float) -> float:
    by_compute = base.compute_tflops / tflops
    by_memory = base.bandwidth_gb_s / bandwidth
    return _COMPUTE_SHARE * by_compute + (1.0 - _COMPUTE_SHARE) * by_memory
