"""NVML, NVIDIA's library that tells of its cards: started, and read. Only this module imports it, and it changes no card's settings."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

log = logging.getLogger(__name__)

GIB = 1024**3


@contextmanager
def started() -> Iterator[Any]:
    """NVML, started; None where there is no driver or no card."""
    with started_or_why() as (nvml, _code):
        yield nvml


@contextmanager
def started_or_why() -> Iterator[tuple[Any, int | None]]:
    """NVML, started, or None and the code of the error with which its start ended."""
    import pynvml  # noqa: PLC0415 - hardware libraries load only when hardware is asked for

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("no NVML: %s", error)
        yield None, error.value
        return
    try:
        yield pynvml, None
    finally:
        pynvml.nvmlShutdown()


class Held:
    """Keeps NVML started, so that each look takes a millisecond: starting it may wake a card, which takes up to seconds.

    NVML counts its starts, so that this one keeps it open for all others.
    """

    def __init__(self) -> None:
        self._stack: ExitStack | None = None
        self.again()

    def again(self) -> None:
        """Starts NVML anew: it does not find a card again that it has lost, nor a driver that came later."""
        self.release()
        self._stack = ExitStack()
        self._stack.enter_context(started())

    def release(self) -> None:
        """Lets NVML end."""
        if self._stack is not None:
            self._stack.close()
            self._stack = None


def why_not_started(code: int | None) -> str | None:
    """What to tell a person whose PC has a driver that cannot be used; None where there simply is none."""
    import pynvml  # noqa: PLC0415

    if code == pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return (
            "This PC's NVIDIA driver was updated and the old one still runs (driver/library version mismatch), so its graphics cards "
            "cannot be used. Restart the PC."
        )
    if code == pynvml.NVML_ERROR_DRIVER_NOT_LOADED:
        return (
            "This PC has NVIDIA's libraries, but their driver is not loaded, so its graphics cards cannot be used. Run `nvidia-smi` there: "
            "after an update of the kernel the driver must be installed again, or Secure Boot refuses it."
        )
    if code == pynvml.NVML_ERROR_NO_PERMISSION:
        return (
            "The farm may not use this PC's graphics cards (no permission). Put its user into the group that owns /dev/nvidia0 and "
            "start it again: `sudo usermod -aG $(stat -c %G /dev/nvidia0) $USER`"
        )
    if code == pynvml.NVML_ERROR_OPERATING_SYSTEM:  # in NVIDIA's words; seen under WSL
        return (
            "Windows does not let WSL use this PC's graphics cards (the operating system has blocked the request). Update NVIDIA's driver "
            "in Windows, and WSL with `wsl.exe --update`; then `wsl.exe --shutdown`"
        )
    if code in (None, pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_GPU_NOT_FOUND):
        return None
    return (
        f"This PC's NVIDIA driver does not start ({pynvml.NVMLError(code)}), so its graphics cards cannot be used. Restart the PC; if "
        "that does not help, install the driver again. All is well when they are shown by `nvidia-smi`"
    )


def reading(nvml: Any, read: Callable[..., Any], handle: Any, *which: int) -> Any:
    """A reading (`which` of several), or None where the card has none to give."""
    try:
        return read(handle, *which)
    except nvml.NVMLError as error:
        log.debug("%s: %s", read, error)
        return None


def text(value: str | bytes) -> str:
    """What it says in words, which older releases gave as bytes."""
    return value.decode() if isinstance(value, bytes) else value
