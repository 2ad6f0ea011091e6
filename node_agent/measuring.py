"""Measures a model on this PC's card and gives the planner's data. `farm calibrate` is the verb.

The full architecture is built without weights and given random ones, so that nothing needs to be downloaded. The card's allocator is
asked around every layer of the denoiser (`engine.calibrate`), and laws are laid through the answers (`engine.fit`); `measuring_parts` does
the rest of the model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import torch
from torch import Tensor, nn

from farm.catalogue.models import ModelRow
from farm.errors import ConfigurationError
from node_agent.engine.calibrate import clean_card, sample_layers, sample_units, seconds_per_step
from node_agent.engine.chunking import Chunking
from node_agent.engine.counting import count_step
from node_agent.engine.fit import (
    PASSES,
    Counted,
    LayerSample,
    Samples,
    Size,
    budget_that_cuts,
    network_data,
)
from node_agent.engine.skips import SkipRelease
from node_agent.engine.streaming import StreamedNetwork
from node_agent.engine.units import Unit, cut
from node_agent.measuring_parts import measure_vae, parts_gib, smaller, unless_out_of_memory
from node_agent.pipelines.diffusion.model import DiffusionModel
from node_agent.pipelines.full_size import build_part, random_weights

BUDGETS_MIB: Final = (0, 1024, 512, 256, 128, 64)
"""The working sets that layers are cut to; 0 runs them whole."""
FEWEST_FRAMES: Final = 4
"""Where the standard size does not fit, its frames are halved down to this; fewer would say little of a clip."""
MIB: Final = 1024**2

Say = Callable[[str, int, int], None]
"""Told what is done now, how many parts are done, and of how many."""
PARTS: Final = len(BUDGETS_MIB) + 7


@dataclass(frozen=True, slots=True)
class _Bench:
    """The network on the card, and how to call it."""

    network: nn.Module
    model: type[DiffusionModel]
    units: list[Unit]
    chunking: Chunking
    like: Tensor

    def call(self, size: Size) -> Callable[[nn.Module], Any]:
        config: Any = self.network.config
        inputs = self.model.bench_inputs(config, size, PASSES, self.like)
        return lambda network: network(**inputs)


def measure(row: ModelRow, command: str, say: Say) -> dict[str, Any]:
    """The data of the model, in the shape of `farm/catalogue/networks/*.json`, from the first CUDA device.

    `command` is written into the data as its source.

    Raises:
        ConfigurationError: the model has no denoiser, or the card has not enough memory for it.
    """
    kind = diffusion_class(row)
    device = torch.device("cuda:0")
    title = kind.layout.weighted[kind.denoiser][1]
    say("Building the network", 0, PARTS)
    try:
        with torch.random.fork_rng(devices=[]), _on_card(kind, device) as bench:
            samples = _samples(bench, row.title, say)
        say("Memory of the VAE", PARTS - 1, PARTS)
        vae = measure_vae(kind, device)
    except torch.cuda.OutOfMemoryError as error:
        raise _too_small(row.title, "the network's weights") from error
    measured = {
        "command": command,
        "card": torch.cuda.get_device_name(device),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }
    say("Measured", PARTS, PARTS)
    return {**network_data(title, measured, samples), "others": {"parts_gib": parts_gib(kind), "vae": vae}}


def diffusion_class(row: ModelRow) -> type[DiffusionModel]:
    """The class that runs a model.

    Raises:
        ConfigurationError: it is not a diffusion model.
    """
    kind = type(import_module(f"node_agent.pipelines.{row.pipeline}").open_model(row, "cpu"))
    if not issubclass(kind, DiffusionModel):
        raise ConfigurationError(
            f"{row.title} has no network to measure: it works without diffusion.",
            "Name a diffusion model, such as i2vgen-xl.",
        )
    return kind


def counted_step(kind: type[DiffusionModel], size: Size) -> Counted:
    """What one pass in half precision at a size computes and moves. Needs no card."""
    network: Any = build_part(kind.layout, kind.denoiser).half()
    like = torch.zeros((), dtype=torch.float16, device="meta")
    inputs = kind.bench_inputs(network.config, size, PASSES, like)
    return count_step(network, lambda called: called(**inputs))


@contextmanager
def _on_card(kind: type[DiffusionModel], device: torch.device) -> Iterator[_Bench]:
    network = build_part(kind.layout, kind.denoiser)
    units = cut(network)
    chunking, skips = Chunking(network), SkipRelease(network)
    torch.manual_seed(0)
    try:
        with clean_card():
            half = torch.float16
            weights = StreamedNetwork(
                network, random_weights(units), device, stored=half, compute=half, stay=None
            )
            try:
                yield _Bench(network, kind, units, chunking, torch.zeros((), dtype=half, device=device))
            finally:
                weights.close()
    finally:
        skips.close()
        chunking.close()


def _samples(bench: _Bench, title: str, say: Say) -> Samples:
    standard, longer, other = bench.model.bench_sizes
    taken, whole = _whole_layers(bench, standard, title, say)
    layers = {0: whole}
    call = bench.call(taken)
    for number, budget in enumerate(BUDGETS_MIB[1:], start=1):
        say(f"Memory of each layer in pieces of {budget} MiB", number, PARTS)
        layers[budget] = sample_layers(bench.network, bench.chunking, call, budget * MIB)
    done = len(BUDGETS_MIB)
    del call
    say(f"Seconds of each unit at {_named(taken)}", done, PARTS)
    first = _seconds(bench, taken)
    second = _or_smaller(
        bench, longer if taken == standard else None, (*taken[:2], taken[2] // 2), done + 1, say
    )
    third = _or_smaller(bench, other if taken == standard else None, smaller(taken), done + 2, say)
    piece_mib = budget_that_cuts(whole, taken, third.size, BUDGETS_MIB[1:])
    say(f"Seconds in pieces of {piece_mib} MiB at {_named(third.size)}", done + 3, PARTS)
    bench.chunking.budget_bytes = piece_mib * MIB
    in_pieces = piece_mib, seconds_per_step(bench.network, bench.call(third.size))
    bench.chunking.budget_bytes = 0
    say("Laying laws through the samples", done + 4, PARTS)
    mib = {unit.name: unit.elements * 2 / MIB for unit in bench.units}
    counted = counted_step(bench.model, taken)
    return Samples(
        (taken, second.size, third.size), layers, mib, (first.units, third.units),
        (first.step_s, second.step_s, third.step_s), (first.held_mib, second.held_mib), in_pieces, counted,
    )  # fmt: skip


def _or_smaller(bench: _Bench, size: Size | None, less: Size, done: int, say: Say) -> "_Timed":
    """The seconds at `size`, or at `less` where that does not fit or is not asked for: laws need points, wherever they lie."""
    if size is not None:
        say(f"Seconds of each unit at {_named(size)}", done, PARTS)
        found = unless_out_of_memory(lambda: _seconds(bench, size))
        if found is not None:
            return found
    say(f"A larger size does not fit: {_named(less)} in its place", done, PARTS)
    return _seconds(bench, less)


def _whole_layers(bench: _Bench, standard: Size, title: str, say: Say) -> tuple[Size, list[LayerSample]]:
    """The layers' memory with everything whole, at the standard size or the largest smaller one that fits."""
    width, height, frames = standard
    while frames >= FEWEST_FRAMES:
        size = (width, height, frames)
        say(f"Memory of each layer at {_named(size)}", 0, PARTS)
        found = unless_out_of_memory(partial(_layers_whole, bench, size))
        if found is not None:
            return size, found
        frames //= 2
    raise _too_small(title, f"{width}x{height} pixels with {FEWEST_FRAMES} frames")


def _layers_whole(bench: _Bench, size: Size) -> list[LayerSample]:
    return sample_layers(bench.network, bench.chunking, bench.call(size), 0)


@dataclass(frozen=True, slots=True)
class _Timed:
    """The seconds of each unit and of a step at a size, and the MiB that stay handed out between steps."""

    size: Size
    units: list[tuple[str, float]]
    step_s: float
    held_mib: float


def _seconds(bench: _Bench, size: Size) -> _Timed:
    call = bench.call(size)
    units, step_s = sample_units(bench.network, bench.units, call), seconds_per_step(bench.network, call)
    return _Timed(size, units, step_s, torch.cuda.memory_allocated() / MIB)


def _named(size: Size) -> str:
    return f"{size[0]}x{size[1]}, {size[2]} frames"


def _too_small(title: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"Cannot measure {title}: this card ran out of memory at {what}.",
        "Close other programs that use the card, or measure on one with more memory: the data serve every card.",
    )
