"""How bytes get from the host to the card while the card computes: a side stream with events on a GPU, at once on a CPU."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

_cuda: Any = torch.cuda  # half of it has no types

Copy = Callable[[], None]
"""Enqueues the copies of one unit on the current stream."""


class Lane(Protocol):
    """Order between copying and computing. `index` is a unit's place in the order of computation."""

    def bring(self, index: int, after: int | None, copy: Copy) -> None:
        """Copies unit `index`, not before the computation of unit `after` (None: no need to wait)."""
        ...

    def wait(self, index: int) -> None:
        """Lets what is computed next wait for the copy of unit `index`."""
        ...

    def done(self, index: int) -> None:
        """All of unit `index`'s computation was given to the device."""
        ...

    def settle(self) -> None:
        """Lets copying wait for all computation given so far."""
        ...


class DirectLane:
    """For a CPU: a copy happens when it is asked for. What would be overwritten too early on a GPU is overwritten too early here."""

    def bring(self, index: int, after: int | None, copy: Copy) -> None:
        """See `Lane`."""
        del index, after
        copy()

    def wait(self, index: int) -> None:
        """See `Lane`."""

    def done(self, index: int) -> None:
        """See `Lane`."""

    def settle(self) -> None:
        """See `Lane`."""


class CudaLane:
    """For a GPU: copies on a stream of their own, two events for each unit."""

    def __init__(self, device: torch.device, units: int) -> None:
        """Events for `units` units."""
        self._device = device
        self._stream = _cuda.Stream(device)
        self._ready = [_cuda.Event() for _ in range(units)]
        self._done = [_cuda.Event() for _ in range(units)]

    def bring(self, index: int, after: int | None, copy: Copy) -> None:
        """See `Lane`."""
        if after is not None:
            self._stream.wait_event(self._done[after])
        with torch.cuda.stream(self._stream):
            copy()
        self._ready[index].record(self._stream)

    def wait(self, index: int) -> None:
        """See `Lane`."""
        torch.cuda.current_stream(self._device).wait_event(self._ready[index])

    def done(self, index: int) -> None:
        """See `Lane`."""
        self._done[index].record(torch.cuda.current_stream(self._device))

    def settle(self) -> None:
        """See `Lane`."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))


def lane_for(device: torch.device, units: int) -> Lane:
    """The lane of a device."""
    return CudaLane(device, units) if device.type == "cuda" else DirectLane()


def copy_flat(target: Tensor, source: Tensor) -> None:
    """Copies bytes without waiting where the source is pinned."""
    target.copy_(source, non_blocking=True)
