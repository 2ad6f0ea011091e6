"""What finished attempts teach about a card and a model: by how much the catalogue's prediction is off. Pure.

A lesson is the ratio of what was measured to what the catalogue predicts for the same settings and plan. Ratios are compared as
logarithms: twice as slow and twice as fast are equally far off. The median of the last ones is hardly moved by an outlier (another
program, a spill, a hot day); while there are few it is drawn towards 1, the catalogue's word, by what is known of both:

    weight = n / (n + (NOISE / PRIOR) ** 2)

The catalogue is right within a factor of two (PRIOR = ln 2, held against an H200); one render of a card differs from the next by some
percent, now and then by a third (NOISE = 0.25). So one render moves the prediction 88 % of the way, three 96 %.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from farm.catalogue.models import ModelRow
from farm.model import Attempt, AttemptStatus, Card, CardKind, FailureClass, RenderSettings
from farm.planning.estimate import seconds
from farm.planning.memory import peak_gib

PRIOR = math.log(2.0)
NOISE = 0.25
LAST = 12
"""How many attempts count: enough for a steady median, few enough to follow a card that got a new fan."""

SECONDS_LIMITS = (1 / 30, 30.0)
PEAK_LIMITS = (0.8, 2.0)
"""What is believed at most. The memory law is within 5 %: a ratio far from 1 speaks of something else than the law, and a too small one
would let jobs run out."""

STEP_UP = 1.05
"""An attempt that ran out of memory took at least what was usable; how much more, nobody knows."""

NOT_RENDERING = frozenset({"load", "earlier_tries"})
"""Parts of an attempt's seconds that the prediction leaves out: it is from the loaded model to the last frame."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One attempt's ratios of measured to predicted; None where it has nothing to say."""

    seconds: float | None = None
    peak: float | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """By what to multiply the catalogue's seconds and peak for one card and model; `renders` is how many attempts say so."""

    seconds: float = 1.0
    peak: float = 1.0
    renders: int = 0


UNLEARNED = Learned()


def lesson_of(attempt: Attempt, settings: RenderSettings, row: ModelRow, card: Card) -> Lesson | None:
    """What an ended attempt teaches, or None: what another program had its hand in teaches nothing.

    The prediction is made anew from the catalogue, for the plan that really ran: so a change of the catalogue does not spoil the history.
    """
    if attempt.disturbed:
        return None
    predicted_peak = peak_gib(row, settings, attempt.memory_plan) if card.kind is not CardKind.CPU else 0.0
    if attempt.status is AttemptStatus.FAILED:
        usable = card.usable_gib
        if attempt.failure_class is not FailureClass.OUT_OF_MEMORY or not predicted_peak or usable is None:
            return None
        return Lesson(peak=max(1.0, usable / predicted_peak) * STEP_UP)
    if attempt.status is not AttemptStatus.FINISHED:
        return None
    took = sum(spent for part, spent in attempt.stage_seconds.items() if part not in NOT_RENDERING)
    predicted = seconds(row, card, settings, attempt.memory_plan)
    return Lesson(
        seconds=took / predicted if took > 0 and predicted > 0 else None,
        peak=attempt.peak_gib / predicted_peak if attempt.peak_gib and predicted_peak else None,
    )


def learn(lessons: Iterable[Lesson | None]) -> Learned:
    """The factors from lessons, newest first; those beyond the last `LAST` no longer count."""
    known = [lesson for lesson in lessons if lesson is not None][:LAST]
    return Learned(
        seconds=_factor([lesson.seconds for lesson in known if lesson.seconds is not None], SECONDS_LIMITS),
        peak=_factor([lesson.peak for lesson in known if lesson.peak is not None], PEAK_LIMITS),
        renders=len(known),
    )


def seconds_within(renders: int) -> float:
    """By what factor, either way, the next render's seconds may well be off a prediction that so many renders have taught.

    One standard deviation of what is not known of the card (it shrinks with every render) and of one render against the next, in
    logarithms: 2.1 for the catalogue's word, 1.4 after one render, 1.3 after many.
    """
    of_card = 1 / (1 / PRIOR**2 + renders / NOISE**2)
    return math.exp(math.sqrt(of_card + NOISE**2))


def _factor(ratios: Sequence[float], limits: tuple[float, float]) -> float:
    if not ratios:
        return 1.0
    weight = len(ratios) / (len(ratios) + (NOISE / PRIOR) ** 2)
    factor = math.exp(weight * median(math.log(ratio) for ratio in ratios))
    return min(max(factor, limits[0]), limits[1])
