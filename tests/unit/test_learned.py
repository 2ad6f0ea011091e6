"""What attempts teach: predictions become right in a few renders, and neither an outlier nor another program spoils them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.interpolators import interpolator
from farm.catalogue.models import builtin_models
from farm.model import (
    Attempt,
    AttemptStatus,
    Card,
    CardKind,
    FailureClass,
    Job,
    JobStatus,
    MemoryPlan,
    RenderSettings,
    StageKind,
    Tier,
)
from farm.own_bench import read_bench
from farm.planning.eligibility import FarmView, check
from farm.planning.estimate import room_of, seconds, steps_and_rest
from farm.planning.interpolation import interpolation_seconds
from farm.planning.learned import (
    LAST,
    NOISE,
    PEAK_LIMITS,
    PRIOR,
    UNLEARNED,
    Learned,
    Lesson,
    bench_lessons,
    learn,
    learn_load,
    learned_for,
    lesson_of,
    lesson_of_interpolation,
    worked_by,
)
from farm.planning.loading import load_seconds
from farm.planning.memory import peak_gib, step_seconds
from farm.planning.plans import best_plan, smallest_peak_gib

MODELS = builtin_models()
I2VGEN = MODELS["i2vgen-xl"]
STANDARD = RenderSettings("i2vgen-xl", 512, 512, frames=16, steps=50, guidance=9.0, fps=8, seed=1)
CARD = Card("GPU-1", "n1", CardKind.CUDA, "RTX 2060", 6.0, 5.4, Tier.POST, (7, 5), frozenset({"i2vgen-xl"}))
CHOICE = best_plan(I2VGEN, STANDARD, room_of(I2VGEN, CARD, 5.4))
assert CHOICE is not None
PLAN = CHOICE.plan
PREDICTED = seconds(I2VGEN, CARD, STANDARD, PLAN)
STEPS, REST = steps_and_rest(I2VGEN, CARD, STANDARD, PLAN)
PEAK = peak_gib(I2VGEN, STANDARD, PLAN)
FINISHED = Attempt(
    "A1", "J1", 1, "n1", "GPU-1", "RTX 2060", AttemptStatus.FINISHED, 1.0, memory_plan=PLAN,
    stage_seconds={"load": 40.0, "denoise": STEPS, "decode": REST - 5.0, "encode": 5.0}, peak_gib=PEAK,
)  # fmt: skip


def job(settings: RenderSettings = STANDARD) -> Job:
    return Job("J2", JobStatus.QUEUED, settings, Tier.POST, "ab" * 32, 1.0)


def times(factor: float, peak: float = 1.0) -> Attempt:
    """An attempt that took `factor` times the catalogue's seconds and `peak` times its memory."""
    parts = {"load": 40.0, "denoise": STEPS * factor, "decode": REST * factor}
    return replace(FINISHED, stage_seconds=parts, peak_gib=PEAK * peak)


def taught(*attempts: Attempt) -> Learned:
    return learn(lesson_of(attempt, STANDARD, I2VGEN, CARD) for attempt in attempts)


def test_an_attempt_as_predicted_teaches_that_the_catalogue_is_right() -> None:
    lesson = lesson_of(FINISHED, STANDARD, I2VGEN, CARD)
    assert lesson is not None
    assert lesson.seconds == pytest.approx(1.0)
    assert lesson.rest == pytest.approx(1.0)
    assert lesson.peak == pytest.approx(1.0)
    assert learn([]) == UNLEARNED


def test_loading_and_failed_tries_are_no_part_of_the_prediction() -> None:
    slow_disk = replace(
        FINISHED, stage_seconds={**FINISHED.stage_seconds, "load": 900.0, "earlier_tries": 500.0}
    )
    assert taught(slow_disk).seconds == pytest.approx(1.0)


