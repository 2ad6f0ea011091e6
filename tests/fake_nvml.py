"""NVML with the cards that a test wants, at the library's edge: the functions, constants and error classes of `pynvml` that we use.

The error classes are the real module's own, so that whoever catches them catches these. Every public name here is one of the real
module; `tests/unit/test_probe.py` holds it to that. `recorded` reads a PC from `tests/fixtures/nvml`.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pynvml
import pytest

MIB = 1024**2
FIXTURES = Path(__file__).parent / "fixtures" / "nvml"


@dataclass
class FakeGpu:
    """One card. `memory_mib` is what the driver reports; `faults` maps a function's name to the NVML error code it ends with.

    Readings that are None are not supported. Watts, degrees Celsius, MHz, percent.
    """

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
    used_mib: int = 0
    generation: int = 1
    bus_id: str | bytes = "00000000:01:00.0"
    utilization: int | None = None
    temperature: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    ecc: bool | None = None
    ecc_uncorrected: int | None = None
    retired: tuple[int, int] | None = None
    """Pages retired for many small errors, and for one that could not be mended."""
    mig: bool | None = None
    faults: dict[str, int] = field(default_factory=dict)


@dataclass
class FakeNvml:
    """The library's state: its cards, whether it is started, and the error code with which starting it ends, if any."""

    gpus: list[FakeGpu] = field(default_factory=list)
    init_error: int | None = None
    driver: str | bytes | None = "550.120"
    cuda: int | None = 12040
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
            if name.startswith(_CONSTANTS) or (
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
            gpu = self._answer(handle, "nvmlDeviceGetMemoryInfo")
            total, used = gpu.memory_mib * MIB, gpu.used_mib * MIB
            return SimpleNamespace(total=total, free=total - used, used=used)

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
            *self._readings(),
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

    def _readings(self) -> tuple[Callable[..., Any], ...]:
        """Those that a card may not support."""

        def nvmlSystemGetCudaDriverVersion_v2() -> int:  # noqa: N802
            self._check_started()
            return _told(self.cuda)

        def nvmlDeviceGetPciInfo(handle: FakeGpu) -> SimpleNamespace:  # noqa: N802
            return SimpleNamespace(busId=self._answer(handle, "nvmlDeviceGetPciInfo").bus_id)

        def nvmlDeviceGetCurrPcieLinkGeneration(handle: FakeGpu) -> int:  # noqa: N802
            return self._answer(handle, "nvmlDeviceGetCurrPcieLinkGeneration").generation

        def nvmlDeviceGetUtilizationRates(handle: FakeGpu) -> SimpleNamespace:  # noqa: N802
            gpu = _told(self._answer(handle, "nvmlDeviceGetUtilizationRates").utilization)
            return SimpleNamespace(gpu=gpu, memory=0)

        def nvmlDeviceGetTemperature(handle: FakeGpu, sensor: int) -> int:  # noqa: N802
            assert sensor == pynvml.NVML_TEMPERATURE_GPU
            return _told(self._answer(handle, "nvmlDeviceGetTemperature").temperature)

        def nvmlDeviceGetPowerUsage(handle: FakeGpu) -> int:  # noqa: N802
            return round(_told(self._answer(handle, "nvmlDeviceGetPowerUsage").power_w) * 1000)

        def nvmlDeviceGetEnforcedPowerLimit(handle: FakeGpu) -> int:  # noqa: N802
            return round(_told(self._answer(handle, "nvmlDeviceGetEnforcedPowerLimit").power_limit_w) * 1000)

        def nvmlDeviceGetClockInfo(handle: FakeGpu, type: int) -> int:  # noqa: N802 - the library's names
            gpu = self._answer(handle, "nvmlDeviceGetClockInfo")
            clocks = {
                pynvml.NVML_CLOCK_SM: gpu.clock_mhz,
                pynvml.NVML_CLOCK_MEM: gpu.memory_clock_mhz,
            }
            return _told(clocks[type])

        def nvmlDeviceGetEccMode(handle: FakeGpu) -> list[int]:  # noqa: N802
            return [int(_told(self._answer(handle, "nvmlDeviceGetEccMode").ecc))] * 2

        def nvmlDeviceGetTotalEccErrors(handle: FakeGpu, errorType: int, counterType: int) -> int:  # noqa: N802, N803
            assert (errorType, counterType) == (
                pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                pynvml.NVML_AGGREGATE_ECC,
            )
            return _told(self._answer(handle, "nvmlDeviceGetTotalEccErrors").ecc_uncorrected)

        def nvmlDeviceGetRetiredPages(device: FakeGpu, sourceFilter: int) -> list[int]:  # noqa: N802, N803
            counts = _told(self._answer(device, "nvmlDeviceGetRetiredPages").retired)
            return [0x1000 * (page + 1) for page in range(counts[sourceFilter])]

        def nvmlDeviceGetMigMode(device: FakeGpu) -> list[int]:  # noqa: N802
            return [int(_told(self._answer(device, "nvmlDeviceGetMigMode").mig))] * 2

        return (
            nvmlSystemGetCudaDriverVersion_v2,
            nvmlDeviceGetPciInfo,
            nvmlDeviceGetCurrPcieLinkGeneration,
            nvmlDeviceGetUtilizationRates,
            nvmlDeviceGetTemperature,
            nvmlDeviceGetPowerUsage,
            nvmlDeviceGetEnforcedPowerLimit,
            nvmlDeviceGetClockInfo,
            nvmlDeviceGetEccMode,
            nvmlDeviceGetTotalEccErrors,
            nvmlDeviceGetRetiredPages,
            nvmlDeviceGetMigMode,
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


_CONSTANTS = (
    "NVML_ERROR_",
    "NVML_TEMPERATURE_GPU",
    "NVML_CLOCK_",
    "NVML_MEMORY_ERROR_TYPE_",
    "NVML_AGGREGATE_ECC",
    "NVML_PAGE_RETIREMENT_CAUSE_",
)


def _told(reading: Any) -> Any:
    if reading is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
    return reading


def recorded(name: str) -> FakeNvml:
    """The PC that a fixture (or any file, by its path without the suffix) describes.

    Fields as in `FakeNvml` and `FakeGpu`; errors by the library's names ("NVML_ERROR_...").
    """
    told = json.loads((FIXTURES / f"{name}.json").read_text())
    init_error = told.get("init_error")
    return FakeNvml(
        [_gpu_of(gpu) for gpu in told["gpus"]],
        init_error=getattr(pynvml, init_error) if init_error else None,
        driver=told["driver"],
        cuda=told["cuda"],
        programs={int(pid): command for pid, command in told.get("programs", {}).items()},
    )


def _gpu_of(told: dict[str, Any]) -> FakeGpu:
    values = dict(told)
    for pairs in ("compute", "graphics"):
        values[pairs] = tuple((pid, mib) for pid, mib in values.get(pairs, ()))
    for pair in ("capability", "retired"):
        if values.get(pair) is not None:
            values[pair] = tuple(values[pair])
    values["faults"] = {name: getattr(pynvml, code) for name, code in values.get("faults", {}).items()}
    return FakeGpu(**values)
