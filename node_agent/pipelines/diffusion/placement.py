"""Where a model's parts lie and in which precision they compute."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Literal

import torch
from torch import nn

HALF_PRECISION_SINCE = (7, 0)
"""The first compute capability (Volta) quick in half precision; Pascal has it at 1/64 of its fp32 rate."""


def compute_dtype(device: torch.device) -> torch.dtype:
    """The precision that a device computes in: half on a card that is quick at it, else single.

    Single precision doubles the weights' memory. Storing half and computing single, for Pascal and for the
    cards that give black frames in half precision (GTX 16xx), would be decided here.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= HALF_PRECISION_SINCE:
        return torch.float16
    return torch.float32


def wait_for(device: torch.device) -> None:
    """Waits until the device has done its work: else a step would count as done once it is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Placement:
    """Keeps a model's parts on the device ("resident"), or brings each only for its stage ("by_stage")."""

    def __init__(self, parts: Mapping[str, nn.Module], device: torch.device) -> None:
        self._parts = dict(parts)
        self._device = device
        self._mode: Literal["resident", "by_stage"] = "by_stage"

    def arrange(self, mode: Literal["resident", "by_stage"]) -> None:
        """Changes over to `mode`; the parts are in host memory to begin with."""
        home = self._device if mode == "resident" else torch.device("cpu")
        for part in self._parts.values():
            part.to(home)
        self._mode = mode
        self._release()

    @contextmanager
    def on_device(self, name: str, precision: Literal["fp32"] | None = None) -> Iterator[None]:
        """Holds a part on the device. Enter it before inference mode, whose tensors cannot be moved.

        With `precision` "fp32" the part computes in single precision for so long. The weights do not change, so
        leaving just drops the device's copy: nothing travels back over the bus.
        """
        if precision is None and (self._mode == "resident" or self._device.type == "cpu"):
            yield
            return
        at_home = [
            (module, key, tensor)
            for module in self._parts[name].modules()
            for key, tensor in chain(
                module.named_parameters(recurse=False), module.named_buffers(recurse=False)
            )
        ]
        try:
            for module, key, tensor in at_home:
                wider = precision == "fp32" and tensor.is_floating_point()
                copy = tensor.to(self._device, torch.float32 if wider else tensor.dtype)
                is_parameter = isinstance(tensor, nn.Parameter)
                setattr(module, key, nn.Parameter(copy, requires_grad=False) if is_parameter else copy)
            yield
        finally:
            for module, key, tensor in at_home:
                setattr(module, key, tensor)
            self._release()

    def _release(self) -> None:
        """Gives freed memory back to the driver: the next part would not fit into the holes."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
