"""What went wrong in a try, as plain values: class, message, remedy. torch's errors are known by name, so this does without torch."""

import errno
import tempfile
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

from farm.errors import (
    BadInputError,
    BrokenPictureError,
    DiskFullError,
    FarmError,
    HostMemoryError,
    MissingWeightsError,
)
from farm.model import FailureClass, MemoryPlan


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed try, as values: the exception itself would keep its frames, and with them the tensors, alive.

    `host_memory`: it was the PC's memory that ran out, of which a leaner plan for the card takes more. `no_engine`: cuDNN found no way to
    compute a layer, mostly for want of memory for its workspace.
    """

    kind: FailureClass
    message: str
    remedy: str = ""
    detail: str = ""
    broken_picture: bool = False
    cuda_is_broken: bool = False
    host_memory: bool = False
    no_engine: bool = False

    def with_message(self, more: str) -> "Fault":
        """The same with a further sentence."""
        return replace(self, message=f"{self.message} {more}")


_CLASSES: dict[type[FarmError], FailureClass] = {
    BadInputError: FailureClass.BAD_INPUT,
    MissingWeightsError: FailureClass.MISSING_WEIGHTS,
    BrokenPictureError: FailureClass.CARD_FAULT,
    HostMemoryError: FailureClass.OUT_OF_MEMORY,
}
_NO_ENGINE = ("unable to find an engine to execute", "Unable to find a valid cuDNN algorithm")
"""Said where every way to convolve failed, mostly since none found room for its workspace. Where cuDNN has none for the card, its first
test says so (`selftest.convolves`), and where it has none for one layer, `never_an_engine` follows."""
_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
)
"""How the driver and NVIDIA's libraries say it where torch's allocator was not asked. They are not initialized, mostly, because their own
workspace found no room; where CUDA is broken, the look at the memory that follows an out-of-memory finds that out. NVML is named by
torch's allocator itself: for its message it asks NVML, which answers nothing on some PCs (pytorch#112377)."""
_BROKEN = (
    "CUDA error",
    "CUDA driver error",
    "cuDNN error",
    "No CUDA GPUs are available",
    "CUDA unknown error",
    "CUDA driver initialization failed",
    "Unexpected error from cudaGetDeviceCount()",
    "NVIDIA driver on your system",
    "Torch not compiled with CUDA enabled",
    "'torch._C' has no attribute '_cuda_",
)
"""After these the process cannot be trusted with the card any more. The last six are CUDA's refusal to start, as after a PC has slept, or
its driver or torch was replaced (the last two) under a worker that had tested the card: the next worker's test says what to do."""
_CPU_ALLOCATOR = "DefaultCPUAllocator"
MORE_RAM = "Close other programs on that PC, or give it more memory."
_FULL = (errno.ENOSPC, errno.EDQUOT)


def fault_of(error: Exception) -> Fault:
    """A failure as values."""
    kind, message, remedy = explain(error)
    broken_picture = isinstance(error, BrokenPictureError)
    return Fault(
        kind,
        message if message.endswith(".") else f"{message}.",
        remedy,
        detail="".join(traceback.format_exception(error)),
        broken_picture=broken_picture,
        cuda_is_broken=kind is FailureClass.CARD_FAULT and not broken_picture,
        host_memory=_of_host(error),
        no_engine=_no_engine(str(error)),
    )


def is_full(error: OSError) -> bool:
    """Whether a disk, or what this user may have of it, is full."""
    return error.errno in _FULL


def disk_full(error: OSError, directory: Path) -> DiskFullError:
    """What a full disk under `directory` means, for people."""
    return DiskFullError(
        f"The disk of {directory} on the card's PC is full ({error.strerror}).",
        "Free space there: old files, or models that the farm no longer needs (`farm models rm MODEL` on the head).",
    )


def explain(error: Exception) -> tuple[FailureClass, str, str]:
    """The class, message and remedy of a failure. torch's errors are known by name: this module must do without torch."""
    name = type(error).__name__
    said = (str(error).strip().splitlines() or [name])[0]
    if isinstance(error, FarmError):
        kind = next((kind for of, kind in _CLASSES.items() if isinstance(error, of)), FailureClass.INTERNAL)
        return kind, error.message, error.remedy
    if isinstance(error, OSError) and is_full(error):
        place = Path(error.filename).parent if error.filename else Path(tempfile.gettempdir())
        full = disk_full(error, place)
        return FailureClass.INTERNAL, full.message, full.remedy
    if _of_host(error):
        return (
            FailureClass.OUT_OF_MEMORY,
            f"The card's PC ran out of memory (RAM): {said}",
            MORE_RAM,
        )
    no_engine = _no_engine(said)
    if no_engine or name == "OutOfMemoryError" or any(words in said for words in _OUT_OF_MEMORY):
        what = (
            "cuDNN found no way to compute a layer, mostly for want of memory"
            if no_engine
            else "The card ran out of memory"
        )
        return FailureClass.OUT_OF_MEMORY, f"{what}: {said}", "It will be tried on another card."
    if name == "AcceleratorError" or any(words in said for words in _BROKEN):
        return (
            FailureClass.CARD_FAULT,
            f"The card reported a fault: {said}",
            "Its worker is started anew and the card tested.",
        )
    return (
        FailureClass.INTERNAL,
        f"The render stopped with an error of the program: {name}.",
        "The log has its trace.",
    )


def _no_engine(said: str) -> bool:
    return any(words in said for words in _NO_ENGINE)


def _of_host(error: Exception) -> bool:
    """Whether it was the PC's memory that ran out."""
    return (
        isinstance(error, (MemoryError, HostMemoryError))
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or _CPU_ALLOCATOR in str(error)
    )


def memory_lost(fault: Fault, what: str) -> Fault:
    """The end of a try whose memory did not come back, by no fault of the card: the job may come again once the worker is a fresh one."""
    return replace(
        fault,
        kind=FailureClass.INTERNAL,
        message=f"{fault.message} {what}, so this worker makes nothing more.",
        remedy="It is started anew, and the job tried again.",
    )


def never_an_engine(fault: Fault) -> Fault:
    """The end of a render in which cuDNN finds no way to compute a layer though half of the card stays free: it lacks no memory."""
    return replace(
        fault,
        kind=FailureClass.CARD_FAULT,
        message=f"{fault.message} Half of the card's memory was free, so there is none on this card.",
        remedy="Its worker is started anew, the card tested, and the clip tried on another card.",
    )


def broken_for_good(fault: Fault, plan: MemoryPlan) -> Fault:
    """The end of a picture that single precision did not mend either."""
    message = (
        f"{fault.message} It is so in single precision too." if plan.precision == "fp32" else fault.message
    )
    return replace(
        fault,
        message=message,
        remedy=fault.remedy
        or "It will be tried on another card; if it is the same there, fetch the model's files on that PC again.",
    )
