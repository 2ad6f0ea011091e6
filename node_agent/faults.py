"""What went wrong in a try, as plain values: class, message, remedy. torch's errors are known by name, so this does without torch."""

import traceback
from dataclasses import dataclass, replace

from farm.errors import BadInputError, BrokenPictureError, FarmError, MissingWeightsError
from farm.model import FailureClass, MemoryPlan


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed try, as values: the exception itself would keep its frames, and with them the tensors, alive."""

    kind: FailureClass
    message: str
    remedy: str = ""
    detail: str = ""
    broken_picture: bool = False
    cuda_is_broken: bool = False

    def with_message(self, more: str) -> "Fault":
        """The same with a further sentence."""
        return replace(self, message=f"{self.message} {more}")


_CLASSES: dict[type[FarmError], FailureClass] = {
    BadInputError: FailureClass.BAD_INPUT,
    MissingWeightsError: FailureClass.MISSING_WEIGHTS,
    BrokenPictureError: FailureClass.CARD_FAULT,
}
_OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How the driver and NVIDIA's libraries say it where torch's allocator was not asked."""


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
    )


def explain(error: Exception) -> tuple[FailureClass, str, str]:
    """The class, message and remedy of a failure. torch's errors are known by name: this module must do without torch."""
    name = type(error).__name__
    said = (str(error).strip().splitlines() or [name])[0]
    if isinstance(error, FarmError):
        kind = next((kind for of, kind in _CLASSES.items() if isinstance(error, of)), FailureClass.INTERNAL)
        return kind, error.message, error.remedy
    if (
        name == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or any(words in said for words in _OUT_OF_MEMORY)
    ):
        return (
            FailureClass.OUT_OF_MEMORY,
            f"The card ran out of memory: {said}",
            "It will be tried on another card.",
        )
    if name == "AcceleratorError" or "CUDA error" in said:
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


def memory_lost(fault: Fault, what: str) -> Fault:
    """The end of a try whose memory did not come back, by no fault of the card: the job may come again once the worker is a fresh one."""
    return replace(
        fault,
        kind=FailureClass.INTERNAL,
        message=f"{fault.message} {what}, so this worker makes nothing more.",
        remedy="It is started anew, and the job tried again.",
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
