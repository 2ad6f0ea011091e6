"""Which plan a render gets: the fastest that fits a card's memory and its PC's. Pure, without torch, under a millisecond.

For each way to cut layers (`PIECES_MIB`) the card is filled with weights; the fastest of these plans is then given air, where that costs
nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Literal

from farm.catalogue.models import MemoryCoefficients, ModelRow
from farm.catalogue.networks import Network, network
from farm.model import MemoryPlan, RenderSettings
from farm.planning.memory import (
    HELD,
    KEPT_BY_VAE,
    UNKNOWN,
    Room,
    beside_weights_mib,
    is_guided,
    kept_of,
    layers_mib,
    least_seconds,
    passes_of,
    peak_gib,
    pieces_of,
    step_seconds,
    streamed_mib,
    taken_mib,
    vae_mib,
    width_of,
    work_of,
)
from farm.planning.residency import ring_mib

LARGE_MIB: Final = 2048
PIECES_MIB: Final = (0, LARGE_MIB, 1024, 512, 256, 128, 64)
"""The working sets that are tried for a layer; 0 runs all whole. Half as large a piece makes twice as many launches."""
FEW: Final = 10
"""Pieces of `LARGE_MIB` are taken where they are at most this few: the holes that they leave in the allocator's memory are as
large. On an H200 1280x704x16 under 5.4 GiB took 1.053 of the resident step with 34 of them, the allocator giving back what it
kept 4.2 times a step, and 1.025 with 90 of 1024 (0.1 times); 512x512x16 under 3.4 GiB took 1.00 with one of them, and 1.03 to
1.07 with layers whole and less to stay."""

SPARE: Final = 1.05
"""How much slower a plan may be that leaves some of the card free: one that is full to the brim loses time to the allocator."""
AIR: Final = 0.93
FOR_NOTHING: Final = 1.005
"""How full the rest is planned where a step is at most that much slower for it. On an H100, 1280x704x16 under 5.4 GiB: 3.8 times a step the
allocator gave back at 55 % of the weights on the card, 1.5 times at 42 %, each 3.5 ms."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A plan with what it takes: `peak_gib` as history records it, `step_s` seconds per step."""

    plan: MemoryPlan
    peak_gib: float
    step_s: float


@lru_cache(maxsize=4096)
def best_plan(row: ModelRow, settings: RenderSettings, room: Room) -> Choice | None:
    """The fastest plan that fits, or None. Of equally fast ones that with fewer pieces and passes.

    It leaves the allocator as much as it is given (`HELD`), unless a plan that fills the card is faster by `SPARE` or the only one.
    """
    if row.memory is None:
        return Choice(MemoryPlan(), 0.0, 0.0)
    roomy = _fastest(row, settings, replace(room, usable_gib=room.usable_gib / HELD))
    everything = MemoryPlan(precision=room.precision)
    if roomy is not None and roomy.step_s <= SPARE * least_seconds(row, settings, everything, room):
        return roomy  # nothing is so much faster
    return _fastest(row, settings, room, math.inf if roomy is None else roomy.step_s / SPARE) or roomy


def _fastest(row: ModelRow, settings: RenderSettings, room: Room, limit_s: float = math.inf) -> Choice | None:
    """The fastest plan that fills the room, if a step takes less than `limit_s`."""
    bounded = sorted(
        (
            (least_seconds(row, settings, plan, room), number, plan)
            for number, plan in enumerate(_fitting(row, settings, room))
        ),
        key=lambda found: found[:2],
    )
    best: tuple[float, MemoryPlan] | None = None
    for least, _, plan in bounded:
        if least >= (limit_s if best is None else best[0]):
            break
        seconds = step_seconds(row, settings, plan, room)
        if seconds < (limit_s if best is None else best[0]):
            best = (seconds, plan)
    if best is None:
        return None
    seconds, plan = _airier(row, settings, best[1], best[0], room)
    return Choice(plan, peak_gib(row, settings, plan), seconds)


def _airier(
    row: ModelRow, settings: RenderSettings, plan: MemoryPlan, seconds: float, room: Room
) -> tuple[float, MemoryPlan]:
    """The plan with fewer weights on the card where that costs nothing, and its seconds: with `AIR` left the allocator is at rest."""
    if plan.weights_on_card >= 1.0 or not plan.piece_mib:
        return seconds, plan
    assert row.memory is not None  # noqa: S101 - asked before
    net = network(row.memory.network)
    wide = width_of(plan.precision)
    layers = layers_mib(
        net, work_of(settings, plan) * wide, plan.piece_mib, passes_of(settings, plan), settings.frames
    )
    beside = beside_weights_mib(row.memory, layers, kept_of(plan))
    less = _with_weights(net, plan, AIR * room.usable_gib * 1024 - beside, room, wide)
    if less is None:
        return seconds, plan
    slower = step_seconds(row, settings, less, room)
    return (seconds, plan) if slower > seconds * FOR_NOTHING else (slower, less)