@given(
    truth=st.floats(0.25, 4.0),
    noise=st.lists(st.floats(0.95, 1.05), min_size=2, max_size=2),
    outlier=st.floats(0.05, 20.0),
    place=st.integers(0, 2),
)
def test_three_renders_bring_the_prediction_within_15_percent_also_with_an_outlier(
    truth: float, noise: list[float], outlier: float, place: int
) -> None:
    ratios = [truth * each for each in noise]
    ratios.insert(place, truth * outlier)
    learned = taught(*(times(ratio) for ratio in ratios))
    view = FarmView(MODELS, learned={("GPU-1", "i2vgen-xl"): learned})
    predicted = check(job(), CARD, view).seconds
    assert predicted == pytest.approx(PREDICTED * truth, rel=0.15)


@given(
    steps=st.floats(0.5, 2.0),
    rest=st.floats(0.05, 2.0),
    width=st.sampled_from([256, 512, 1280]),
    frames=st.integers(8, 32),
    number=st.integers(10, 100),
)
def test_three_renders_of_one_size_bring_every_other_within_15_percent(
    steps: float, rest: float, width: int, frames: int, number: int
) -> None:
    """A modern card takes a tenth of the catalogue's seconds beside the steps: one ratio of both halved what it said of larger clips."""
    parts = {"load": 40.0, "denoise": STEPS * steps, "decode": REST * rest}
    learned = taught(*[replace(FINISHED, stage_seconds=parts)] * 3)
    other = replace(STANDARD, width=width, height=512, frames=frames, steps=number)
    verdict = check(job(other), CARD, FarmView(MODELS, learned={("GPU-1", "i2vgen-xl"): learned}))
    assert verdict.plan is not None
    of_steps, of_rest = steps_and_rest(I2VGEN, CARD, other, verdict.plan)
    assert verdict.seconds == pytest.approx(of_steps * steps + of_rest * rest, rel=0.15)
    assert learned.of_render < NOISE, (
        "all three as foretold: that two parts are off by different shares is no scatter"
    )


def test_a_bench_s_total_teaches_both_where_no_render_has_told_them_apart() -> None:
    whole = learn([], [Lesson(seconds=2.0)] * 3)
    assert whole.rest is None
    assert whole.whole(10.0, 5.0) == pytest.approx(15.0 * whole.seconds)
    told = learn([Lesson(seconds=2.0, rest=0.5, share=0.2)] * 3, [Lesson(seconds=2.0)] * 3)
    assert told.rest == pytest.approx(0.5, rel=0.05)
    assert told.whole(10.0, 5.0) == pytest.approx(10 * told.seconds + 5 * told.rest)


@given(st.floats(0.25, 4.0))
def test_one_render_moves_the_prediction_towards_it_and_not_beyond(truth: float) -> None:
    found = taught(times(truth)).seconds
    assert min(1.0, truth) <= found <= max(1.0, truth)
    assert abs(found - truth) <= abs(1.0 - truth)


@given(st.lists(st.floats(0.01, 100.0), min_size=1, max_size=30))
def test_the_factor_lies_among_the_last_ratios_and_one(ratios: list[float]) -> None:
    found = learn(Lesson(seconds=ratio) for ratio in ratios)
    last = ratios[:LAST]
    assert found.renders == len(last)
    assert max(min(*last, 1.0), 1 / 30) * 0.999 <= found.seconds <= min(max(*last, 1.0), 30.0) * 1.001


def test_a_card_that_became_quicker_is_believed_after_half_a_dozen_renders() -> None:
    assert taught(*[times(1.0)] * 7, *[times(3.0)] * 12).seconds == pytest.approx(1.0)


@pytest.mark.parametrize(
    "attempt",
    [
        replace(times(9.0), disturbed=True),
        replace(FINISHED, status=AttemptStatus.LOST),
        replace(FINISHED, status=AttemptStatus.CANCELLED),
        replace(FINISHED, status=AttemptStatus.RUNNING),
        replace(FINISHED, status=AttemptStatus.FAILED, failure_class=FailureClass.INTERNAL),
        replace(
            FINISHED, status=AttemptStatus.FAILED, failure_class=FailureClass.OUT_OF_MEMORY, disturbed=True
        ),
    ],
)
def test_what_says_nothing_of_the_card_teaches_nothing(attempt: Attempt) -> None:
    """An out-of-memory taught the farm that the card was too small although a game held the memory (sheepit-client#168)."""
    assert lesson_of(attempt, STANDARD, I2VGEN, CARD) is None


