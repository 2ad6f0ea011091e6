"""Gives tensors back as soon as nothing reads them again, though a caller's variable still holds them.

In a U-shaped network each step upwards joins what came up with what was kept on the way down, by copying both into one tensor. The
callers' variables keep the originals alive until the whole block has returned: at full resolution more than the joined tensor itself.
So it is with what goes into a block of a VAE, twice as wide as what the block makes of it. Their storage can go at once.
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
            _give_back(half, given)
        halves.clear()

    return release


class InputRelease:
    """Watches the blocks of an autoencoder: what goes into one is done with once its first layer has computed."""

    def __init__(self, network: nn.Module) -> None:
        """Adds hooks to every block of the network's encoder and decoder."""
        halves = (getattr(network, name, None) for name in ("encoder", "decoder"))
        blocks: list[Any] = [
            block
            for half in halves
            for block in (*getattr(half, "down_blocks", ()), *getattr(half, "up_blocks", ()))
        ]
        self._hooks = [_first_layer(block).register_forward_hook(_done) for block in blocks if block.resnets]

    def close(self) -> None:
        """Takes the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _first_layer(block: Any) -> nn.Module:
    first: Any = block.resnets[0]
    # One that looks along time begins with one that does not, and goes on with what that gave.
    found: nn.Module = getattr(first, "spatial_res_block", first)
    return found


def _done(_module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
    if args and isinstance(args[0], Tensor) and isinstance(out, Tensor):
        _give_back(args[0], out)


def _give_back(tensor: Tensor, needed: Tensor) -> None:
    """Frees what `tensor` lies in, if that is its own and not `needed`'s too."""
    storage = tensor.untyped_storage()
    own = tensor.numel() * tensor.element_size() == storage.nbytes()
    if own and storage.data_ptr() != needed.untyped_storage().data_ptr():
        storage.resize_(0)
