"""What a card does about a failed try before it hands the job back: a leaner memory plan, or single precision. Pure.

Nothing here touches the settings or the seed: whatever plan a clip is made under, it is the clip that was ordered.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from farm.catalogue.models import ModelRow
from farm.model import FailureClass, MemoryPlan, RenderSettings
from farm.planning.memory import CONTEXT_GIB, UNKNOWN, Room, peak_gib
from farm.planning.plans import best_plan, leaner, streamed_gib
from node_agent.faults import Fault

TOLERANCE_GIB = 0.25
"""Less than this is a library's workspace or the driver's rounding, not another program, and not memory that stayed away."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again under `plan`; `reason` is for people."""

    plan: MemoryPlan
    reason: str


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """A card's memory at one moment, GiB: all of it, what the driver has to give, and what our allocator holds."""

    total_gib: float
    free_gib: float
    reserved_gib: float

    @property
    def available_gib(self) -> float:
        """What a render could have: what is free, and what our own allocator holds already."""
        return self.free_gib + self.reserved_gib

    @property
    def whole_gib(self) -> float:
        """What a render could have if nobody else were on the card."""
        return self.total_gib - CONTEXT_GIB

    @property
    def missing_gib(self) -> float:
        """How much less than that it could have: what other programs hold; 0 within the tolerance."""
        missing = self.whole_gib - self.available_gib
        return missing if missing > TOLERANCE_GIB else 0.0


@dataclass(frozen=True, slots=True)
class Program:
    """Another program on the card; its memory (GiB) is None where the driver does not tell, as on Windows."""

    pid: int
    name: str
    gib: float | None


def what_others_hold(missing_gib: float, programs: Sequence[Program]) -> str | None:
    """A sentence on the memory that other programs hold, naming the largest; None if they hold nothing that matters."""
    if missing_gib <= 0:
        return None
    if not programs:
        return f"Other programs hold {missing_gib:.1f} GiB of the card's memory."
    largest = max(programs, key=lambda program: program.gib or 0.0)
    own = f" with {largest.gib:.1f} GiB" if largest.gib is not None else ""
    return (
        f"Other programs hold {missing_gib:.1f} GiB of the card's memory, "
        f"first of all {largest.name} (process {largest.pid}){own}."
    )


def taken_since(before: MemoryReading, after: MemoryReading, programs: Sequence[Program]) -> float:
    """GiB that other programs have taken between two readings, as far as `programs` (those there now) can account for it."""
    gone = before.available_gib - after.available_gib
    if gone <= TOLERANCE_GIB or not programs:
        return 0.0
    sizes = [program.gib for program in programs]
    known = [size for size in sizes if size is not None]
    return gone if len(known) < len(sizes) else min(gone, max(0.0, sum(known) - before.missing_gib))


def stayed_away(before: MemoryReading, after: MemoryReading, programs: Sequence[Program]) -> float:
    """GiB that a failed try did not give back, though its model is gone and the cache is empty; 0 within the tolerance.

    What our own allocator still holds, or what the driver no longer has without any other program to account for it: only the end of
    this process brings that back.
    """
    gone = before.available_gib - after.available_gib - taken_since(before, after, programs)
    away = max(after.reserved_gib, gone)
    return away if away > TOLERANCE_GIB else 0.0


def plan_within(
    row: ModelRow,
    settings: RenderSettings,
    plan: MemoryPlan,
    memory: MemoryReading | None,
    room: Room = UNKNOWN,
) -> MemoryPlan:
    """`plan`, or where other programs hold memory that it counts on, the fastest one that fits beside them, else the leanest.

    `room` is what the PC has now. Where that is too little for the weights that stream, it is the fastest plan that fits too, which takes
    more of the card; where there is none it stays, and the render says what is missing.
    """
    usable = room.usable_gib if memory is None else min(room.usable_gib, memory.available_gib)
    too_large = memory is not None and memory.missing_gib > 0 and peak_gib(row, settings, plan) > usable
    if not too_large and not too_little_ram(row, plan, room):
        return plan
    found = best_plan(row, settings, replace(room, usable_gib=usable, precision=plan.precision))
    if found is not None:
        return plan if math.isinf(usable) else found.plan
    anywhere = replace(room, usable_gib=math.inf)  # nothing fits: what takes the least
    while too_large and (less := leaner(row, settings, plan, anywhere)) is not None:
        plan = less
    return plan


def held_too_low(fault: Fault, plan: MemoryPlan, held_gib: float, memory: MemoryReading) -> Retry | None:
    """Another try under the same plan, where a render ran out of what it was held to (`held_gib`) and the card has more: the law is wrong.

    None where the card itself was at its end.
    """
    left = memory.available_gib - held_gib
    if left <= TOLERANCE_GIB:
        return None
    return Retry(
        plan,
        f"{fault.message} It was held to {held_gib:.1f} GiB, which was expected to do, and the card has {left:.1f} more: the card "
        "tries it again with all of them.",
    )


def too_little_ram(row: ModelRow, plan: MemoryPlan, room: Room) -> bool:
    """Whether the PC has less memory than the weights that stream take."""
    return room.ram_gib is not None and streamed_gib(row, plan) > room.ram_gib


def next_try(
    fault: Fault, row: ModelRow | None, settings: RenderSettings, plan: MemoryPlan, room: Room = UNKNOWN
) -> Retry | None:
    """What to try on the same card after a fault; None where nothing on this card would help. `room`: what card and PC have now."""
    if row is None or fault.cuda_is_broken or fault.host_memory:
        return None
    if fault.broken_picture:
        if plan.precision == "fp32":
            return None
        return Retry(
            _in_single(row, settings, plan, room),
            f"{fault.message} The card tries it again in single precision.",
        )
    if fault.kind is FailureClass.OUT_OF_MEMORY:
        less = leaner(row, settings, plan, room)
        if less is not None:
            return Retry(less, f"{fault.message} The card tries it again with a leaner memory plan.")
    return None


def _in_single(row: ModelRow, settings: RenderSettings, plan: MemoryPlan, room: Room) -> MemoryPlan:
    """The fastest plan in single precision, in which all is twice as large: planned anew, or it would run out down the whole ladder."""
    swapped = replace(plan, precision="fp32")
    if row.memory is None or math.isinf(room.usable_gib):
        return swapped
    found = best_plan(row, settings, replace(room, precision="fp32"))
    return swapped if found is None else found.plan
