"""What a step computes and moves, counted without a card."""

from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")

import torch
from torch import nn
from torch.nn import functional

from farm.catalogue.models import builtin_models
from farm.catalogue.networks import network
from node_agent.engine.counting import count_step
from node_agent.engine.fit import work_of
from node_agent.measuring import counted_step, diffusion_class

HALF: Any = {"dtype": torch.float16, "device": "meta"}


class Small(nn.Module):
    """One product, one sum, a norm that goes over its input twice, views, and attention, called as UNets do or by `names`."""

    def __init__(self, names: bool) -> None:
        super().__init__()
        self.names = names
        self.product = nn.Linear(64, 32, bias=False, **HALF)
        self.norm = nn.LayerNorm(32, elementwise_affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.product(x)
        y = self.norm(y + 1)
        heads = y.view(1, 10, 2, 16).transpose(1, 2)
        if self.names:
            return functional.scaled_dot_product_attention(query=heads, key=heads, value=heads)
        return functional.scaled_dot_product_attention(heads, heads, heads)


@pytest.mark.parametrize("names", [False, True], ids=["unet", "transformer"])
def test_products_and_bytes_are_counted_by_hand(names: bool) -> None:
    """LTX and Wan give attention its tensors by name: `farm calibrate` ended with a ValueError."""
    found = count_step(Small(names), lambda net: net(torch.empty(10, 64, **HALF)))
    matrix, attention = 2 * 10 * 64 * 32, 2 * 2 * 10 * 10 * (16 + 16)
    assert found.flops == matrix + attention
    assert found.products_bytes == 2 * (10 * 64 + 64 * 32 + 10 * 32) + 2 * 4 * 10 * 32
    added, normed, statistics = 2 * (2 * 10 * 32), 2 * (3 * 10 * 32), 2 * (2 * 10)
    assert added + normed <= found.rest_bytes <= added + normed + 2 * statistics


@pytest.mark.parametrize("name", ["i2vgen-xl", "svd"])
def test_the_catalogue_has_what_is_counted(name: str) -> None:
    kind, known = diffusion_class(builtin_models()[name]), network(name).counted
    found = counted_step(kind, kind.bench_sizes[0])
    work = work_of(kind.bench_sizes[0])
    assert found.flops / work / 1e12 == pytest.approx(known.tflop, rel=0.01)
    assert found.products_bytes / work / 1e9 == pytest.approx(known.products_gb, rel=0.01)
    assert found.rest_bytes / work / 1e9 == pytest.approx(known.rest_gb, rel=0.01)
