"""Measures what a model has beside its denoiser: the weights of its other parts, and what the VAE takes as it encodes and decodes.

Half of `farm calibrate`; `measuring` is the other. The parts are built as they are published (`Layout.published`). Only the VAE is put on
the card: the other parts' layers are small beside their weights.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import torch
from torch import nn

from node_agent.engine.calibrate import clean_card, handed_out_mib
from node_agent.engine.chunking import Chunking
from node_agent.engine.fit import Size, line_gib
from node_agent.engine.placement import STORED, TILE_MIB
from node_agent.engine.skips import InputRelease
from node_agent.engine.streaming import StreamedNetwork
from node_agent.engine.units import cut
from node_agent.pipelines.diffusion.model import DiffusionModel
from node_agent.pipelines.full_size import build_part, random_weights

MIB: Final = 1024**2
GIB: Final = 1024**3
HALF: Final = 2
"""Bytes of a weight in half precision."""
BUDGETS_MIB: Final = {"frame": 0, "tiles": TILE_MIB}
"""To what a VAE's layers are cut."""
SMALLER: Final = 0.75
"""The sides of the other picture, where the model's larger one does not fit."""
SIDE: Final = 64
"""What that size's sides are multiples of: it suits every model."""

T = TypeVar("T")


def parts_gib(kind: type[DiffusionModel]) -> dict[str, float]:
    """The weights of each part but the denoiser in half precision, GiB. Needs no card."""
    layout = kind.layout
    names = [name for name in layout.weighted if name != kind.denoiser]
    return {name: round(_elements(build_part(layout, name)) * HALF / GIB, 4) for name in names}


def measure_vae(kind: type[DiffusionModel], device: torch.device) -> dict[str, Any]:
    """The law of the VAE's memory, in the shape of `farm.catalogue.networks.VaeLaw`.

    Raises:
        torch.cuda.OutOfMemoryError: the card has not enough memory at the model's standard size.
    """
    found: dict[str, Any] = {"decode_frames": kind.decode_frames}
    vae: Any = build_part(kind.layout, "vae")

    def decode(like: torch.Tensor, size: Size) -> Any:
        return kind.decode(vae, kind.bench_window(vae.config, size, like))

    def encode(like: torch.Tensor, size: Size) -> Any:
        return kind.encode(vae, torch.randn((1, 3, size[1], size[0]), dtype=like.dtype, device=like.device))

    for name, call, compute in (
        ("decode", decode, STORED),
        ("encode", encode, torch.float32 if kind.encodes_in_fp32 else STORED),
    ):
        with _on_card(vae, device, compute) as chunking:
            like = torch.zeros((), dtype=compute, device=device)
            for way, budget in BUDGETS_MIB.items():
                chunking.budget_bytes = budget * MIB
                frames = None if name == "decode" else 1
                found[f"{name}_{way}"] = _law(kind, partial(call, like), frames)
    return {**found, "encodes_in_fp32": kind.encodes_in_fp32}


def _law(kind: type[DiffusionModel], call: Callable[[Size], Any], frames: int | None) -> list[float]:
    """What a call takes by frames x megapixels, through two sizes; None: as many frames as the model decodes at once."""

    def sample(size: Size) -> tuple[float, float]:
        number = (kind.decode_frames or size[2]) if frames is None else frames
        return number * size[0] * size[1] / 1e6, handed_out_mib(lambda: call(size))

    standard, _, other = kind.bench_sizes
    first = sample(standard)
    second = unless_out_of_memory(lambda: sample(other))
    return line_gib((first, sample(smaller(standard)) if second is None else second))


def smaller(size: Size) -> Size:
    """As many frames of a smaller picture."""
    width, height = (max(SIDE, round(side * SMALLER / SIDE) * SIDE) for side in size[:2])
    return width, height, size[2]


def unless_out_of_memory(measured: Callable[[], T]) -> T | None:
    """What `measured` gives; None where the card ran out of memory, which is then free again."""
    try:
        return measured()
    except torch.cuda.OutOfMemoryError:
        pass
    # Out here the exception is gone, and with its frames the tensors that they held.
    torch.cuda.empty_cache()
    return None


@contextmanager
def _on_card(vae: nn.Module, device: torch.device, compute: torch.dtype) -> Iterator[Chunking]:
    """The VAE with random weights, run as `engine.placement` runs it."""
    chunking, inputs = Chunking(vae), InputRelease(vae)
    try:
        with clean_card():
            weights = StreamedNetwork(
                vae, random_weights(cut(vae)), device, stored=STORED, compute=compute, stay=None
            )
            try:
                yield chunking
            finally:
                weights.close()
    finally:
        inputs.close()
        chunking.close()


def _elements(part: nn.Module) -> int:
    return sum(tensor.numel() for tensor in part.parameters())
