"""Host memory that the card can read by itself: pinned where it can be had, ordinary where not, and said so."""

import logging
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class HostMemory:
    """One block of host memory, `bytes` `[nbytes]` of uint8. `pinned`: copies from it run beside the computation.

    Pinned by registering ordinary memory with the driver. torch's own pinned allocator rounds every block up to a power of two,
    which on a PC with 8 GB would not leave room for the rest.
    """

    def __init__(self, nbytes: int, device: torch.device) -> None:
        """Takes `nbytes` bytes, for copies to `device`."""
        self.bytes: Tensor = torch.empty(nbytes, dtype=torch.uint8)
        self._runtime: Any = None
        self.why_not = ""
        if device.type != "cuda" or nbytes == 0:
            return
        runtime: Any = torch.cuda.cudart()
        answer = runtime.cudaHostRegister(self.bytes.data_ptr(), nbytes, 0)
        if int(answer) == 0:
            self._runtime = runtime
            return
        self.why_not = f"the driver refused to pin {nbytes / 1024**3:.1f} GiB of this PC's memory ({answer})"
        log.warning("%s: weights stream more slowly, through the driver's own buffer", self.why_not)

    @property
    def pinned(self) -> bool:
        """Whether the driver has it registered."""
        return self._runtime is not None

    def close(self) -> None:
        """Gives it back. No copy from it may be under way."""
        if self._runtime is not None:
            self._runtime.cudaHostUnregister(self.bytes.data_ptr())
            self._runtime = None
        self.bytes = torch.empty(0, dtype=torch.uint8)
