"""A model's parts in full size without a checkpoint: their architecture, and random weights. Needs torch.

For measuring (`farm calibrate`, benchmarks): the values of weights change neither memory nor time.
"""

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Final

import torch
from torch import Tensor, nn

from node_agent.engine.units import Unit
from node_agent.pipelines.weights import Layout

WEIGHT_SCALE: Final = 0.6
"""Random weights times this over the root of what a number is summed of: a deep network's values then stay within fp16."""


def build_part(layout: Layout, name: str) -> nn.Module:
    """A part as it is published, on the meta device."""
    library, title = layout.weighted[name]
    kind: Any = getattr(import_module(library), title)
    published = layout.published.get(name, {})
    with torch.device("meta"):
        # transformers makes its classes from a configuration, diffusers from the words themselves.
        made: nn.Module = (
            kind(kind.config_class(**published)) if library == "transformers" else kind(**published)
        )
    # Some of diffusers' parameters are made on the CPU whatever the context says.
    return made.to("meta").eval().requires_grad_(False)


def random_weights(units: Sequence[Unit]) -> Callable[[str], Tensor]:
    """Gives a random tensor for each name: norms about 1, biases about 0, the rest scaled by what it sums over."""
    shapes = {held.name: held.shape for unit in units for held in unit.tensors}

    def read(name: str) -> Tensor:
        shape = shapes[name]
        if len(shape) > 1:
            return torch.randn(shape) * (WEIGHT_SCALE / math.sqrt(shape[1:].numel()))
        return 0.02 * torch.randn(shape) + (1.0 if name.endswith("weight") else 0.0)

    return read
