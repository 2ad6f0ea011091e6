"""How much of a card's memory a render takes under a plan, and how long a step. Pure, without torch. `plans` picks with it.

The law, in MiB (`work` is frames x megapixels x passes in one batch, twice as much for fp32):

    layers  = work * max over layers of (base + whole, or base + fixed + per_piece * the largest piece's share)
    step    = weights that stay + ring + layers
    vae     = VAE's weights + the larger of decoding a window and encoding the picture: fixed + grows * frames * megapixels
    held    = 1.04 to 1.08 * what is not weights, the caching allocator's share over what it hands out, plus what is there at any size
    peak    = the largest stage, plus the other parts' weights where they stay too

The coefficients were measured on a GPU (`farm.catalogue.networks`, `models.toml`). Without the CUDA context (0.3 to 0.6 GiB), which
a card's `usable_gib` leaves out. The worker lets its allocator reserve no more than the peak predicted here, plus a little: it then
gives back what it keeps for later rather than take more.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Final, Literal

from farm.catalogue.models import MemoryCoefficients, ModelRow
from farm.catalogue.networks import Network, largest_share, network
from farm.model import MemoryPlan, RenderSettings
from farm.planning.residency import ring_mib, staying
from farm.planning.stepping import pass_seconds

KEPT_WHOLE: Final = 1.04
KEPT_IN_PIECES: Final = 1.08
KEPT_BY_VAE: Final = 1.06
LEAST_KEPT: Final = 1.02
"""What the allocator reserves over what it hands out, besides weights. Left alone it was 1.01 to 1.04 on an H100 where layers run whole and
1.05 to 1.24 in pieces, whose many sizes leave holes. The worker holds it down to `HELD`, which costs a few milliseconds a step."""
HELD: Final = 1.05
"""How far above the predicted peak the worker lets the allocator go before it gives back what it keeps for later."""
LAW_WITHIN: Final = 0.035
"""By how much the law is off what is handed out, either way, on an H100 and an H200."""

CONTEXT_GIB: Final = 0.6
"""What a CUDA context takes beside the allocator, GiB: 0.3 to 0.6 on a real card (measurements of the render engine)."""

PIECE_S: Final = 6e-5
CUT_S: Final = 0.008
CUT_AT: Final = 10
"""What cutting costs on the card, beside the network's own share for statistics and copies (`Network.cutting`): seconds for each further
piece, and what a step loses, on any card, where the allocator gives back what it keeps (4.5 ms each, 0 to 5 times a step, 1.6 in the
mean). The share and the latter grow up to `CUT_AT` pieces: on an H200 one piece cost nothing."""
LAUNCH_S: Final = 0.12
LAUNCH_PIECE_S: Final = 2.0e-3
"""What a pass and each further piece take the host to launch: where that is longer than the card computes, the card waits. Measured at
512x512x16 with 35 to 235 pieces on one core of a server (0.22 to 0.54 s); an old desktop's is about as quick."""
IN_TURN: Final = 1.17
"""Two passes of half the batch against one of the whole, at every size, on an H200."""
FP32: Final = 2
"""Bytes of fp32 against fp16."""


def width_of(precision: str) -> int:
    """How many times the bytes of fp16 each number takes."""
    return FP32 if precision == "fp32" else 1


@dataclass(frozen=True, slots=True)
class Room:
    """What a card and its PC have: `usable_gib` for the allocator, `ram_gib` for weights in host memory, the bus, and the card's speed.

    `scale` is seconds on this card for one second on the measured card (an H200), by default somewhat more than an RTX 2070 Super's.
    Unknown memory (None) is taken as plenty, an unknown bus as PCIe 3 x8.
    """

    usable_gib: float
    ram_gib: float | None = None
    bus_gb_s: float | None = None
    scale: float = 11.3
    precision: Literal["fp16", "fp32"] = "fp16"


UNKNOWN: Final = Room(math.inf)
"""Where nobody said what there is."""

BUS_GB_S: Final = 6.0
"""A PCIe 3 x8 slot with pinned memory, where the bus is not known."""


def is_guided(settings: RenderSettings) -> bool:
    """Whether each step runs the model twice; guidance of 1 and less runs it once."""
    return settings.guidance > 1.0


def work_of(settings: RenderSettings, plan: MemoryPlan) -> float:
    """Frames x megapixels x passes in one batch."""
    together = is_guided(settings) and plan.guidance == "together"
    return settings.frames * _megapixels(settings) * (2 if together else 1)


def _megapixels(settings: RenderSettings) -> float:
    return settings.width * settings.height / 1e6


