"""What this PC has: its NVIDIA cards through NVML, or its CPU as a card of its own kind.

A reading that a card does not give is None. Nothing here changes a card's settings.
"""

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from farm.catalogue.cards import find_card
from farm.catalogue.models import ModelRow
from farm.catalogue.rules import bus_gb_s
from farm.model import CardKind, Coming, PcieLink
from farm.planning.memory import CONTEXT_GIB
from farm.vitals import CardFacts
from farm.wire import CardReport
from node_agent import hostram
from node_agent.ladder import TOLERANCE_GIB
from node_agent.look import readings, vitals_of
from node_agent.nvml import GIB, reading, started_or_why, text, why_not_started
from node_agent.pipelines.weights import has_weights, why_unusable
from node_agent.wanted import torch_here

log = logging.getLogger(__name__)

CHECKED = 0.1
"""What a driver may keep of a card's memory, as a share: a sixteenth for checking it, and a little besides."""


def cards(node_id: str, models: Mapping[str, ModelRow]) -> tuple[CardReport, ...]:
    """The cards of this PC: one per GPU, or the CPU where no NVIDIA card can be used, with a notice where there should be one.

    With each what lies here of models that it cannot use, as `Coming` that is damaged.
    """
    found = _found(node_id, models)
    damaged = _damaged(found[0], models)
    return tuple(replace(card, coming=damaged) for card in found)


def _found(node_id: str, models: Mapping[str, ModelRow]) -> tuple[CardReport, ...]:
    found, notice = _gpus(models)
    if not found:
        return (replace(_cpu(node_id, models), notice=notice),)
    return (replace(found[0], notice=found[0].notice or notice), *found[1:])


def sharing(cards: Sequence[CardReport]) -> tuple[CardReport, ...]:
    """The cards, each with its even share of the PC's memory: all of them may stream weights at once.

    Of all of it and not of what is free, which changes with each look: where jobs go must not. What is free, a card's worker looks at when
    a job begins.
    """
    return tuple(
        card if card.ram_gib is None else replace(card, ram_gib=round(card.ram_gib / len(cards), 2))
        for card in cards
    )


def beside_others(cards: Sequence[CardReport]) -> tuple[CardReport, ...]:
    """The cards with what other programs leave of each now. For who works here outside of the farm: its own worker is one of them."""
    looked = readings(whole=False)
    found = []
    for card in cards:
        others = looked[card.id].others_gib(lambda _pid: False, None) if card.id in looked else None
        if others is not None and card.usable_gib is not None and others > TOLERANCE_GIB:
            usable = round(max(0.0, card.usable_gib - others), 2)
            card = replace(card, usable_gib=usable, others_gib=round(others, 2))  # noqa: PLW2901
        found.append(card)
    return tuple(found)


def ram() -> tuple[float, float]:
    """This PC's memory, GiB, as `hostram` has it, in hundredths."""
    in_all, free = hostram.ram_gib()
    return round(in_all, 2), round(free, 2)


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
    able = torch_here()
    return tuple(
        name
        for name, row in models.items()
        if kind in row.devices and (not row.tensor_needed or (able and has_weights(row)))
    )


def _damaged(card: CardReport, models: Mapping[str, ModelRow]) -> tuple[Coming, ...]:
    if not torch_here():
        return ()
    lacking = (row for row in models.values() if card.kind in row.devices and row.name not in card.models)
    return tuple(
        Coming(row.name, 0, 0, why, damaged=True) for row in lacking if (why := why_unusable(row)) is not None
    )


def _gpus(models: Mapping[str, ModelRow]) -> tuple[tuple[CardReport, ...], str | None]:
    """The GPUs that answer, and a notice for people about those that do not."""
    with started_or_why() as (nvml, code):
        if nvml is None:
            return (), why_not_started(code)
        runs = _runs(CardKind.CUDA, models)
        driver, cuda = _driver(nvml), _cuda(nvml)
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            return (), why_not_started(error.value)
        found = [_gpu(nvml, index, runs, driver, cuda) for index in range(count)]
        answering = tuple(card for card in found if isinstance(card, CardReport))
        lost = [why for why in found if isinstance(why, str)]
        return answering, _lost_notice(lost) if lost else None


def _lost_notice(lost: list[str]) -> str:
    number = "A graphics card" if len(lost) == 1 else f"{len(lost)} graphics cards"
    verb = "does" if len(lost) == 1 else "do"
    return (
        f"{number} of this PC {verb} not answer: {'; '.join(sorted(set(lost)))}. Restart the PC; if it comes back, look at the card's "
        "power cables, its riser and its temperature."
    )


