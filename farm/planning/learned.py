"""What finished attempts teach about a card and a model: by how much the catalogue's prediction is off. Pure.

A lesson is the ratio of what was measured to what the catalogue predicts for the same settings and plan: of the denoising steps, and
of all beside them. The two are learned apart: what a modern card does beside the steps takes it a tenth of the catalogue's seconds, its
steps as long as foretold, so that one ratio of both is wrong at every other size. Ratios are compared as logarithms: twice as slow and
twice as fast are equally far off. The median of the last ones is hardly moved by an outlier (another program, a spill, a hot day);
while there are few it is drawn towards 1, the catalogue's word, by what is known of both:

    weight = n / (n + (NOISE / PRIOR) ** 2)

The catalogue is right within a factor of two in four of five cases (PRIOR; of the article's rows and an H200's steps the worst is off by
1.8). One render of a card differs from the next by some percent, now and then by a third (NOISE). So one render moves the prediction
88 % of the way, three 96 %.

How far a prediction may be off is told with it, as standard deviations of the logarithm: `of_card` of what is not known of the card, which
shrinks with every render, and `of_render` of one render against the next, which the history tells. `farm.planning.spans` makes the
interval of it, the same wherever seconds are told. `docs/benchmarks.md` has how often it held.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from farm.catalogue.interpolators import interpolator
from farm.catalogue.models import ModelRow
from farm.model import (
    EARLIER_TRIES,
    Attempt,
    AttemptStatus,
    Basis,
    Card,
    CardKind,
    FailureClass,
    Job,
    RenderSettings,
    StageKind,
)
from farm.own_bench import BenchResult
from farm.planning.estimate import seconds, steps_and_rest
from farm.planning.interpolation import interpolation_seconds
from farm.planning.loading import load_seconds
from farm.planning.memory import HELD, peak_gib
from farm.planning.plans import AIR
from farm.planning.spans import Span, Z, spread

PRIOR = math.log(2.0) / Z
NOISE = 0.2
_DOUBT = (NOISE / PRIOR) ** 2
LOAD_PRIOR = math.log(3.0) / Z
LOAD_NOISE = math.log(2.0) / Z
NOISE_KNOWN = 3
"""As many renders as `NOISE` counts for beside the scatter that was seen: the scatter of two or three says little."""
LEAST_NOISE = 0.02
"""Two renders that took equally long by chance do not make a card a clock."""
MEDIAN_COSTS = 1.57
"""By how much the variance of a median is above a mean's, for a normal distribution."""
LAST = 12
"""How many attempts count: enough for a steady median, few enough to follow a card that got a new fan."""

SECONDS_LIMITS = (1 / 30, 30.0)
PEAK_LIMITS = (0.8, 2.0)
"""What is believed at most. The memory law is within 5 %: a ratio far from 1 speaks of something else than the law, and a too small one
would let jobs run out."""

STEP_UP = 1.05
"""An attempt that ran out of memory took at least what was usable; how much more, nobody knows."""
UNFILLED = HELD / AIR
"""How many times its own peak a plan's room has that had to fit: with more it would have taken more."""

STEPPING = "denoise"
"""The part of an attempt's seconds that its steps are."""

NOT_RENDERING = frozenset({"load", EARLIER_TRIES})
"""Parts of an attempt's seconds that the prediction leaves out: it is from the loaded model to the last frame."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One attempt's ratios of measured to predicted; None where it has nothing to say.

    `seconds` are those of the steps where `rest` says what all beside them took, else of everything. `share`: how much of the predicted
    seconds is the rest.
    """

    seconds: float | None = None
    peak: float | None = None
    rest: float | None = None
    share: float = 0.0

    def off(self, learned: "Learned") -> float | None:
        """By how much everything took longer than what was learned says, as a ratio."""
        if self.seconds is None:
            return None
        if self.rest is None:
            return self.seconds / learned.seconds
        took = (1 - self.share) * self.seconds + self.share * self.rest
        return took / learned.whole(1 - self.share, self.share)


