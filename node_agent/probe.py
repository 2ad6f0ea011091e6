"""What this PC has: its NVIDIA cards through NVML (the only module that imports it), or its CPU as a card of its own kind."""

import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from farm.catalogue.models import ModelRow
from farm.catalogue.rules import bus_gb_s
from farm.model import CardKind, PcieLink
from farm.planning.memory import CONTEXT_GIB
from farm.wire import CardReport
from node_agent.ladder import Program
from node_agent.pipelines.weights import has_weights

log = logging.getLogger(__name__)

GIB = 1024**3


def cards(node_id: str, models: Mapping[str, ModelRow]) -> tuple[CardReport, ...]:
    """The cards of this PC: one per GPU, or the CPU where there is no NVIDIA card."""
    gpus = _gpus(models)
    return gpus or (_cpu(node_id, models),)


def ram() -> tuple[float, float]:
    """This PC's memory, GiB: all of it, and what programs could have now."""
    found = psutil.virtual_memory()
    return round(found.total / GIB, 2), round(found.available / GIB, 2)


def _cpu(node_id: str, models: Mapping[str, ModelRow]) -> CardReport:
    return CardReport(
        id=f"CPU-{node_id}",
        kind=CardKind.CPU,
        name=_cpu_name(),
        models=_runs(CardKind.CPU, models),
        ram_gib=ram()[0],
    )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return f"CPU ({' '.join(value.split())})"
    except OSError:
        log.debug("no /proc/cpuinfo here")
    return f"CPU ({platform.machine()})"


def _runs(kind: CardKind, models: Mapping[str, ModelRow]) -> tuple[str, ...]:
    torch_here = find_spec("torch") is not None and find_spec("diffusers") is not None
    return tuple(
        name
        for name, row in models.items()
        if kind in row.devices and (not row.tensor_needed or (torch_here and has_weights(row)))
    )


@contextmanager
def _nvml() -> Iterator[Any]:
    """NVML, started; None where there is no driver or no card."""
    import pynvml  # noqa: PLC0415 - hardware libraries load only when hardware is asked for

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.debug("no NVML: %s", error)
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _gpus(models: Mapping[str, ModelRow]) -> tuple[CardReport, ...]:
    with _nvml() as nvml:
        if nvml is None:
            return ()
        runs = _runs(CardKind.CUDA, models)
        driver = _driver(nvml)
        found = (_gpu(nvml, index, runs, driver) for index in range(nvml.nvmlDeviceGetCount()))
        return tuple(card for card in found if card is not None)


def _driver(nvml: Any) -> str | None:
    try:
        return _text(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError as error:
        log.debug("the driver does not say its version: %s", error)
        return None


def _gpu(nvml: Any, index: int, runs: tuple[str, ...], driver: str | None) -> CardReport | None:
    """One GPU; None where not even its name can be had, as of a card that fell off its bus: the others work on."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        name = _text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        log.warning("card %d of this PC does not answer: %s", index, error)
        return None
    memory = _reading(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _reading(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    total = memory.total / GIB if memory is not None else None
    link = _link(nvml, handle)
    return CardReport(
        id=uuid,
        kind=CardKind.CUDA,
        name=name.removeprefix("NVIDIA ").removeprefix("GeForce "),
        vram_gib=float(round(total)) if total is not None else None,
        usable_gib=round(max(0.0, total - CONTEXT_GIB), 2) if total is not None else None,
        compute_capability=tuple(capability) if capability is not None else None,
        models=runs,
        driver=driver,
        pcie=link,
        bus_gb_s=bus_gb_s(link.generation, link.lanes) if link is not None else None,
        ram_gib=ram()[0],
        tested=False,
    )


def other_programs(card_id: str) -> tuple[Program, ...]:
    """The other programs on a GPU, as far as the driver names them: nothing where it does not, as under WSL or in a container.

    In a container the driver speaks of the processes of the PC, by numbers that are not ours; then this process, which is on the card,
    is not among them, and none of them can be told from it.
    """
    with _nvml() as nvml:
        if nvml is None:
            return ()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(card_id)
        except nvml.NVMLError as error:
            log.debug("no card %s: %s", card_id, error)
            return ()
        found: dict[int, Program] = {}
        for read in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
            for process in _reading(nvml, read, handle) or ():
                used = process.usedGpuMemory
                gib = used / GIB if used is not None else None
                found[process.pid] = Program(process.pid, _program_name(nvml, process.pid), gib)
        if found.pop(os.getpid(), None) is None:
            return ()
        return tuple(found.values())


def _program_name(nvml: Any, pid: int) -> str:
    try:
        return Path(_text(nvml.nvmlSystemGetProcessName(pid)).split(" ")[0]).name or f"process {pid}"
    except nvml.NVMLError:
        return "a program of another user"


def _link(nvml: Any, handle: Any) -> PcieLink | None:
    """The card's PCIe link; None where the card does not tell, as under WSL."""
    generation = _reading(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    most = _reading(nvml, nvml.nvmlDeviceGetMaxPcieLinkWidth, handle)
    lanes = _reading(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, handle) or most
    return PcieLink(int(generation), int(lanes), most) if generation and lanes else None


def _reading(nvml: Any, read: Callable[[Any], Any], handle: Any) -> Any:
    """A reading, or None where the card has none to give."""
    try:
        return read(handle)
    except nvml.NVMLError as error:
        log.debug("%s: %s", read, error)
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
