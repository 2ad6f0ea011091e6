"""NVML with the cards that a test wants, at the library's edge: the functions, constants and error classes of `pynvml` that we use.

The error classes are the real module's own, so that whoever catches them catches these. Every public name here is one of the real
module; `tests/unit/test_probe.py` holds it to that.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml
import pytest

MIB = 1024**2


@dataclass
class FakeGpu:
    """One card. `memory_mib` is what the driver reports; `faults` maps a function's name to the NVML error code it ends with."""

    name: str | bytes
    uuid: str | bytes
    memory_mib: int
    capability: tuple[int, int] = (7, 5)
    generation_most: int = 3
    lanes: int = 16
    lanes_most: int = 16
    compute: tuple[tuple[int, int | None], ...] = ()
    graphics: tuple[tuple[int, int | None], ...] = ()
    """Processes on the card: id, and MiB where the driver tells."""
    faults: dict[str, int] = field(default_factory=dict)


@dataclass
class FakeNvml:
    """The library's state: its cards, whether it is started, and the error code with which starting it ends, if any."""

    gpus: list[FakeGpu] = field(default_factory=list)
    init_error: int | None = None
    driver: str | bytes | None = "550.120"
    programs: dict[int, str | bytes] = field(default_factory=dict)
    """The command of each process whose name may be asked."""
    started: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes `import pynvml` give this library for the rest of the test."""
        monkeypatch.setitem(sys.modules, "pynvml", self.module())

    def module(self) -> ModuleType:
        """The library as a module."""
        made = ModuleType("pynvml")
        for name in dir(pynvml):
            found = getattr(pynvml, name)
            if name.startswith("NVML_ERROR_") or (
                isinstance(found, type) and issubclass(found, pynvml.NVMLError)
            ):
                setattr(made, name, found)
        for function in self._functions():
            setattr(made, function.__name__, function)
        return made

    def _functions(self) -> tuple[Callable[..., Any], ...]:
        def nvmlInit() -> None:  # noqa: N802 - the library's name
            if self.init_error is not None:
                raise pynvml.NVMLError(self.init_error)
            self.started += 1

        def nvmlShutdown() -> None:  # noqa: N802
            self._check_started()
            self.started -= 1

        def nvmlDeviceGetCount() -> int:  # noqa: N802
            self._check_started()
            return len(self.gpus)

        def nvmlDeviceGetHandleByIndex(index: int) -> FakeGpu:  # noqa: N802
            self._check_started()
            if not 0 <= index < len(self.gpus):
                raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
            return self._answer(self.gpus[index], "nvmlDeviceGetHandleByIndex")

        def nvmlDeviceGetUUID(handle: FakeGpu) -> str | bytes:  # noqa: N802
            return self._answer(handle, "nvmlDeviceGetUUID").uuid

        def nvmlDeviceGetName(handle: FakeGpu) -> str | bytes:  # noqa: N802
            return self._answer(handle, "nvmlDeviceGetName").name

        def nvmlDeviceGetMemoryInfo(handle: FakeGpu) -> SimpleNamespace:  # noqa: N802
            total = self._answer(handle, "nvmlDeviceGetMemoryInfo").memory_mib * MIB
            return SimpleNamespace(total=total, free=total, used=0)

        def nvmlDeviceGetCudaComputeCapability(handle: FakeGpu) -> list[int]:  # noqa: N802
            return list(self._answer(handle, "nvmlDeviceGetCudaComputeCapability").capability)

        def nvmlSystemGetDriverVersion() -> str | bytes:  # noqa: N802
            self._check_started()
            if self.driver is None:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_UNKNOWN)
            return self.driver

        def nvmlDeviceGetMaxPcieLinkGeneration(handle: FakeGpu) -> int:  # noqa: N802
            return self._answer(handle, "nvmlDeviceGetMaxPcieLinkGeneration").generation_most

        def nvmlDeviceGetMaxPcieLinkWidth(handle: FakeGpu) -> int:  # noqa: N802
            return self._answer(handle, "nvmlDeviceGetMaxPcieLinkWidth").lanes_most

        def nvmlDeviceGetCurrPcieLinkWidth(handle: FakeGpu) -> int:  # noqa: N802
            return self._answer(handle, "nvmlDeviceGetCurrPcieLinkWidth").lanes

        def nvmlDeviceGetHandleByUUID(uuid: str) -> FakeGpu:  # noqa: N802
            self._check_started()
            for gpu in self.gpus:
                if gpu.uuid == uuid:
                    return gpu
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

        def nvmlDeviceGetComputeRunningProcesses(handle: FakeGpu) -> list[SimpleNamespace]:  # noqa: N802
            return _processes(self._answer(handle, "nvmlDeviceGetComputeRunningProcesses").compute)

        def nvmlDeviceGetGraphicsRunningProcesses(handle: FakeGpu) -> list[SimpleNamespace]:  # noqa: N802
            return _processes(self._answer(handle, "nvmlDeviceGetGraphicsRunningProcesses").graphics)

        def nvmlSystemGetProcessName(pid: int) -> str | bytes:  # noqa: N802
            self._check_started()
            if pid not in self.programs:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
            return self.programs[pid]

        return (
            nvmlDeviceGetHandleByUUID,
            nvmlDeviceGetComputeRunningProcesses,
            nvmlDeviceGetGraphicsRunningProcesses,
            nvmlSystemGetProcessName,
            nvmlSystemGetDriverVersion,
            nvmlDeviceGetMaxPcieLinkGeneration,
            nvmlDeviceGetMaxPcieLinkWidth,
            nvmlDeviceGetCurrPcieLinkWidth,
            nvmlInit,
            nvmlShutdown,
            nvmlDeviceGetCount,
            nvmlDeviceGetHandleByIndex,
            nvmlDeviceGetUUID,
            nvmlDeviceGetName,
            nvmlDeviceGetMemoryInfo,
            nvmlDeviceGetCudaComputeCapability,
        )

    def _check_started(self) -> None:
        if not self.started:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def _answer(self, gpu: FakeGpu, function: str) -> FakeGpu:
        self._check_started()
        if function in gpu.faults:
            raise pynvml.NVMLError(gpu.faults[function])
        return gpu


def _processes(told: tuple[tuple[int, int | None], ...]) -> list[SimpleNamespace]:
    return [SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else mib * MIB) for pid, mib in told]