def test_running_out_of_memory_by_itself_teaches_that_the_law_was_too_low() -> None:
    ran_out = replace(FINISHED, status=AttemptStatus.FAILED, failure_class=FailureClass.OUT_OF_MEMORY)
    lesson = lesson_of(ran_out, STANDARD, I2VGEN, CARD)
    assert lesson is not None
    assert lesson.seconds is None
    assert lesson.peak == pytest.approx(max(1.0, 5.4 / PEAK) * 1.05)
    assert lesson_of(ran_out, STANDARD, I2VGEN, replace(CARD, usable_gib=None)) is None
    assert taught(ran_out).peak > 1
    assert taught(ran_out).basis == "catalogue", "its seconds were called measured"


def test_a_program_that_held_memory_and_is_gone_makes_no_card_small() -> None:
    """What was usable was what is usable now: once a game had ended, for which the plan left room, the card was held for half as large."""
    choice = best_plan(I2VGEN, STANDARD, room_of(I2VGEN, CARD, 2.4))
    assert choice is not None
    ran_out = replace(
        FINISHED, status=AttemptStatus.FAILED, failure_class=FailureClass.OUT_OF_MEMORY,
        memory_plan=choice.plan, predicted_gib=choice.peak_gib,
    )  # fmt: skip
    for card in (replace(CARD, usable_gib=2.4, others_gib=3.0), CARD):
        lesson = lesson_of(ran_out, STANDARD, I2VGEN, card)
        assert lesson is not None
        assert lesson.peak == pytest.approx(2.4 / choice.peak_gib * 1.05, rel=0.02)


@given(over=st.floats(0.9, 1.3), spare=st.floats(1.0, 1.1))
def test_a_card_is_not_shut_out_by_a_render_that_it_has_made(over: float, spare: float) -> None:
    """A clip that just fitted took 3 % more than the law says and ended well, and no plan for the next one like it fitted any more."""
    card = replace(CARD, usable_gib=smallest_peak_gib(I2VGEN, STANDARD) * spare)
    view = FarmView(MODELS, tiers="off")
    plan = check(job(), card, view).plan
    assert plan is not None
    took = over * peak_gib(I2VGEN, STANDARD, plan)
    lesson = lesson_of(replace(FINISHED, memory_plan=plan, peak_gib=took), STANDARD, I2VGEN, card)
    learned = {(CARD.id, "i2vgen-xl"): learn([lesson] * LAST)}
    assert check(job(), card, replace(view, learned=learned)).eligible


def test_a_render_that_single_precision_mended_says_nothing_else_of_the_card() -> None:
    """It was held against the seconds of half precision, and made the card four times as slow as it is."""
    single = replace(PLAN, precision="fp32")
    assert seconds(I2VGEN, CARD, STANDARD, single) > 2 * PREDICTED
    took = {"denoise": seconds(I2VGEN, CARD, STANDARD, single)}
    lesson = lesson_of(replace(FINISHED, memory_plan=single, stage_seconds=took), STANDARD, I2VGEN, CARD)
    assert lesson is not None
    assert lesson.seconds == pytest.approx(1.0)
    pascal = replace(CARD, name="GTX 1060", compute_capability=(6, 1))
    room = room_of(I2VGEN, pascal, 5.4)
    of_steps = STANDARD.steps * step_seconds(I2VGEN, STANDARD, single, room)
    assert seconds(I2VGEN, pascal, STANDARD, single) == pytest.approx(I2VGEN.time.fixed_s + of_steps)


def test_a_model_without_a_law_of_memory_teaches_seconds_only() -> None:
    settings = replace(STANDARD, model="animatic")
    lesson = lesson_of(FINISHED, settings, MODELS["animatic"], CARD)
    assert lesson is not None
    assert lesson.seconds is not None
    assert lesson.peak is None


def test_a_cpu_s_memory_is_not_the_law_s() -> None:
    cpu = Card("CPU-n1", "n1", CardKind.CPU, "CPU")
    lesson = lesson_of(FINISHED, STANDARD, I2VGEN, cpu)
    assert lesson is not None
    assert lesson.peak is None


