"""One look at this PC's GPUs through NVML: how each is, and who is on it. `readings` has what it gives as values."""

import logging
import os
import time
from pathlib import Path
from typing import Any

from farm.vitals import Vitals
from node_agent.ladder import Program
from node_agent.nvml import GIB, reading, started, text
from node_agent.readings import CardProgram, CardReading

log = logging.getLogger(__name__)


def readings(whole: bool = True) -> dict[str, CardReading]:
    """One look at each GPU that answers, by its id; without the `whole`, only its programs and its memory."""
    with started() as nvml:
        if nvml is None:
            return {}
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            log.debug("no cards: %s", error)
            return {}
        looked = (_look(nvml, index, whole=whole) for index in range(count))
        return {found.id: found for found in looked if found is not None}


def _look(nvml: Any, index: int, *, whole: bool) -> CardReading | None:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = text(nvml.nvmlDeviceGetUUID(handle))
    except nvml.NVMLError as error:
        log.debug("card %d of this PC does not answer: %s", index, error)
        return None
    vitals = (
        vitals_of(nvml, handle) if whole else Vitals(time.time(), memory_used_gib=_used_gib(nvml, handle))
    )
    return CardReading(uuid, vitals, _programs(nvml, handle))


def other_programs(card_id: str) -> tuple[Program, ...]:
    """The other programs on a GPU, as far as the driver names them: nothing where it does not, as under WSL or in a container.

    In a container the driver speaks of the processes of the PC, by numbers that are not ours; then this process, which is on the card,
    is not among them, and none of them can be told from it.
    """
    with started() as nvml:
        if nvml is None:
            return ()
        try:
            handle = nvml.nvmlDeviceGetHandleByUUID(card_id)
        except nvml.NVMLError as error:
            log.debug("no card %s: %s", card_id, error)
            return ()
        found = {
            program.pid: Program(program.pid, program.name, program.gib)
            for program in _programs(nvml, handle) or ()
        }
        if found.pop(os.getpid(), None) is None:
            return ()
        return tuple(found.values())


def _programs(nvml: Any, handle: Any) -> tuple[CardProgram, ...] | None:
    """All programs on a card; None where the driver gives no list. One that computes and draws is in both lists, and counts once."""
    found: dict[int, CardProgram] = {}
    listed = False
    for read, computes in (
        (nvml.nvmlDeviceGetComputeRunningProcesses, True),
        (nvml.nvmlDeviceGetGraphicsRunningProcesses, False),
    ):
        processes = reading(nvml, read, handle)
        listed = listed or processes is not None
        for process in processes or ():
            used = process.usedGpuMemory
            gib = used / GIB if used is not None else None
            name = _program_name(nvml, process.pid)
            found.setdefault(process.pid, CardProgram(process.pid, name, gib, computes))
    return tuple(found.values()) if listed else None


def _program_name(nvml: Any, pid: int) -> str:
    try:
        return Path(text(nvml.nvmlSystemGetProcessName(pid)).split(" ")[0]).name or f"process {pid}"
    except nvml.NVMLError:
        return "a program of another user"


def vitals_of(nvml: Any, handle: Any) -> Vitals:
    """How a card is now."""
    rates = reading(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
    power = reading(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    return Vitals(
        at=time.time(),
        utilization=rates.gpu / 100 if rates is not None else None,
        memory_used_gib=_used_gib(nvml, handle),
        temperature_c=reading(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        power_w=power / 1000 if power is not None else None,
        clock_mhz=reading(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        memory_clock_mhz=reading(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        pcie_generation=reading(nvml, nvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        pcie_lanes=reading(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
    )


def _used_gib(nvml: Any, handle: Any) -> float | None:
    memory = reading(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    return round(memory.used / GIB, 3) if memory is not None else None
