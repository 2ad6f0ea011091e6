"""What a network computes and moves in one step, counted on the meta device: no card and no weights are needed.

From these follows how long a step takes on a card of which only the data sheet is known (`farm.planning.estimate`). Counted is what
torch's eager kernels do: the FLOPs of matrix products, convolutions and attention, and the bytes that each kernel reads and writes.
Attention counts as one kernel that keeps its scores on the chip. Views move nothing.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from node_agent.engine.fit import Counted

_TWICE: Final = frozenset({"native_group_norm", "native_layer_norm", "_softmax"})
"""Kernels that go over their input once for the sums and once more to apply them."""
_IDLE: Final = frozenset({"empty", "empty_like", "new_empty", "detach", "_unsafe_view", "lift_fresh"})
"""Operators that move nothing, though torch does not call them views."""


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Sums what every kernel does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own
        self.flops = self.products_bytes = self.rest_bytes = 0.0

    def add(self, flops: float, moved: float) -> None:
        self.flops += flops
        if flops:
            self.products_bytes += moved
        else:
            self.rest_bytes += moved

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        kernel = func.overloadpacket
        count = flop_registry.get(kernel)
        flops = float(count(*args, **(kwargs or {}), out_val=out)) if count is not None else 0.0
        if flops or not (func.is_view or kernel.__name__ in _IDLE):
            read = sum(_bytes(one) for one in _tensors(args))
            self.add(
                flops,
                read * (2 if kernel.__name__ in _TWICE else 1) + sum(_bytes(one) for one in _tensors(out)),
            )
        return out


class _Attention(TorchFunctionMode):
    """Counts attention as one kernel, which torch would take apart on the meta device."""

    def __init__(self, tally: _Tally) -> None:
        super().__init__()
        self._tally = tally

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        given = {**dict(zip(("query", "key", "value"), args, strict=False)), **(kwargs or {})}
        query, key, value = given["query"], given["key"], given["value"]
        *outer, length, width = query.shape
        out = query.new_empty((*outer, length, value.shape[-1]))
        flops = 2 * math.prod(outer) * length * key.shape[-2] * (width + value.shape[-1])
        self._tally.add(flops, sum(_bytes(one) for one in (query, key, value, out)))
        return out


def count_step(network: nn.Module, call: Callable[[nn.Module], Any]) -> Counted:
    """What one pass of the network does. It and what `call` gives it must be on the meta device, in the type that is computed in."""
    tally = _Tally()
    with torch.no_grad(), _Attention(tally), tally:
        call(network)
    return Counted(tally.flops, tally.products_bytes, tally.rest_bytes)


def _tensors(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, list | tuple):
        return [tensor for one in found for tensor in _tensors(one)]
    return []


def _bytes(tensor: Tensor) -> float:
    return float(tensor.numel() * tensor.element_size())
