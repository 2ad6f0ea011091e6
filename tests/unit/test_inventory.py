"""What kinds of PC say of themselves, by value: recorded answers of NVML, one file a PC, through the whole probe."""

from dataclasses import replace

import pynvml
import pytest

from farm.catalogue.cards import find_card
from farm.catalogue.models import builtin_models
from farm.model import CardKind, PcieLink
from farm.vitals import CardFacts
from farm.wire import CardReport
from node_agent import probe
from node_agent.look import readings
from node_agent.nvml import Held
from node_agent.readings import CardProgram, CardReading
from node_agent.spill import MARGIN_GIB
from node_agent.standing import Standing, WorkerWord
from tests.fake_nvml import FIXTURES, FakeNvml, recorded

MODELS = builtin_models()


def nobody(_pid: int) -> bool:
    return False


def cards_of(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[CardReport, ...]:
    library = recorded(name)
    library.install(monkeypatch)
    found = probe.cards("n1", MODELS)
    assert library.started == 0, "NVML was left open"
    return found


def looks_at(name: str, monkeypatch: pytest.MonkeyPatch) -> list[CardReading]:
    recorded(name).install(monkeypatch)
    return list(readings().values())


def figures(card: CardReport) -> tuple[object, ...]:
    """Name, nominal and usable GiB, capability, driver, slot, GB/s to the card."""
    link = card.pcie
    slot = (link.generation, link.lanes, link.lanes_most) if link else None
    return (
        card.name,
        card.vram_gib,
        card.usable_gib,
        card.compute_capability,
        card.driver,
        slot,
        None if card.bus_gb_s is None else round(card.bus_gb_s, 2),
    )


@pytest.mark.parametrize(
    ("name", "expected", "facts"),
    [
        (
            "gtx-1060",
            ("GTX 1060 6GB", 6.0, 5.4, (6, 1), "535.183.01", (3, 16, 16), 11.82),
            CardFacts("00000000:01:00.0", (12, 2), 120.0),
        ),
        (
            "gtx-1080",
            ("GTX 1080", 8.0, 7.4, (6, 1), "550.120", (3, 8, 16), 5.91),
            CardFacts("00000000:02:00.0", (12, 4), 180.0),
        ),
        (
            "gtx-1660-super",
            ("GTX 1660 SUPER", 6.0, 5.4, (7, 5), "550.120", (3, 16, 16), 11.82),
            CardFacts("00000000:03:00.0", (12, 4), 125.0),
        ),
        (
            "rtx-2060",
            ("RTX 2060", 6.0, 5.4, (7, 5), "560.35.03", (3, 1, 16), 0.74),
            CardFacts("00000000:04:00.0", (12, 6), 160.0),
        ),
        (
            "rtx-2070-super",
            ("RTX 2070 SUPER", 8.0, 7.4, (7, 5), "535.183.01", (3, 16, 16), 11.82),
            CardFacts("00000000:05:00.0", (12, 2), 215.0),
        ),
        (
            "rtx-3050",
            ("RTX 3050", 8.0, 7.4, (8, 6), "550.120", (4, 8, 8), 11.81),
            CardFacts("00000000:06:00.0", (12, 4), 130.0),
        ),
        (
            "rtx-4090",
            ("RTX 4090", 24.0, 23.39, (8, 9), "565.57.01", (4, 16, 16), 23.63),
            CardFacts("00000000:09:00.0", (12, 7), 450.0, ecc=False),
        ),
        (
            "tesla-p40",
            ("Tesla P40", 24.0, 21.9, (6, 1), "535.183.01", (3, 16, 16), 11.82),
            CardFacts("00000000:0A:00.0", (12, 2), 250.0, ecc=True, ecc_uncorrected=2, retired_pages=4),
        ),
        (
            "wsl2",
            ("RTX 3060", 12.0, 11.4, (8, 6), "551.86", None, None),
            CardFacts("00000000:1E:00.0", (12, 4)),
        ),
    ],
)
def test_one_card_of_each_kind(
    name: str, expected: tuple[object, ...], facts: CardFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (card,) = cards_of(name, monkeypatch)
    assert figures(card) == expected
    assert card.facts == facts
    assert (card.trouble, card.notice, card.kind) == (None, None, CardKind.CUDA)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # utilization, GiB used, degrees, watts, MHz, MHz of the memory, PCIe now
        ("gtx-1060", (0.03, 0.402, 44, 9.6, 139, 405, (1, 16))),
        ("gtx-1080", (0.99, 6.563, 79, 174.3, 1771, 4513, (3, 8))),
        ("rtx-2070-super", (0.0, 0.298, 38, None, 300, 405, (1, 16))),
        ("tesla-p40", (0.0, 0.0, 88, 51.7, 544, 3615, (3, 16))),
        ("wsl2", (0.22, 3.4, 55, None, 1777, 7500, (None, None))),
        ("mig", (None, 0.586, 36, 37.0, 210, 1215, (4, 16))),
    ],
)
def test_how_a_card_is_now(name: str, expected: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    (reading,) = looks_at(name, monkeypatch)
    now = reading.vitals
    assert (
        now.utilization,
        now.memory_used_gib,
        now.temperature_c,
        now.power_w,
        now.clock_mhz,
        now.memory_clock_mhz,
        (now.pcie_generation, now.pcie_lanes),
    ) == expected


def test_unequal_cards_of_one_pc_are_never_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = cards_of("rtx-3060-and-1050-ti", monkeypatch)
    assert figures(large)[:4] == ("RTX 3060", 12.0, 11.4, (8, 6))
    assert figures(small)[:4] == ("GTX 1050 Ti", 4.0, 3.4, (6, 1))
    assert small.pcie == PcieLink(3, 4, 16)
    assert large.id != small.id


def test_a_pair_of_v100_is_two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cards_of("two-v100", monkeypatch)
    assert [figures(card)[:4] for card in found] == [("Tesla V100-SXM2-16GB", 16.0, 15.4, (7, 0))] * 2
    assert [card.facts.bus_id for card in found if card.facts] == ["00000000:0B:00.0", "00000000:0C:00.0"]
    assert all(card.facts and card.facts.retired_pages == 0 for card in found)


def test_complaint_13_a_pc_with_eight_gpus_is_eight_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent crashed on a PC with 8 GPUs, because it read their number once for each card, in lines (deadline worker agent #435)."""
    found = cards_of("eight-cards", monkeypatch)
    assert len({card.id for card in found}) == len(found) == 8
    assert {figures(card) for card in found} == {
        ("GTX 1070", 8.0, 7.4, (6, 1), "470.256.02", (2, 1, 16), 0.38)
    }
    assert [card.vitals.power_w for card in found if card.vitals] == [6.0 + index for index in range(8)]
    assert len(readings()) == 8


def test_complaint_9_a_card_whose_memory_windows_moved_to_ram_is_used_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows spilled VRAM to RAM instead of failing: twenty times slower, and the next render did it again (horde-worker-reGen#332)."""
    (card,) = cards_of("wsl2", monkeypatch)
    standing = Standing()
    standing.hear(WorkerWord(7, tested=True, spills=1), 0.0)
    used_less = standing.of(card)
    assert used_less.usable_gib == pytest.approx(11.4 - MARGIN_GIB)
    assert used_less.notice is not None
    assert "Windows moved some of it to the PC's RAM" in used_less.notice


def test_a_card_off_its_bus_is_told_beside_the_card_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    (card,) = cards_of("card-lost", monkeypatch)
    assert card.name == "GTX 1060 6GB"
    assert card.notice is not None
    assert card.notice.startswith("A graphics card of this PC does not answer: GPU is lost.")
    assert len(looks_at("card-lost", monkeypatch)) == 1


def test_the_only_card_off_its_bus_leaves_a_cpu_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    (card,) = cards_of("card-lost-at-work", monkeypatch)
    assert card.kind is CardKind.CPU
    assert card.notice is not None
    assert "GPU is lost" in card.notice
    assert looks_at("card-lost-at-work", monkeypatch) == []


def test_a_split_card_gets_no_work_and_says_how_to_make_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    (card,) = cards_of("mig", monkeypatch)
    assert card.trouble == (
        "A100-PCIE-40GB is split into instances (MIG), and the farm works with whole cards. On that PC, while nothing uses the card: "
        "`sudo nvidia-smi -i 00000000:22:00.0 -mig 0`."
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("driver-mismatch", "driver/library version mismatch"),
        ("no-permission", "no permission"),
        ("driver-not-loaded", "driver is not loaded"),
        ("no-driver", None),
    ],
)
def test_a_pc_whose_driver_cannot_be_used_is_a_cpu_and_says_why(
    name: str, words: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A PC with a graphics card and a half-updated driver joined as a CPU, and nobody learned why."""
    (card,) = cards_of(name, monkeypatch)
    assert (card.id, card.kind) == ("CPU-n1", CardKind.CPU)
    assert (words is None) == (card.notice is None)
    assert words is None or words in (card.notice or "")
    assert looks_at(name, monkeypatch) == []


def test_programs_are_told_with_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    (desktop,) = looks_at("gtx-1060", monkeypatch)
    assert desktop.programs == (
        CardProgram(1312, "Xorg", 214 / 1024),
        CardProgram(1688, "gnome-shell", 128 / 1024),
    )
    (film,) = looks_at("rtx-4090", monkeypatch)
    assert film.programs == (
        CardProgram(7007, "resolve", 8300 / 1024, computes=True),
        CardProgram(1312, "Xwayland", 320 / 1024),
    )
    (windows,) = looks_at("wsl2", monkeypatch)
    assert windows.programs is None


def test_what_others_hold_is_told_by_the_list_or_by_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    (game,) = looks_at("rtx-2060", monkeypatch)
    assert game.others_gib(nobody, None) == pytest.approx((190 + 4120) / 1024)
    (work,) = looks_at("gtx-1080", monkeypatch)
    assert work.others_gib({4021}.__contains__, 6.0) == 0.0
    (windows,) = looks_at("wsl2", monkeypatch)
    assert windows.others_gib(nobody, None) == pytest.approx(3.4)
    assert windows.others_gib(nobody, 1.5) == pytest.approx(3.4 - 1.5 - 0.6)
    unread = replace(windows, vitals=replace(windows.vitals, memory_used_gib=None))
    assert unread.others_gib(nobody, None) is None


def test_a_list_without_our_own_worker_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the driver numbers processes as the PC does: the farm's own worker was taken for its owner's program."""
    (work,) = looks_at("gtx-1080", monkeypatch)
    assert work.others(nobody, 6.0) is None
    assert work.others_gib(nobody, 6.0) == pytest.approx(0.0)


def test_every_recorded_card_is_one_of_the_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted(path.stem for path in FIXTURES.glob("*.json"))
    assert len(names) >= 12
    strangers = {
        card.name
        for name in names
        for card in cards_of(name, monkeypatch)
        if card.kind is CardKind.CUDA and find_card(card.name, card.vram_gib) is None
    }
    assert strangers == {"A100-PCIE-40GB"}


def test_nvml_is_held_open_and_started_anew_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeNvml(recorded("gtx-1060").gpus)
    library.install(monkeypatch)
    held = Held()
    assert library.started == 1
    readings()
    assert library.started == 1
    library.init_error = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    held.again()
    assert library.started == 0
    library.init_error = None
    held.again()
    held.release()
    held.release()
    assert library.started == 0
