"""Gives skip connections back as soon as they are joined in.

In a U-shaped network each step upwards joins what came up with what was kept on the way down, by copying both into one tensor. The
callers' variables keep the originals alive until the whole block has returned: at full resolution more than the joined tensor itself.
Nothing reads them again, so their storage can go at once.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class SkipRelease:
    """Watches the upward blocks of one network: whatever module has `resnets` and is called with `res_hidden_states_tuple`."""

    def __init__(self, network: nn.Module) -> None:
        """Takes over the `forward` of those blocks."""
        blocks: list[Any] = list(getattr(network, "up_blocks", []))
        self._blocks = [block for block in blocks if hasattr(block, "resnets")]
        self._hooks: list[Any] = []
        for block in self._blocks:
            self._take_over(block)

    def close(self) -> None:
        """Gives the blocks their own `forward` back."""
        for block in self._blocks:
            del block.forward
        for hook in self._hooks:
            hook.remove()
        self._blocks = []
        self._hooks = []

    def _take_over(self, block: Any) -> None:
        plain = block.forward
        joined: list[list[Tensor]] = []

        def forward(*args: Any, **kwargs: Any) -> Any:
            kept = kwargs.get("res_hidden_states_tuple")
            arriving = kwargs.get("hidden_states")
            joined.clear()
            if isinstance(kept, tuple) and isinstance(arriving, Tensor):
                joined.extend([tensor] for tensor in reversed(kept))
                joined[0].append(arriving)
            try:
                return plain(*args, **kwargs)
            finally:
                joined.clear()

        block.forward = forward
        for number, resnet in enumerate(block.resnets):
            self._hooks.append(resnet.register_forward_pre_hook(_releasing(joined, number)))


def _releasing(joined: list[list[Tensor]], number: int) -> Callable[..., None]:
    """Runs when a resnet gets the joined tensor: its two halves are done with."""

    def release(_module: nn.Module, args: tuple[Any, ...]) -> None:
        if number >= len(joined):
            return
        halves = joined[number]
        given = args[0] if args and isinstance(args[0], Tensor) else None
        # The joined tensor is a copy; one that is not (a block that joins otherwise) must keep its halves.
        widths = [half.shape[1] for half in halves]
        if given is None or given.shape[1] <= max(widths):
            return
        for half in halves:
            storage = half.untyped_storage()
            own = half.numel() * half.element_size() == storage.nbytes()
            if own and storage.data_ptr() != given.untyped_storage().data_ptr():
                storage.resize_(0)
        halves.clear()

    return release
