"""Small pieces of HTML that stand on a page by the hundred, put together here: as macros of a template they took half of the Cards page.

Each escapes what it is given, as a template would.
"""

from collections.abc import Collection
from functools import lru_cache

from markupsafe import Markup, escape

from dashboard import words
from dashboard.memory_bar import MemoryBar
from dashboard.words import Word
from farm.answers.machines import CardView

DOT = Markup('<span class="dot" aria-hidden="true"></span>')
_SILENT = ("not answering", "not known")


def dot() -> Markup:
    """A round mark in the tone of what it stands in."""
    return DOT


@lru_cache(maxsize=256)
def status(word: Word) -> Markup:
    """A state in a word, with its mark."""
    return Markup(f'<span class="status" data-tone="{escape(word.tone)}">{DOT}{escape(word.word)}</span>')  # noqa: S704 - escaped


def when(at: float | None, now: float) -> Markup:
    """How long ago something was (both wall seconds), with the exact time for who asks; empty for a time that is not known."""
    if not at:
        return Markup("")
    exact = words.exact(at)
    # The exact time has the form of a `datetime` attribute but for the T and the zone.
    told = f"{exact[:10]}T{exact[11:19]}+00:00"
    return Markup(  # noqa: S704 - times and words of ours
        f'<time datetime="{told}" data-at="{at}" title="{exact}">{words.ago(at, now)}</time>'
    )


def silence(card: CardView, now: float) -> Markup:
    """Since when a card that does not answer was not heard; empty for any other."""
    if card.state != "not answering" or card.silent_s is None:
        return Markup("")
    at = now - card.silent_s
    exact = words.exact(at)
    return Markup(  # noqa: S704 - times and words of ours
        f'<span class="reason-inline">since <time data-clock="{at}" datetime="{words.iso(at)}" title="{exact}">{exact[11:19]} UTC</time> '
        f'(<span data-passed="{at}">{words.duration(card.silent_s)}</span>)</span>'
    )


def memory_bar(bar: MemoryBar, card: CardView) -> Markup:
    """How a card's memory is shared out, drawn and in words."""
    drawn = "".join(
        f'<rect class="memory-{one.part}" x="{one.start}" width="{one.share}" height="1"/>'
        for one in bar.segments
    )
    legend = "".join(
        f'<span><span class="swatch memory-{one.part}"></span>{one.text}</span>' for one in bar.segments
    )
    return Markup(  # noqa: S704 - numbers and words of ours but for the id
        '<svg class="memory" width="100%" height="8" preserveAspectRatio="none" viewBox="0 0 100 1" role="img" '
        f'aria-label="Memory of {words.gib(card.vram_gib)}: {bar.text}" data-memory="{escape(card.id)}" '
        f'data-vram="{card.vram_gib}">{drawn}</svg>'
        f'<p class="legend memory-legend" aria-hidden="true">{legend}</p>'
    )


def vitals(card: CardView) -> Markup:
    """How a card is, kept up to date by the page; of a CPU nothing is known."""
    if card.kind == "cpu":
        return Markup("")
    line = words.vitals_line(card.vitals)
    return Markup(  # noqa: S704 - words of ours but for the id
        f'<p class="unit vitals" data-vitals="{escape(card.id)}"{"" if line else " hidden"}>{line}</p>'
    )


def is_silent(states: Collection[str]) -> bool:
    """Whether none of a PC's cards, in these states, is heard of: such a PC may be forgotten."""
    return all(state in _SILENT for state in states)
