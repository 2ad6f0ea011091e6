"""Parts of the pages that need no browser: the memory bar, numbers in words, vendored files."""

import hashlib
from pathlib import Path

import pytest

from dashboard import words
from dashboard.memory_bar import memory_bar

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
    bar = memory_bar(vram, usable, planned)
    assert bar is not None
    assert bar.text.replace(f"{words.THIN}GiB", "") == ", ".join(said)
    assert sum(segment.share for segment in bar.segments) == pytest.approx(100, abs=0.05)
    ends = [segment.start + segment.share for segment in bar.segments]
    assert [segment.start for segment in bar.segments[1:]] == pytest.approx(ends[:-1], abs=0.05)


def test_nothing_is_called_free_on_a_card_that_does_not_answer() -> None:
    bar = memory_bar(6.0, 5.4, None, answers=False)
    assert bar is not None
    assert (
        bar.text == f"5.4{words.THIN}GiB usable when last heard, 0.6{words.THIN}GiB driver and other programs"
    )


@pytest.mark.parametrize("vram", [None, 0.0])
def test_memory_that_is_not_known_has_no_bar(vram: float | None) -> None:
    assert memory_bar(vram, 5.0, None) is None
    assert memory_bar(6.0, None, None) is None


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
