"""Measures a render: seconds per part, and the peak of memory."""

import gc
import resource
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from node_agent.ladder import MemoryReading

GIB = 1024**3
T = TypeVar("T")


class Stopwatch:
    """Seconds per named part; parts may come several times and add up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times what happens inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)

    def add(self, name: str, seconds: float) -> None:
        """Adds seconds to a part."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def waiting(self, source: Iterator[T]) -> Iterator[T]:
        """Passes `source` on and adds the seconds it took to "frames", so that a consumer knows its own share. Closed, it closes it."""
        try:
            while True:
                with self.part("frames"):
                    try:
                        item = next(source)
                    except StopIteration:
                        return
                yield item
        finally:
            if isinstance(source, Generator):
                source.close()


class PeakMemory:
    """The peak since `reset`, GiB: the caching allocator's reserved memory on a GPU, the resident set on a CPU."""

    def __init__(self, device: str) -> None:
        self._cuda = device.startswith("cuda")

    def reset(self) -> None:
        """Starts over, on a GPU without what an earlier render left in the allocator: that would be this one's peak.

        Where the kernel does not let us, a CPU's peak is that of the process.
        """
        if self._cuda:
            torch = sys.modules.get("torch")
            if torch is not None:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            return
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def gib(self) -> float | None:
        """The peak; None where nothing can be read."""
        if self._cuda:
            torch = sys.modules.get("torch")
            return None if torch is None else float(torch.cuda.max_memory_reserved()) / GIB
        with suppress(OSError, StopIteration):
            lines = Path("/proc/self/status").read_text().splitlines()
            high = next(line for line in lines if line.startswith("VmHWM:"))
            return int(high.split()[1]) * 1024 / GIB
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


class CardMemory:
    """A GPU's memory as torch and the driver see it from this process; a CPU has none of it."""

    def __init__(self, device: str) -> None:
        self._device = device

    def reading(self) -> MemoryReading | None:
        """How it stands now; None on a CPU, without torch, or where CUDA no longer answers."""
        torch = sys.modules.get("torch") if self._device.startswith("cuda") else None
        if torch is None:
            return None
        try:
            free, total = torch.cuda.mem_get_info(self._device)
            return MemoryReading(total / GIB, free / GIB, torch.cuda.memory_reserved(self._device) / GIB)
        except (
            RuntimeError,
            AssertionError,
        ):  # a broken context answers every call with its first error; a build without CUDA
            return None

    def first_reading(self) -> MemoryReading | None:
        """The same before a render, which will import torch anyway: else a fresh worker would not know what other programs hold."""
        if self._device.startswith("cuda"):
            with suppress(ImportError):
                import_module("torch")
        return self.reading()

    def held_gib(self) -> float | None:
        """What this process's allocator holds, GiB; None where it has no context on a GPU. Never makes one."""
        torch = sys.modules.get("torch") if self._device.startswith("cuda") else None
        # Asked from another thread than the attempt's, which may be in the middle of importing torch.
        is_initialized = getattr(getattr(torch, "cuda", None), "is_initialized", None)
        if torch is None or is_initialized is None or not is_initialized():
            return None
        try:
            return float(torch.cuda.memory_reserved(self._device)) / GIB
        except RuntimeError:  # a broken context
            return 0.0

    def release(self) -> None:
        """Gives back what nobody holds. Call it when the failed try's exception is gone: its frames hold tensors."""
        gc.collect()
        torch = sys.modules.get("torch") if self._device.startswith("cuda") else None
        if torch is not None:
            with suppress(RuntimeError):
                torch.cuda.empty_cache()
