"""Parts of the pages that need no browser: the memory bar, cards' states, numbers in words, vendored files."""

import hashlib
from pathlib import Path

import pytest

from dashboard import words
from dashboard.memory_bar import memory_bar, planned_bar, read_bar
from dashboard.parts import make_parts
from dashboard.views import card_states, show_cards
from farm.answers.machines import CardView
from farm.feed import LiveCard, Snapshot
from farm.model import CardKind, Tier
from farm.settings import DataDirectory, FarmSettings
from farm.store.requests import RequestKind
from farm.vitals import Vitals
from tests.storage import open_storage

VENDOR = Path(words.__file__).parent / "static" / "vendor"


@pytest.mark.parametrize(
    ("vram", "usable", "planned", "said"),
    [
        (12.0, 11.2, 5.1, ["5.1 planned for this render", "6.1 free", "0.8 driver and other programs"]),
        (12.0, 11.2, None, ["11.2 free", "0.8 driver and other programs"]),
        (6.0, 5.4, 7.0, ["5.4 planned for this render", "0.6 driver and other programs"]),
        (6.0, 6.5, None, ["6 free"]),
        (6.0, 0.0, None, ["6 driver and other programs"]),
    ],
)
def test_the_bar_shares_out_all_of_the_memory(
    vram: float, usable: float, planned: float | None, said: list[str]
) -> None:
    bar = planned_bar(vram, usable, planned)
    assert bar.text.replace(f"{words.THIN}GiB", "") == ", ".join(said)
    assert sum(segment.share for segment in bar.segments) == pytest.approx(100, abs=0.05)
    ends = [segment.start + segment.share for segment in bar.segments]
    assert [segment.start for segment in bar.segments[1:]] == pytest.approx(ends[:-1], abs=0.05)


def test_nothing_is_called_free_on_a_card_that_does_not_answer() -> None:
    bar = planned_bar(6.0, 5.4, None, answers=False)
    assert (
        bar.text == f"5.4{words.THIN}GiB usable when last heard, 0.6{words.THIN}GiB driver and other programs"
    )


def test_pages_without_cards_have_the_states_of_those_with_them(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    storage = open_storage(tmp_path)
    first, _, third = storage.add_cards(3)
    storage.add_cards(1, "n2")
    parts = make_parts(data, FarmSettings(data=tmp_path))
    assert list(card_states(parts).values()) == ["not known"] * 4
    heard = (
        LiveCard(first.id, "n1", "n1", first.name, "busy"),
        LiveCard(third.id, "n1", "n1", third.name, "idle"),
    )
    parts.live.take(Snapshot((), heard))
    assert list(card_states(parts).values()) == ["busy", "not answering", "idle", "not answering"]
    storage.requests.ask_node(RequestKind.FORGET, "n2", 5.0)
    cards = show_cards(parts)
    assert list(card_states(parts).items()) == [(card.id, card.state) for card in cards]
    assert show_cards(parts, [third.id, first.id, "CPU-n2-0"]) == [cards[0], cards[2]]
    assert len(card_states(parts)) == 3
    storage.close()


@pytest.mark.parametrize("vram", [None, 0.0])
def test_memory_that_is_not_known_has_no_bar(vram: float | None) -> None:
    assert memory_bar(shown(vram, 5.0)) is None
    assert memory_bar(shown(6.0, None)) is None


def shown(vram: float | None, usable: float | None, used: float | None = None, **more: object) -> CardView:
    card = CardView(
        id="GPU-1",
        node_id="n1",
        node_name="attic",
        kind=CardKind.CUDA,
        name="RTX 2060",
        vram_gib=vram,
        usable_gib=usable,
        band=Tier.POST,
        state="busy",
        vitals=None if used is None else Vitals(1.0, memory_used_gib=used),
    )
    return card.model_copy(update=more)


@pytest.mark.parametrize(
    ("used", "others", "said"),
    [
        (4.7, 0.5, ["4.2 farm and driver", "0.5 other programs", "1.3 free"]),
        (0.19, 0.0, ["0.2 farm and driver", "5.8 free"]),
        (6.2, 7.0, ["6 other programs"]),
        (0.0, 0.0, ["6 free"]),
    ],
)
def test_the_bar_of_a_card_that_was_read_says_what_is_held_and_by_whom(
    used: float, others: float, said: list[str]
) -> None:
    bar = memory_bar(shown(6.0, 5.4, used, others_gib=others), 5.1)
    assert bar == read_bar(6.0, used, others)
    assert bar.text.replace(f"{words.THIN}GiB", "") == ", ".join(said)
    assert sum(segment.share for segment in bar.segments) == pytest.approx(100, abs=0.05)


def test_a_card_of_which_not_all_is_read_has_the_planned_bar() -> None:
    planned = planned_bar(6.0, 5.4, 5.1)
    assert memory_bar(shown(6.0, 5.4), 5.1) == planned
    assert memory_bar(shown(6.0, 5.4, 4.7), 5.1) == planned, "nobody knows whose it is"
    assert memory_bar(shown(6.0, 5.4, others_gib=0.5), 5.1) == planned


def test_how_a_card_is_in_words() -> None:
    whole = Vitals(1.0, utilization=0.975, temperature_c=71.0, power_w=155.2)
    assert words.vitals_line(whole) == "71\u202f\u00b0C, 98\u202f% in use, 155\u202fW"
    assert words.vitals_line(Vitals(1.0, power_w=0.0)) == "0\u202fW"
    assert words.vitals_line(Vitals(1.0)) == words.vitals_line(None) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, ""), (0.0, "0.00"), (0.254, "0.25"), (4.21, "4.2"), (118.4, "118"), (1234.0, "1\u202f234")],
)
def test_rates_have_three_digits(value: float | None, said: str) -> None:
    assert words.rate(value) == said


def test_energy_has_its_unit_and_none_is_nothing() -> None:
    assert [words.wh(value) for value in (None, 0.254, 4.3)] == ["", "0.25\u202fWh", "4.3\u202fWh"]


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "1 KiB"), (350_000, "342 KiB"), (3_500_000, "3.3 MiB"), (77_700_000_000, "72.4 GiB")],
)
def test_sizes(count: int, said: str) -> None:
    assert words.size(count) == said.replace(" ", words.THIN)


def test_vendored_files_are_those_that_were_vendored() -> None:
    sums = dict(line.split()[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    assert sums.keys() == {file.name for file in VENDOR.iterdir()} - {"SHA256SUMS", "README.md"}
    for name, digest in sums.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest, name