def test_parts_that_were_not_measured_teach_nothing() -> None:
    bare = replace(FINISHED, stage_seconds={}, peak_gib=None)
    assert lesson_of(bare, STANDARD, I2VGEN, CARD) == Lesson()
    assert taught(bare) == UNLEARNED


def test_a_larger_peak_than_the_law_s_makes_the_plan_leaner_before_it_runs_out() -> None:
    roomy = replace(CARD, usable_gib=5.8)
    key = (CARD.id, "i2vgen-xl")
    first = check(job(), roomy, FarmView(MODELS))
    assert first.plan == MemoryPlan("by_stage", "together")
    assert first.peak_gib is not None
    learned = learn([lesson_of(times(1.0, peak=1.1), STANDARD, I2VGEN, roomy)] * 3)
    second = check(job(), roomy, FarmView(MODELS, learned={key: learned}))
    assert second.plan is not None
    assert second.peak_gib == pytest.approx(peak_gib(I2VGEN, STANDARD, second.plan) * learned.peak)
    assert second.peak_gib <= 5.8 < first.peak_gib * learned.peak
    assert learned.peak == pytest.approx(1.1, rel=0.01)


def test_what_is_learned_of_memory_has_bounds() -> None:
    assert taught(*[times(1.0, peak=0.2)] * 5).peak == PEAK_LIMITS[0]
    assert learn([Lesson(peak=9.0)] * 5).peak == PEAK_LIMITS[1]


def test_reasons_speak_of_what_was_learned() -> None:
    learned = Learned(peak=9.0)
    verdict = check(job(), CARD, FarmView(MODELS, tiers="off", learned={(CARD.id, "i2vgen-xl"): learned}))
    assert verdict.plan is None
    assert verdict.peak_gib is None
    assert (
        f"needs {smallest_peak_gib(I2VGEN, STANDARD) * 9.0:.1f} GiB, RTX 2060 has 5.4 usable"
        in verdict.reasons
    )


def test_other_cards_and_models_learn_nothing_from_it() -> None:
    view = FarmView(
        MODELS, learned={("GPU-2", "i2vgen-xl"): Learned(9.0), (CARD.id, "animatic"): Learned(9.0)}
    )
    assert check(job(), CARD, view).seconds == pytest.approx(PREDICTED)


def test_a_card_that_scatters_is_told_with_a_wider_interval_than_a_steady_one() -> None:
    steady = learn(Lesson(seconds=1.5 * each) for each in (0.99, 1.0, 1.01) * 4)
    wild = learn(Lesson(seconds=1.5 * each) for each in (0.6, 1.0, 1.5) * 4)
    assert steady.of_render < 0.04 < NOISE < 0.35 < wild.of_render
    assert steady.span(100).high < 110
    assert 150 < wild.span(100).high < 250


def test_one_outlier_does_not_widen_the_interval_of_a_steady_card() -> None:
    steady = [1.0, 1.03, 0.97, 1.02, 0.98, 1.01, 0.99, 1.0, 1.02, 0.98]
    plain, hit = (learn(Lesson(seconds=one) for one in ratios) for ratios in (steady, [9.0, *steady]))
    assert hit.span(1.0).high < 1.15 * plain.span(1.0).high


@given(st.lists(st.floats(0.01, 100.0), max_size=30), st.floats(0.1, 1e5))
def test_an_interval_is_about_its_prediction(ratios: list[float], seconds_: float) -> None:
    learned = learn(Lesson(seconds=ratio) for ratio in ratios)
    span = learned.span(seconds_)
    assert 0 < span.low < span.likely == seconds_ < span.high
    assert span.low * span.high == pytest.approx(seconds_**2)
    assert learned.of_card <= PRIOR


