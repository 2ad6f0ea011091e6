"""What a GPU says of itself beside what the planner needs: facts that stay, and how it is at one moment. None is "it does not tell"."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What stays as it is while a PC runs.

    `bus_id` is the PCI address ("00000000:01:00.0"), `cuda` the newest CUDA that the driver serves, `power_limit_w` what the card may draw
    (watts). `ecc`: whether its memory is checked; `ecc_uncorrected` counts errors that could not be mended over the card's life,
    `retired_pages` the pages of its memory that it uses no more. `mig`: whether it is split into instances.
    """

    bus_id: str | None = None
    cuda: tuple[int, int] | None = None
    power_limit_w: float | None = None
    ecc: bool | None = None
    ecc_uncorrected: int | None = None
    retired_pages: int | None = None
    mig: bool | None = None


@dataclass(frozen=True, slots=True)
class Vitals:
    """How a GPU is at the moment `at` (its PC's wall clock, seconds).

    `utilization` is the share (0 to 1) of the last moments in which it computed anything, `memory_used_gib` what all programs hold
    together. Degrees Celsius, watts, MHz of the shaders and of the memory. `pcie_generation` and `pcie_lanes` are those in use now, which
    drop on an idle card.
    """

    at: float
    utilization: float | None = None
    memory_used_gib: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
