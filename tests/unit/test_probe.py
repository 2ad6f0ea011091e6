"""What a PC says it has: cards through NVML, or its CPU."""

import inspect
import os
import shutil
from dataclasses import replace
from pathlib import Path

import psutil
import pynvml
import pytest

from farm.catalogue.models import builtin_models
from farm.model import CardKind, PcieLink, Tier
from farm.planning.tiers import band_of
from farm.wire import CardReport
from node_agent import probe
from node_agent.ladder import Program
from node_agent.look import other_programs
from tests.checkpoints import small_i2vgen
from tests.fake_nvml import FakeGpu, FakeNvml

MODELS = builtin_models()
RTX_2060 = FakeGpu("NVIDIA GeForce RTX 2060", "GPU-aaaa", 6144, (7, 5))
RTX_3060 = FakeGpu(b"NVIDIA GeForce RTX 3060", b"GPU-bbbb", 12288, (8, 6))


def probed(monkeypatch: pytest.MonkeyPatch, *gpus: FakeGpu) -> tuple[CardReport, ...]:
    library = FakeNvml(list(gpus))
    library.install(monkeypatch)
    found = probe.cards("n1", MODELS)
    assert library.started == 0, "NVML was left open"
    return found


def test_two_cards_of_one_pc_stay_two_cards_with_their_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = probed(monkeypatch, RTX_2060, RTX_3060)
    assert (first.id, first.kind, first.vram_gib, first.usable_gib) == (
        "GPU-aaaa",
        CardKind.CUDA,
        6.0,
        5.4,
    )
    assert (second.id, second.kind, second.vram_gib, second.usable_gib) == (
        "GPU-bbbb",
        CardKind.CUDA,
        12.0,
        11.4,
    )
    assert (first.compute_capability, second.compute_capability) == ((7, 5), (8, 6))


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("NVIDIA GeForce RTX 2060", "RTX 2060"),
        (b"NVIDIA GeForce GTX 1070", "GTX 1070"),
        ("GeForce GTX 970", "GTX 970"),
        ("NVIDIA RTX A4000", "RTX A4000"),
        ("Tesla T4", "Tesla T4"),
    ],
)
def test_names_are_text_without_the_maker_s(
    monkeypatch: pytest.MonkeyPatch, told: str | bytes, said: str
) -> None:
    (card,) = probed(monkeypatch, replace(RTX_2060, name=told))
    assert card.name == said


@pytest.mark.parametrize(
    ("memory_mib", "nominal", "band"),
    [
        (8188, 8.0, Tier.PREVIEW),
        (12282, 12.0, Tier.QUALITY),
        (4096, 4.0, Tier.POST),
        (15360, 15.0, Tier.QUALITY),
    ],
)
def test_nominal_memory_is_whole_and_usable_is_below_what_the_driver_reports(
    monkeypatch: pytest.MonkeyPatch, memory_mib: int, nominal: float, band: Tier
) -> None:
    (card,) = probed(monkeypatch, replace(RTX_2060, memory_mib=memory_mib))
    assert card.vram_gib == nominal
    assert card.usable_gib == pytest.approx(memory_mib / 1024 - 0.6, abs=0.005)
    assert band_of(card.vram_gib, card.kind) is band


@pytest.mark.parametrize(
    ("name", "memory_mib", "nominal", "band"),
    [
        ("Tesla P4", 7611, 8.0, Tier.PREVIEW),
        ("Tesla M40", 11448, 12.0, Tier.QUALITY),
        ("Tesla P40", 23040, 24.0, Tier.QUALITY),
        ("NVIDIA GeForce GTX 1080 Ti", 11178, 11.0, Tier.PREVIEW),
        ("NVIDIA GeForce RTX 3060 Laptop GPU", 6144, 6.0, Tier.POST),
    ],
)
def test_memory_that_is_checked_makes_no_card_of_a_lower_band(
    monkeypatch: pytest.MonkeyPatch, name: str, memory_mib: int, nominal: float, band: Tier
) -> None:
    """A Tesla P4 of 8 GB with ECC was one of 7 GB, kept for post work, and an M40 of 12 GB got no quality work."""
    (card,) = probed(monkeypatch, replace(RTX_2060, name=name, memory_mib=memory_mib))
    assert card.vram_gib == nominal
    assert card.usable_gib == pytest.approx(memory_mib / 1024 - 0.6, abs=0.005)
    assert band_of(card.vram_gib, card.kind) is band


