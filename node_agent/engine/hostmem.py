"""Host memory that the card can read by itself: pinned where it can be had, ordinary where not, and said so.

Memory that is asked for is not yet there: where it is filled and the PC has no more, the kernel ends a program, this one or the owner's.
So what is available is looked at first.
"""

import logging
import weakref
from typing import Any

import torch
from torch import Tensor

from farm.errors import HostMemoryError
from node_agent.faults import MORE_RAM
from node_agent.hostram import GIB, LEAST_FREE_GIB, PINNED_LEAVES_GIB, free_ram_gib

log = logging.getLogger(__name__)
_cuda: Any = torch.cuda  # half of it has no types


class HostMemory:
    """One block of host memory, `bytes` `[nbytes]` of uint8. `pinned`: copies from it run beside the computation.

    Pinned by registering ordinary memory with the driver. torch's own pinned allocator rounds every block up to a power of two,
    which on a PC with 8 GB would not leave room for the rest.
    """

    def __init__(self, nbytes: int, device: torch.device) -> None:
        """Takes `nbytes` bytes, for copies to `device`.

        Raises:
            HostMemoryError: less than `LEAST_FREE_GIB` would be left of the PC's memory.
        """
        left_gib = free_ram_gib() - nbytes / GIB
        if nbytes and left_gib < LEAST_FREE_GIB:
            raise HostMemoryError(
                f"{nbytes / GIB:.1f} GiB of weights are to stream from this PC's memory, and it has {left_gib + nbytes / GIB:.1f} GiB "
                f"free, of which {LEAST_FREE_GIB:.1f} must stay.",
                MORE_RAM,
            )
        self.bytes: Tensor = torch.empty(nbytes, dtype=torch.uint8)
        self.why_not = ""
        self._unpin: Any = None
        if device.type != "cuda" or nbytes == 0:
            return
        if left_gib < PINNED_LEAVES_GIB:
            self.why_not = f"only {left_gib:.1f} GiB of this PC's memory would be free beside {nbytes / GIB:.1f} GiB that cannot be moved"
            log.warning("%s: weights stream more slowly, from ordinary memory", self.why_not)
            return
        runtime: Any = _cuda.cudart()
        answer = runtime.cudaHostRegister(self.bytes.data_ptr(), nbytes, 0)
        if int(answer) == 0:
            # Also when nobody closes it: memory that is freed while it is registered cannot be registered again.
            self._unpin = weakref.finalize(self, runtime.cudaHostUnregister, self.bytes.data_ptr())
            return
        _forget_error(device)
        self.why_not = f"the driver refused to pin {nbytes / GIB:.1f} GiB of this PC's memory ({answer})"
        log.warning("%s: weights stream more slowly, through the driver's own buffer", self.why_not)

    @property
    def pinned(self) -> bool:
        """Whether the driver has it registered."""
        return self._unpin is not None and self._unpin.alive

    def close(self) -> None:
        """Gives it back. No copy from it may be under way."""
        if self._unpin is not None:
            self._unpin()
        self.bytes = torch.empty(0, dtype=torch.uint8)


def _forget_error(device: torch.device) -> None:
    """The runtime keeps a refusal as its last error, and the next launch would report it as its own."""
    try:
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)
    except RuntimeError:
        log.debug("the refusal was reported once more, and is forgotten now")
