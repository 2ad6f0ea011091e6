"""How much of a card's memory a render takes, and the fastest memory plan that fits. Pure.

The law, measured on an H200 with full-size I2VGen-XL (GiB; megapixels of the clip), for each of the two
stages that can be the highest:

    step:   weights on the card + reserve_factor * a * frames * megapixels * share
    decode: weights on the card + reserve_factor * d * megapixels, one frame at a time
    peak:   reserve_gib + the larger of the two

`share` is 1 with both guidance passes in one batch, 1/2 with one at a time, or where there is only one.
Weights on the card are all of them (resident), or the UNet's and the VAE's alone (offload). Without the
reserve this is what is allocated; with it, what the caching allocator holds: the figure that decides whether
a card runs out, and that the history records. The CUDA context (0.3 to 0.6 GiB) is no part of it; a card's
`usable_gib` leaves that out. The law is between 0 and 2.5 % above the measured rows of the whole pipeline,
and up to 5 % above single UNet steps: the safe side.
"""

from dataclasses import replace

from farm.catalogue.models import ModelRow
from farm.model import MemoryPlan, RenderSettings

TIME_FACTORS: dict[MemoryPlan, float] = {
    MemoryPlan("resident", "together"): 1.0,
    MemoryPlan("by_stage", "together"): 1.02,
    MemoryPlan("resident", "in_turn"): 1.17,
    MemoryPlan("by_stage", "in_turn"): 1.19,
}
"""Seconds per step against the fastest plan, in order. On an H200: 0.217 s, 0.221 s offloaded, 0.253 s in turn."""


def is_guided(settings: RenderSettings) -> bool:
    """Whether each step runs the model twice; guidance of 1 and less runs it once."""
    return settings.guidance > 1.0


def peak_gib(row: ModelRow, settings: RenderSettings, plan: MemoryPlan) -> float:
    """The allocator's reserved memory at its highest, GiB, without the CUDA context; 0 without GPU memory."""
    law = row.memory
    if law is None:
        return 0.0
    megapixels = settings.width * settings.height / 1e6
    together = is_guided(settings) and plan.guidance == "together"
    step = law.activation_gib_per_frame_megapixel * settings.frames * megapixels * (1.0 if together else 0.5)
    decode = law.decode_gib_per_megapixel * megapixels
    resident = plan.parts == "resident"
    return law.reserve_gib + max(
        (law.resident_gib if resident else law.unet_gib) + law.reserve_factor * step,
        (law.resident_gib if resident else law.vae_gib) + law.reserve_factor * decode,
    )


def plans_for(row: ModelRow, settings: RenderSettings, usable_gib: float | None) -> MemoryPlan | None:
    """The fastest plan whose peak fits, or None. A model that needs no GPU memory fits anywhere."""
    if row.memory is None:
        return MemoryPlan()
    if usable_gib is None:
        return None
    return next((plan for plan in plans_of(settings) if peak_gib(row, settings, plan) <= usable_gib), None)


def plans_of(settings: RenderSettings) -> tuple[MemoryPlan, ...]:
    """All plans that make a difference for these settings, the fastest first."""
    return tuple(plan for plan in TIME_FACTORS if is_guided(settings) or plan.guidance == "together")


def leaner(row: ModelRow, settings: RenderSettings, plan: MemoryPlan) -> MemoryPlan | None:
    """The fastest plan that takes less than `plan`, in the same precision; None if there is none. For a render that ran out of memory."""
    present = peak_gib(row, settings, plan)
    others = (replace(other, precision=plan.precision) for other in plans_of(settings))
    return next((other for other in others if peak_gib(row, settings, other) < present), None)


def time_factor(plan: MemoryPlan) -> float:
    """Seconds per step under `plan` against the fastest plan."""
    return TIME_FACTORS[MemoryPlan(plan.parts, plan.guidance)]


def smallest_peak_gib(row: ModelRow, settings: RenderSettings) -> float:
    """The peak of the plan that takes the least, GiB."""
    return min(peak_gib(row, settings, plan) for plan in plans_of(settings))