def test_a_tiny_card_has_nothing_usable_rather_than_less_than_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (card,) = probed(monkeypatch, replace(RTX_2060, memory_mib=512))
    assert card.usable_gib == 0.0


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
def test_without_a_driver_the_pc_is_a_cpu(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    FakeNvml([RTX_2060], init_error=code).install(monkeypatch)
    (card,) = probe.cards("n1", MODELS)
    assert (card.id, card.kind) == ("CPU-n1", CardKind.CPU)
    assert card.name.startswith("CPU (")
    assert (card.vram_gib, card.usable_gib, card.compute_capability) == (None, None, None)
    assert card.models == ("animatic",)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (pynvml.NVML_ERROR_OPERATING_SYSTEM, "Windows does not let WSL use this PC's graphics cards"),
        (pynvml.NVML_ERROR_UNKNOWN, "driver does not start (Unknown Error)"),
        (pynvml.NVML_ERROR_GPU_IS_LOST, "driver does not start (GPU is lost)"),
        (pynvml.NVML_ERROR_GPU_NOT_FOUND, None),
    ],
)
def test_a_driver_that_does_not_start_is_told(
    monkeypatch: pytest.MonkeyPatch, code: int, words: str | None
) -> None:
    """WSL without access to the card, and a container that lost it, joined as CPUs without a word."""
    FakeNvml([RTX_2060], init_error=code).install(monkeypatch)
    (card,) = probe.cards("n1", MODELS)
    assert card.kind is CardKind.CPU
    assert card.notice is None if words is None else words in (card.notice or "")


def test_a_driver_without_cards_makes_the_pc_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    (card,) = probed(monkeypatch)
    assert card.id == "CPU-n1"


def test_driver_slot_and_memory_of_the_pc_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    riser = replace(RTX_2060, generation_most=3, lanes=1, lanes_most=16)
    (card,) = probed(monkeypatch, riser)
    assert card.driver == "550.120"
    assert card.pcie == PcieLink(3, 1, 16)
    assert card.bus_gb_s == pytest.approx(0.74)
    assert card.ram_gib is not None
    assert card.ram_gib == pytest.approx(psutil.virtual_memory().total / 1024**3, abs=0.01)
    assert not card.tested, "only its worker can say that it computes"


def test_the_cards_of_a_pc_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of four cards counted on all 16 GB."""
    cards = [replace(card, ram_gib=16.0) for card in probed(monkeypatch, RTX_2060, RTX_2060)]
    assert [card.ram_gib for card in probe.sharing(cards)] == [8.0, 8.0]
    assert [card.ram_gib for card in probe.sharing(cards[:1])] == [16.0]
    assert probe.sharing([replace(cards[0], ram_gib=None)])[0].ram_gib is None


def test_who_works_outside_of_the_farm_gets_what_other_programs_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bench counted on all of a card on which a desktop and a browser held a gigabyte, and ran out of memory."""
    desktop = replace(RTX_2060, graphics=((1, 300), (2, 724)))
    used, free = probe.beside_others(probed(monkeypatch, desktop, RTX_3060))
    assert (used.usable_gib, used.others_gib) == (4.4, 1.0)
    assert (free.usable_gib, free.others_gib) == (11.4, None)


def test_a_card_that_does_not_tell_of_its_slot_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "nvmlDeviceGetMaxPcieLinkGeneration",
        "nvmlDeviceGetMaxPcieLinkWidth",
        "nvmlDeviceGetCurrPcieLinkWidth",
    )
    (card,) = probed(
        monkeypatch, replace(RTX_2060, faults=dict.fromkeys(names, pynvml.NVML_ERROR_NOT_SUPPORTED))
    )
    assert (card.pcie, card.bus_gb_s) == (None, None)
    library = FakeNvml([RTX_2060], driver=None)
    library.install(monkeypatch)
    assert probe.cards("n1", MODELS)[0].driver is None


def test_a_card_that_fell_off_its_bus_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """One lost card ended the whole report with an NVMLError, and with it all cards of the PC."""
    lost = replace(RTX_2060, faults={"nvmlDeviceGetHandleByIndex": pynvml.NVML_ERROR_GPU_IS_LOST})
    (card,) = probed(monkeypatch, lost, RTX_3060)
    assert card.id == "GPU-bbbb"