def test_a_card_s_own_bench_comes_before_the_catalogue_and_renders_push_it_out(tmp_path: Path) -> None:
    setting = {"name": "standard", "width": 512, "height": 512, "frames": 16, "steps": 50, "guidance": 9.0}
    one = {"at": "2026-11-20T10:00:00+00:00", "card": "RTX 3060", "model": "i2vgen-xl", "setting": setting}
    rows: list[dict[str, object]] = [
        one | {"card_id": "GPU-1", "plan": asdict(PLAN), "total_s": 2 * PREDICTED, "peak_gib": PEAK},
        one | {"card_id": "GPU-1", "plan": None, "failure": "out of memory"},
        one | {"card_id": "GPU-2", "plan": asdict(PLAN), "total_s": 99 * PREDICTED},
    ]
    file = tmp_path / "bench.jsonl"
    file.write_text("\n".join([*map(json.dumps, rows), "not JSON"]))
    bench = bench_lessons(read_bench(file), I2VGEN, CARD)
    own = learn([], bench)
    assert (own.basis, own.renders, own.benches) == ("calibrated", 0, 1)
    assert own.seconds == pytest.approx(2**0.88, rel=0.01)
    assert own.peak == pytest.approx(1.0)
    assert learn([Lesson(seconds=2.0)] * 2, bench).basis == "measured"
    assert learn([Lesson(seconds=1.0)] * LAST, bench).benches == 0
    assert learn([], []).basis == "catalogue"
    assert read_bench(tmp_path / "none") == []


# --- interpolation, and what loading a model takes ---
SMOOTHED = replace(STANDARD, smooth=24)
INTERPOLATED = interpolation_seconds(interpolator(), SMOOTHED)


def interpolated(factor: float, **more: object) -> Attempt:
    parts = {"interpolate": INTERPOLATED * factor - 1.0, "encode": 1.0}
    one = replace(FINISHED, stage=StageKind.INTERPOLATE, stage_seconds=parts, peak_gib=None)
    return replace(one, **more)  # type: ignore[arg-type]  # names of fields


def test_an_interpolation_teaches_how_quick_its_card_s_pc_is() -> None:
    """One processor's measured time stood for all PCs, however often theirs was seen."""
    lesson = lesson_of_interpolation(interpolated(2.5), SMOOTHED)
    assert lesson is not None
    assert lesson.seconds == pytest.approx(2.5)
    assert lesson_of_interpolation(interpolated(2.5, disturbed=True), SMOOTHED) is None
    assert lesson_of_interpolation(interpolated(2.5, status=AttemptStatus.LOST), SMOOTHED) is None
    assert lesson_of_interpolation(interpolated(2.5, stage_seconds={}), SMOOTHED) is None


def test_what_was_learned_of_interpolating_counts_for_that_stage_and_that_card_only() -> None:
    name = interpolator().name
    slow = learn(lesson_of_interpolation(interpolated(2.5), SMOOTHED) for _ in range(LAST))
    view = FarmView(MODELS, "off", learned={(CARD.id, name): slow})
    waits = replace(job(SMOOTHED), stage=StageKind.INTERPOLATE)
    assert worked_by(SMOOTHED, StageKind.INTERPOLATE) == name
    assert learned_for(view.learned, waits, CARD.id) == slow
    assert learned_for(view.learned, waits, "GPU-2") == UNLEARNED
    assert check(waits, CARD, view).seconds == pytest.approx(INTERPOLATED * slow.seconds)
    assert slow.seconds == pytest.approx(2.5, rel=0.02)
    assert check(job(SMOOTHED), CARD, view).seconds == pytest.approx(PREDICTED)


def test_loads_teach_what_changing_the_model_costs() -> None:
    guessed = load_seconds(I2VGEN)
    assert learn_load([], I2VGEN) == (1.0, 0)
    once, many = (
        learn_load([3 * guessed], I2VGEN),
        learn_load([3 * guessed, guessed / 50, 3 * guessed, 3.1 * guessed, 2.9 * guessed], I2VGEN),
    )
    assert (once[1], many[1]) == (1, 5)
    assert 2.0 < once[0] < many[0]
    assert many[0] == pytest.approx(3.0, rel=0.1), "the median: one load from the PC's memory changes little"
    assert learn_load([1.0] * 50, I2VGEN)[1] == LAST
    assert learn_load([5.0], MODELS["animatic"]) == (1.0, 0), "it has no weights to load"