@dataclass(frozen=True, slots=True)
class Learned:
    """By what to multiply the catalogue's seconds and peak for one card and model; of an interpolator the seconds only.

    `rest` is the factor for all beside the denoising steps, where that is known by itself; None is as for the steps. `load` is the same for
    the seconds that the card takes to load the model (`farm.planning.loading`), as `loads` loads say. `renders` is how many attempts
    say what seconds it takes, `benches` how many rows of the card's own bench. `of_card` and `of_render`: how far the seconds may be off,
    as standard deviations of the logarithm.
    """

    seconds: float = 1.0
    peak: float = 1.0
    renders: int = 0
    benches: int = 0
    load: float = 1.0
    loads: int = 0
    of_card: float = PRIOR
    of_render: float = NOISE
    rest: float | None = None

    def whole(self, steps_s: float, rest_s: float) -> float:
        """The seconds of a render of which the catalogue says so much for its steps and for the rest."""
        return self.seconds * steps_s + (self.seconds if self.rest is None else self.rest) * rest_s

    def span(self, seconds: float) -> Span:
        """The interval of a prediction of `seconds`, to which this has been applied. The only place that makes one."""
        return spread(seconds, math.hypot(self.of_card, self.of_render))

    @property
    def basis(self) -> Basis:
        """What a prediction rests on."""
        if self.renders:
            return "measured"
        return "calibrated" if self.benches else "catalogue"


UNLEARNED = Learned()


def lesson_of(attempt: Attempt, settings: RenderSettings, row: ModelRow, card: Card) -> Lesson | None:
    """What an ended attempt teaches, or None: what another program had its hand in teaches nothing.

    The prediction is made anew from the catalogue, for the plan that really ran: so a change of the catalogue does not spoil the history.
    """
    if attempt.disturbed:
        return None
    predicted_peak = peak_gib(row, settings, attempt.memory_plan) if card.kind is not CardKind.CPU else 0.0
    if attempt.status is AttemptStatus.FAILED:
        usable = _was_usable_gib(attempt, card)
        if attempt.failure_class is not FailureClass.OUT_OF_MEMORY or not predicted_peak or usable is None:
            return None
        return Lesson(peak=max(1.0, usable / predicted_peak) * STEP_UP)
    if attempt.status is not AttemptStatus.FINISHED:
        return None
    peak = None
    if attempt.peak_gib and predicted_peak:
        at_once = EARLIER_TRIES not in attempt.stage_seconds
        peak = (
            _within(attempt.peak_gib, card, predicted_peak) if at_once else attempt.peak_gib
        ) / predicted_peak
    if attempt.resumed_step is not None:  # a part of a render: the whole takes at least as much
        return Lesson(peak=peak) if peak is not None and peak > 1 else None
    return replace(
        _of_seconds(attempt.stage_seconds, *steps_and_rest(row, card, settings, attempt.memory_plan)),
        peak=peak,
    )


def _was_usable_gib(attempt: Attempt, card: Card) -> float | None:
    """What the attempt had of the card. What is usable now may be more: another program, for which the plan left room, has ended since."""
    if card.usable_gib is None or attempt.predicted_gib is None:
        return card.usable_gib
    return min(card.usable_gib, UNFILLED * attempt.predicted_gib)


def _within(peak: float, card: Card, by_law: float) -> float:
    """A render's peak, but never more than the card has, GiB: what ended well at once is not to be taken for too large for it."""
    if card.usable_gib is None:
        return peak
    return min(peak, max(by_law, card.usable_gib + (card.others_gib or 0.0)))


def _of_seconds(stage_seconds: Mapping[str, float], steps_s: float, rest_s: float) -> Lesson:
    """What the parts of an attempt's seconds teach, of which the catalogue says so much for the steps and for the rest."""
    took, stepping = seconds_taken(stage_seconds), stage_seconds.get(STEPPING, 0.0)
    if took <= 0 or steps_s + rest_s <= 0:
        return Lesson()
    if not 0 < stepping < took or not steps_s or not rest_s:
        return Lesson(took / (steps_s + rest_s))
    return Lesson(stepping / steps_s, rest=(took - stepping) / rest_s, share=rest_s / (steps_s + rest_s))


def learned_for(book: Mapping[tuple[str, str], Learned], job: Job, card_id: str) -> Learned:
    """What a book of lessons, by card and model or interpolator, says of a job on a card."""
    return book.get((card_id, worked_by(job.settings, job.stage)), UNLEARNED)


def worked_by(settings: RenderSettings, stage: StageKind) -> str:
    """What does a job's stage: its model, or the farm's interpolator. Under this name lessons are kept."""
    return settings.model if stage is StageKind.GENERATE else interpolator().name


def lesson_of_interpolation(attempt: Attempt, settings: RenderSettings) -> Lesson | None:
    """What a finished interpolation teaches: the processor of each card's PC has its own pace."""
    took, predicted = (
        seconds_taken(attempt.stage_seconds),
        interpolation_seconds(interpolator(), settings),
    )
    if attempt.disturbed or attempt.status is not AttemptStatus.FINISHED or took <= 0 or predicted <= 0:
        return None
    return Lesson(seconds=took / predicted)