def peak_gib(row: ModelRow, settings: RenderSettings, plan: MemoryPlan) -> float:
    """The allocator's reserved memory at its highest, GiB, without the CUDA context; 0 without GPU memory."""
    law = row.memory
    if law is None:
        return 0.0
    return max(stage_peaks_gib(row, settings, plan).values())


def peak_range_gib(row: ModelRow, settings: RenderSettings, plan: MemoryPlan) -> tuple[float, float]:
    """Between what the peak should lie, GiB: the least that the allocator keeps, with the law `LAW_WITHIN` off; and where it is held."""
    if row.memory is None:
        return 0.0, 0.0
    low = max(stage_peaks_gib(row, settings, plan, least=True).values())
    return low * (1 - LAW_WITHIN), HELD * peak_gib(row, settings, plan)


def stage_peaks_gib(
    row: ModelRow, settings: RenderSettings, plan: MemoryPlan, *, least: bool = False
) -> dict[str, float]:
    """The peak of each stage, GiB: "denoise", "vae", and each part that only lies on the card.

    `least`: with what the allocator reserves at least over what it hands out.
    """
    law = row.memory
    if law is None:
        return {}
    net = network(law.network)
    wide = width_of(plan.precision)
    parts = {name: gib * 1024 * wide for name, gib in law.parts_gib.items()}
    denoiser = weights_mib(net, plan, wide)
    layers = layers_mib(
        net, work_of(settings, plan) * wide, plan.piece_mib, passes_of(settings, plan), settings.frames
    )
    stages = {name: mib + net.kept for name, mib in parts.items()}
    stages["vae"] = vae_mib(law, settings, plan, LEAST_KEPT if least else KEPT_BY_VAE) + net.kept
    stages["denoise"] = denoiser + beside_weights_mib(law, layers, LEAST_KEPT if least else kept_of(plan))
    if plan.parts == "resident":
        everything = denoiser + sum(parts.values())
        here = {**parts, "denoise": denoiser}
        stages = {name: mib - here.get(name, 0.0) + everything for name, mib in stages.items()}
    return {name: mib / 1024 for name, mib in stages.items()}


def step_seconds(row: ModelRow, settings: RenderSettings, plan: MemoryPlan, room: Room) -> float:
    """Seconds of one step under a plan; 0 for a model without a measured network."""
    law = row.memory
    if law is None:
        return 0.0
    net = network(law.network)
    work = work_of(settings, plan)
    wide = width_of(plan.precision)
    pieces = pieces_of(net, work * wide, plan.piece_mib)
    passes = 2 if is_guided(settings) and plan.guidance == "in_turn" else 1
    one = pass_seconds(
        net,
        staying(net, plan.weights_on_card),
        work=net.timed(work, _megapixels(settings)),
        scale=room.scale * _dearer(net, pieces, passes),
        ring_mib=_ring_mib(net, plan),
        bus_gb_s=room.bus_gb_s or BUS_GB_S,
        passes=passes,
    )
    return passes * _beside_launching(one + _cutting_s(pieces), pieces)


def least_seconds(row: ModelRow, settings: RenderSettings, plan: MemoryPlan, room: Room) -> float:
    """A bound that a step cannot be under, quicker to find than its seconds."""
    assert row.memory is not None  # noqa: S101 - asked before
    net = network(row.memory.network)
    work = work_of(settings, plan)
    wide = width_of(plan.precision)
    pieces = pieces_of(net, work * wide, plan.piece_mib)
    passes = 2 if is_guided(settings) and plan.guidance == "in_turn" else 1
    compute = net.step_seconds(
        net.timed(work, _megapixels(settings)), room.scale * _dearer(net, pieces, passes), passes
    )
    streamed = streamed_mib(net, plan.weights_on_card)
    copying = streamed * 1024**2 / ((room.bus_gb_s or BUS_GB_S) * 1e9)
    return passes * _beside_launching(max(compute, copying - CUT_S) + _cutting_s(pieces), pieces)


def _cutting_s(pieces: int) -> float:
    return CUT_S * grown(pieces) + pieces * PIECE_S


def _beside_launching(computing_s: float, pieces: int) -> float:
    """Both go on at once, but each waits for the other here and there: nearly the longer one, a fifth more where they are alike."""
    launching_s = LAUNCH_S + pieces * LAUNCH_PIECE_S
    return float((computing_s**4 + launching_s**4) ** 0.25)


def _dearer(net: Network, pieces: int, passes: int) -> float:
    """By how much the card computes longer in pieces and in turn."""
    return (1 + net.cutting * grown(pieces)) * (IN_TURN if passes == 2 else 1.0)


def grown(pieces: int) -> float:
    """How much of what cutting costs is there at so many pieces more than layers, 0 to 1."""
    return min(1.0, pieces / CUT_AT)


