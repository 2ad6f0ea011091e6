"""Pieces of HTML that stand on pages by the hundred: what they say, and that what others wrote stays text."""

import pytest

from dashboard.marks import dot, is_silent, memory_bar, silence, status, vitals, when
from dashboard.memory_bar import read_bar
from dashboard.words import THIN, Word
from farm.answers.machines import CardView
from farm.model import CardKind, Tier
from farm.vitals import Vitals

CARD = CardView(
    id='GPU-<1>"',
    node_id="n",
    node_name="n",
    kind=CardKind.CUDA,
    name="RTX",
    vram_gib=8.0,
    band=Tier.POST,
    state="busy",
)


def test_a_state_has_its_mark_and_tone() -> None:
    assert dot() == '<span class="dot" aria-hidden="true"></span>'
    assert status(Word("Idle", "good")) == (
        '<span class="status" data-tone="good"><span class="dot" aria-hidden="true"></span>Idle</span>'
    )
    assert "&lt;b&gt;</span>" in status(Word("<b>", "off"))


@pytest.mark.parametrize(("at", "now", "ago"), [(0.5, 30.0, "just now"), (60.0, 360.0, f"5{THIN}min ago")])
def test_a_time_is_told_three_ways(at: float, now: float, ago: str) -> None:
    second = {0.5: "00:00:00", 60.0: "00:01:00"}[at]
    assert when(at, now) == (
        f'<time datetime="1970-01-01T{second}+00:00" data-at="{at}" title="1970-01-01 {second} UTC">{ago}</time>'
    )


def test_a_time_that_is_not_known_is_nothing() -> None:
    assert when(None, 5.0) == ""


def test_only_a_card_that_does_not_answer_tells_since_when() -> None:
    assert silence(CARD, 100.0) == ""
    silent = CARD.model_copy(update={"state": "not answering"})
    assert silence(silent, 100.0) == ""
    assert silence(silent.model_copy(update={"silent_s": 40.0}), 100.0) == (
        '<span class="reason-inline">since <time data-clock="60.0" datetime="1970-01-01T00:01:00+00:00" '
        f'title="1970-01-01 00:01:00 UTC">00:01:00 UTC</time> (<span data-passed="60.0">40{THIN}s</span>)</span>'
    )


def test_a_card_s_memory_is_drawn_and_told() -> None:
    assert memory_bar(read_bar(8.0, 4.0, 0.0), CARD) == (
        '<svg class="memory" width="100%" height="8" preserveAspectRatio="none" viewBox="0 0 100 1" role="img" '
        f'aria-label="Memory of 8{THIN}GiB: 4{THIN}GiB farm and driver, 4{THIN}GiB free" data-memory="GPU-&lt;1&gt;&#34;" '
        'data-vram="8.0">'
        '<rect class="memory-ours" x="0.0" width="50.0" height="1"/>'
        '<rect class="memory-free" x="50.0" width="50.0" height="1"/></svg>'
        '<p class="legend memory-legend" aria-hidden="true">'
        f'<span><span class="swatch memory-ours"></span>4{THIN}GiB farm and driver</span>'
        f'<span><span class="swatch memory-free"></span>4{THIN}GiB free</span></p>'
    )


def test_a_gpu_has_a_line_for_how_it_is_and_a_cpu_none() -> None:
    told = CARD.model_copy(update={"id": "GPU-1", "vitals": Vitals(at=1.0, temperature_c=71.0)})
    assert vitals(told) == f'<p class="unit vitals" data-vitals="GPU-1">71{THIN}°C</p>'
    assert vitals(CARD) == '<p class="unit vitals" data-vitals="GPU-&lt;1&gt;&#34;" hidden></p>'
    assert vitals(CARD.model_copy(update={"kind": CardKind.CPU})) == ""


@pytest.mark.parametrize(
    ("states", "silent"),
    [([], True), (["not answering", "not known"], True), (["not answering", "idle"], False)],
)
def test_a_pc_is_silent_when_none_of_its_cards_is_heard_of(states: list[str], silent: bool) -> None:
    assert is_silent(states) is silent