def leaner(
    row: ModelRow, settings: RenderSettings, plan: MemoryPlan, room: Room = UNKNOWN
) -> MemoryPlan | None:
    """The fastest plan in `room` that takes a tenth less of the card than `plan`, in the same precision, for a render that ran out.

    `room` says what card and PC have now. Where less than `plan` fits there, but by less than a tenth, it is the fastest that fits. None if
    there is none.
    """
    if row.memory is None:
        return None
    peak = peak_gib(row, settings, plan)
    room = replace(room, precision=plan.precision)
    found = best_plan(row, settings, replace(room, usable_gib=min(0.9 * peak, room.usable_gib)))
    if found is None and room.usable_gib < peak:
        found = best_plan(row, settings, room)
    return None if found is None else found.plan


def streamed_gib(row: ModelRow, plan: MemoryPlan) -> float:
    """What a plan keeps of the denoiser's weights in the PC's memory, GiB: all that does not stay on the card."""
    if row.memory is None or plan.weights_on_card >= 1.0:
        return 0.0
    return streamed_mib(network(row.memory.network), plan.weights_on_card) / 1024


def leanest(row: ModelRow, precision: Literal["fp16", "fp32"] = "fp16") -> MemoryPlan:
    """The plan that takes the least in this precision, however slow."""
    if row.memory is None:
        return MemoryPlan()
    ring = ring_mib(network(row.memory.network), 0.0)
    return MemoryPlan("by_stage", "in_turn", 0.0, ring, PIECES_MIB[-1], "tiles", precision)


def smallest_peak_gib(
    row: ModelRow, settings: RenderSettings, precision: Literal["fp16", "fp32"] = "fp16"
) -> float:
    """The peak of the plan that takes the least, GiB."""
    return peak_gib(row, settings, leanest(row, precision))


def _fitting(row: ModelRow, settings: RenderSettings, room: Room) -> Iterator[MemoryPlan]:
    """For each way to cut layers, the plan that fills the card: as many weights on it as fit, the other parts too if they do."""
    law = row.memory
    assert law is not None  # noqa: S101 - asked before
    net = network(law.network)
    usable = room.usable_gib * 1024
    wide = width_of(room.precision)
    decode = _decode_way(law, settings, usable - net.kept, room.precision)
    if decode is None or any(gib * 1024 * wide + net.kept > usable for gib in law.parts_gib.values()):
        return
    for guidance in ("together", "in_turn") if is_guided(settings) else ("together",):
        base = MemoryPlan("by_stage", guidance, 1.0, 0, 0, decode, room.precision)
        former = -1
        for piece_mib in PIECES_MIB:
            work = work_of(settings, base) * wide
            pieces = pieces_of(net, work, piece_mib)
            if pieces == former or (piece_mib == LARGE_MIB and pieces > FEW):
                continue  # no layer is that wide: the same as the plan before
            former = pieces
            layers = layers_mib(net, work, piece_mib, passes_of(settings, base), settings.frames)
            cut = replace(base, piece_mib=piece_mib)
            plan = _with_weights(net, cut, usable - beside_weights_mib(law, layers, kept_of(cut)), room, wide)
            if plan is None:
                continue
            resident = replace(plan, parts="resident")
            yield resident if peak_gib(row, settings, resident) <= room.usable_gib else plan


def _with_weights(
    net: Network, plan: MemoryPlan, left_mib: float, room: Room, wide: int
) -> MemoryPlan | None:
    """The plan with as many weights on the card as `left_mib` holds; None if not even the ring fits, or the host cannot hold the rest."""
    if left_mib >= net.mib * wide:
        return plan
    most = int(min(0.99, left_mib / (net.mib * wide)) * 100)
    taken = taken_mib(
        net, wide
    )  # not quite rising with the share: what the ring needs follows from what streams
    percent = next((percent for percent in range(most, -1, -1) if taken[percent] <= left_mib), None)
    if percent is None:
        return None
    share = percent / 100
    if room.ram_gib is not None and streamed_mib(net, share) / 1024 > room.ram_gib:
        return None
    return replace(plan, weights_on_card=share, ring_mib=ring_mib(net, share))


def _decode_way(
    law: MemoryCoefficients, settings: RenderSettings, usable_mib: float, precision: Literal["fp16", "fp32"]
) -> Literal["frame", "tiles"] | None:
    """Whole frames where they fit, else tiles, else None."""
    for way in ("frame", "tiles"):
        if vae_mib(law, settings, MemoryPlan(decode=way, precision=precision), KEPT_BY_VAE) <= usable_mib:
            return way
    return None