@lru_cache(maxsize=512)
def staying_mib(net: Network, share: float) -> float:
    """What stays on the card of a network when `share` of its weights does, MiB of what is stored."""
    stay = staying(net, share)
    return sum(unit.mib for unit in net.units if unit.name in stay)


def streamed_mib(net: Network, share: float) -> float:
    """What does not stay on the card when `share` of a network's weights does, and lies in the PC's memory, MiB of what is stored."""
    return net.mib - staying_mib(net, share)


def weights_mib(net: Network, plan: MemoryPlan, wide: int) -> float:
    """What the denoiser's weights take on the card, ring included, MiB; `wide` is 2 where fp16 is computed with in fp32."""
    if plan.weights_on_card >= 1.0:
        return net.mib * wide
    return staying_mib(net, plan.weights_on_card) * wide + ring_mib_on_card(_ring_mib(net, plan), wide)


@lru_cache(maxsize=16)
def taken_mib(net: Network, wide: int) -> tuple[float, ...]:
    """What weights and ring take on the card for each percent of the weights that stays, 0 to 99."""
    plans = (MemoryPlan(weights_on_card=percent / 100) for percent in range(100))
    return tuple(weights_mib(net, plan, wide) for plan in plans)


def _ring_mib(net: Network, plan: MemoryPlan) -> int:
    """The engine raises a ring that is too small."""
    return max(plan.ring_mib, ring_mib(net, plan.weights_on_card))


def ring_mib_on_card(ring_mib: float, wide: int) -> float:
    """The ring in what is computed in, and, where that is wider than what is stored, the place where the stored bytes arrive."""
    return ring_mib * (1 if wide == 1 else wide + 1)


def beside_weights_mib(law: MemoryCoefficients, layers_mib: float, kept: float) -> float:
    """What the allocator holds in a step beside the weights."""
    return kept * layers_mib + network(law.network).kept + law.beside_gib * 1024


def kept_of(plan: MemoryPlan) -> float:
    """What the allocator reserves for each byte that it hands out to layers."""
    return KEPT_IN_PIECES if plan.piece_mib else KEPT_WHOLE


@lru_cache(maxsize=512)
def layers_mib(net: Network, work: float, piece_mib: int, passes: int, frames: int) -> float:
    """What the hungriest layer is handed, MiB, with all that lies beside it; `passes` of `frames` are in one batch."""
    most = net.between
    for layer in net.layers:
        pieces = _cut(layer.working * work, piece_mib)
        share = largest_share(layer.cut, pieces, frames, passes)
        most = max(most, layer.base + (layer.whole if pieces == 1 else layer.fixed + layer.per_piece * share))
    return most * work


@lru_cache(maxsize=512)
def pieces_of(net: Network, work: float, piece_mib: int) -> int:
    """How many pieces more than layers."""
    return more_pieces(net.widths, work, piece_mib)


def more_pieces(widths: Iterable[tuple[float, int]], work: float, piece_mib: int) -> int:
    """How many pieces more than layers, which are as wide as `Network.widths` says."""
    return sum(count * (_cut(width * work, piece_mib) - 1) for width, count in widths)


def passes_of(settings: RenderSettings, plan: MemoryPlan) -> int:
    """How many passes one batch holds."""
    return 2 if is_guided(settings) and plan.guidance == "together" else 1


def _cut(working_mib: float, piece_mib: int) -> int:
    return 1 if piece_mib <= 0 or working_mib <= piece_mib else ceil(working_mib / piece_mib)


def vae_mib(law: MemoryCoefficients, settings: RenderSettings, plan: MemoryPlan, kept: float) -> float:
    """What the VAE takes, its weights too, MiB: of decoding and encoding whichever takes more. `kept` as in the law."""
    vae, wide = law.vae, width_of(plan.precision)
    megapixels = _megapixels(settings)
    frames = min(vae.decode_frames or settings.frames, settings.frames)
    in_tiles = plan.decode == "tiles"
    weights = law.parts_gib.get("vae", 0.0)
    decode = _grown(vae.decode_tiles if in_tiles else vae.decode_frame, frames * megapixels)
    encode = _grown(vae.encode_tiles if in_tiles else vae.encode_frame, megapixels)
    encoding_wide = FP32 if vae.encodes_in_fp32 else wide  # what was measured in fp32 is in fp32
    encode *= 1 if vae.encodes_in_fp32 else wide
    return 1024 * max(weights * wide + kept * decode * wide, weights * encoding_wide + kept * encode)


def _grown(law: tuple[float, float], work: float) -> float:
    return law[0] + law[1] * work