def _driver(nvml: Any) -> str | None:
    try:
        return text(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError as error:
        log.debug("the driver does not say its version: %s", error)
        return None


def _cuda(nvml: Any) -> tuple[int, int] | None:
    """The newest CUDA that the driver serves; NVML tells 12.4 as 12040."""
    try:
        told = int(nvml.nvmlSystemGetCudaDriverVersion_v2())
    except nvml.NVMLError as error:
        log.debug("the driver does not say which CUDA it serves: %s", error)
        return None
    return told // 1000, told % 1000 // 10


def _gpu(
    nvml: Any, index: int, runs: tuple[str, ...], driver: str | None, cuda: tuple[int, int] | None
) -> CardReport | str:
    """One GPU; where not even its name can be had, as of a card that fell off its bus, why. The others work on."""
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        uuid = text(nvml.nvmlDeviceGetUUID(handle))
        name = text(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        log.warning("card %d of this PC does not answer: %s", index, error)
        return str(error)
    memory = reading(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    capability = reading(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    total = memory.total / GIB if memory is not None else None
    link, facts = _link(nvml, handle), _facts(nvml, handle, cuda)
    name = name.removeprefix("NVIDIA ").removeprefix("GeForce ")
    return CardReport(
        id=uuid,
        kind=CardKind.CUDA,
        name=name,
        vram_gib=_nominal_gb(name, total) if total is not None else None,
        usable_gib=round(max(0.0, total - CONTEXT_GIB), 2) if total is not None else None,
        compute_capability=tuple(capability) if capability is not None else None,
        models=runs,
        driver=driver,
        pcie=link,
        bus_gb_s=bus_gb_s(link.generation, link.lanes) if link is not None else None,
        ram_gib=ram()[0],
        tested=False,
        trouble=_mig_trouble(name, facts) if facts.mig else None,
        facts=facts,
        vitals=vitals_of(nvml, handle),
    )


def _nominal_gb(name: str, total_gib: float) -> float:
    """A card's memory as its maker names it. Checked memory (ECC) keeps a sixteenth for itself: a Tesla P4 of 8 GB tells 7.4."""
    row = find_card(name, total_gib)
    if row is not None and 0.0 <= row.vram_gb - total_gib <= CHECKED * row.vram_gb:
        return float(row.vram_gb)
    return float(round(total_gib))


def _mig_trouble(name: str, facts: CardFacts) -> str:
    return (
        f"{name} is split into instances (MIG), and the farm works with whole cards. On that PC, while nothing uses the card: "
        f"`sudo nvidia-smi -i {facts.bus_id or 'NUMBER'} -mig 0`."
    )


def _facts(nvml: Any, handle: Any, cuda: tuple[int, int] | None) -> CardFacts:
    pci = reading(nvml, nvml.nvmlDeviceGetPciInfo, handle)
    limit = reading(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    ecc = reading(nvml, nvml.nvmlDeviceGetEccMode, handle)
    mig = reading(nvml, nvml.nvmlDeviceGetMigMode, handle)
    return CardFacts(
        bus_id=text(pci.busId) if pci is not None else None,
        cuda=cuda,
        power_limit_w=limit / 1000 if limit is not None else None,
        ecc=bool(ecc[0]) if ecc is not None else None,
        ecc_uncorrected=reading(
            nvml,
            nvml.nvmlDeviceGetTotalEccErrors,
            handle,
            nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
            nvml.NVML_AGGREGATE_ECC,
        ),
        retired_pages=_retired_pages(nvml, handle),
        mig=bool(mig[0]) if mig is not None else None,
    )


def _retired_pages(nvml: Any, handle: Any) -> int | None:
    """Pages of its memory that a card with ECC uses no more, for either cause; None where it does not count them."""
    causes = (
        nvml.NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS,
        nvml.NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR,
    )
    found = [reading(nvml, nvml.nvmlDeviceGetRetiredPages, handle, cause) for cause in causes]
    known = [pages for pages in found if pages is not None]
    return sum(len(pages) for pages in known) if known else None


def _link(nvml: Any, handle: Any) -> PcieLink | None:
    """The card's PCIe link; None where the card does not tell, as under WSL."""
    generation = reading(nvml, nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle)
    most = reading(nvml, nvml.nvmlDeviceGetMaxPcieLinkWidth, handle)
    lanes = reading(nvml, nvml.nvmlDeviceGetCurrPcieLinkWidth, handle) or most
    return PcieLink(int(generation), int(lanes), most) if generation and lanes else None