def learn_load(took: Sequence[float], row: ModelRow) -> tuple[float, int]:
    """The factor on the guessed seconds of a load, from the seconds of the last ones, and how many say so.

    The guess is of a middling disk (`farm.planning.loading`), and a hard disk or an NVMe is off by three either way (LOAD_PRIOR). One load
    differs from the next by up to two: the PC's memory may hold the weights still (LOAD_NOISE).
    """
    guessed = load_seconds(row)
    ratios = [one / guessed for one in took[:LAST] if one > 0] if guessed else []
    return _factor(ratios, SECONDS_LIMITS, (LOAD_NOISE / LOAD_PRIOR) ** 2), len(ratios)


def bench_lessons(bench: Iterable[BenchResult], row: ModelRow, card: Card) -> list[Lesson | None]:
    """The lessons of a card's own rows with a model, in their order."""
    own = [one for one in bench if (one.card_id, one.model) == (card.id, row.name)]
    return [lesson_of_bench(one, row, card) for one in own]


def lesson_of_bench(benched: BenchResult, row: ModelRow, card: Card) -> Lesson | None:
    """What a row of the card's own bench teaches: the same as a render; None for one that failed."""
    if benched.total_s is None or benched.plan is None:
        return None
    predicted = seconds(row, card, benched.settings, benched.plan)
    peak = peak_gib(row, benched.settings, benched.plan) if card.kind is not CardKind.CPU else 0.0
    return Lesson(
        seconds=benched.total_s / predicted if predicted > 0 else None,
        peak=_within(benched.peak_gib, card, peak) / peak if benched.peak_gib and peak else None,
    )


def seconds_taken(stage_seconds: Mapping[str, float]) -> float:
    """What a prediction is about: the seconds from the loaded model to the last frame."""
    return sum(spent for part, spent in stage_seconds.items() if part not in NOT_RENDERING)


def learn(lessons: Iterable[Lesson | None], bench: Iterable[Lesson | None] = ()) -> Learned:
    """The factors from lessons, newest first; those beyond the last `LAST` no longer count.

    `bench` are those of the card's own bench: they count like renders before all others, so that real ones push them out.
    """
    renders = [lesson for lesson in lessons if lesson is not None][:LAST]
    benches = [lesson for lesson in bench if lesson is not None][: LAST - len(renders)]
    known = renders + benches
    rests = [lesson.rest for lesson in known if lesson.rest is not None]
    found = Learned(
        seconds=_factor([lesson.seconds for lesson in known if lesson.seconds is not None], SECONDS_LIMITS),
        peak=_factor([lesson.peak for lesson in known if lesson.peak is not None], PEAK_LIMITS),
        renders=sum(lesson.seconds is not None for lesson in renders),
        benches=len(benches),
        rest=_factor(rests, SECONDS_LIMITS) if rests else None,
    )
    off = [ratio for lesson in known if (ratio := lesson.off(found)) is not None]
    of_render = _scatter(off)
    of_card = 1 / math.sqrt(1 / PRIOR**2 + len(off) / (MEDIAN_COSTS * of_render**2))
    return replace(found, of_card=of_card, of_render=of_render)


def _scatter(ratios: Sequence[float]) -> float:
    """The standard deviation of one render's logarithm: what was seen about the median, drawn towards what is usual, as logarithms.

    Seen by the median of the distances, which an outlier hardly moves; 1.48 times that is a normal distribution's deviation, and somewhat
    more where few were seen.
    """
    number = len(ratios)
    if number < 2:
        return NOISE
    logs = [math.log(ratio) for ratio in ratios]
    middle = median(logs)
    seen = 1.4826 * number / (number - 0.8) * median(abs(one - middle) for one in logs)
    weight = (number - 1) / (number - 1 + NOISE_KNOWN)
    return math.exp(weight * math.log(max(seen, LEAST_NOISE)) + (1 - weight) * math.log(NOISE))


def _factor(ratios: Sequence[float], limits: tuple[float, float], doubt: float = _DOUBT) -> float:
    if not ratios:
        return 1.0
    weight = len(ratios) / (len(ratios) + doubt)
    factor = math.exp(weight * median(math.log(ratio) for ratio in ratios))
    return min(max(factor, limits[0]), limits[1])