def test_a_reading_that_a_card_does_not_give_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card without a memory reading (integrated ones have none) ended the whole report with an NVMLError."""
    faults = dict.fromkeys(
        ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetCudaComputeCapability"), pynvml.NVML_ERROR_NOT_SUPPORTED
    )
    (card,) = probed(monkeypatch, replace(RTX_2060, faults=faults))
    assert (card.id, card.vram_gib, card.usable_gib, card.compute_capability) == (
        "GPU-aaaa",
        None,
        None,
        None,
    )


def others(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu, **names: str) -> tuple[Program, ...]:
    FakeNvml([gpu], programs={int(pid[1:]): name for pid, name in names.items()}).install(monkeypatch)
    return other_programs("GPU-aaaa")


def test_other_programs_on_the_card_are_named_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = replace(RTX_2060, compute=((os.getpid(), 3000), (4123, 1536)), graphics=((11, None), (12, 64)))
    assert others(monkeypatch, gpu, p4123="/usr/bin/blender -b scene.blend", p11="Xorg") == (
        Program(4123, "blender", 1.5),
        Program(11, "Xorg", None),
        Program(12, "a program of another user", 0.0625),
    )


def test_where_this_process_is_not_listed_nobody_can_be_told_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the driver numbers processes as the PC does: the worker took itself for another program."""
    assert others(monkeypatch, replace(RTX_2060, compute=((10**9, 3000),))) == ()


def test_a_driver_that_lists_no_processes_names_none(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
    gpu = replace(RTX_2060, faults=dict.fromkeys(names, pynvml.NVML_ERROR_NOT_SUPPORTED))
    assert others(monkeypatch, gpu) == ()
    assert others(monkeypatch, replace(RTX_2060, uuid="GPU-other")) == ()
    FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND).install(monkeypatch)
    assert other_programs("GPU-aaaa") == ()


@pytest.mark.torch
def test_a_model_is_listed_only_where_its_weights_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint_cache: Path
) -> None:
    whole = shutil.copytree(small_i2vgen(checkpoint_cache), tmp_path / "whole")
    row = MODELS["i2vgen-xl"]
    models = {
        "animatic": MODELS["animatic"],
        "there": replace(row, name="there", source=str(whole)),
        "absent": replace(row, name="absent", source=str(tmp_path / "nowhere")),
    }
    FakeNvml([RTX_2060]).install(monkeypatch)
    (gpu,) = probe.cards("n1", models)
    assert set(gpu.models) - {"animatic"} == {"there"}
    assert gpu.coming == ()
    weights = next((whole / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    (gpu,) = probe.cards("n1", models)
    assert set(gpu.models) - {"animatic"} == set()
    (damaged,) = gpu.coming  # that they were cut short was known, and told nobody
    assert (damaged.model, damaged.damaged) == ("there", True)
    assert damaged.trouble is not None
    assert damaged.trouble.startswith(f"{weights} is not usable: it should have ")


def test_a_gpu_model_is_not_listed_for_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "has_weights", lambda _row: True)
    FakeNvml(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND).install(monkeypatch)
    models = {"gpu-only": replace(MODELS["i2vgen-xl"], name="gpu-only", devices=("cuda",))}
    (card,) = probe.cards("n1", models)
    assert card.models == ()


def test_the_fake_has_no_name_and_no_argument_that_the_real_library_lacks() -> None:
    fake = FakeNvml().module()
    names = [name for name in vars(fake) if not name.startswith("__")]
    assert "nvmlInit" in names
    assert "NVMLError_GpuIsLost" in names
    for name in names:
        real, ours = getattr(pynvml, name), getattr(fake, name)
        if inspect.isfunction(ours):
            assert (
                list(inspect.signature(ours).parameters)
                == list(inspect.signature(real).parameters)[: len(inspect.signature(ours).parameters)]
            )
        else:
            assert ours is real


def test_the_fake_refuses_what_the_real_library_refuses() -> None:
    fake = FakeNvml([RTX_2060]).module()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        fake.nvmlDeviceGetCount()
    fake.nvmlInit()
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        fake.nvmlDeviceGetHandleByIndex(1)
    fake.nvmlShutdown()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        fake.nvmlShutdown()
