"""What a render would come to on a card before it runs, and how `farm plan` says it."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from farm.catalogue.cards import CardRow, cards, named_card
from farm.catalogue.models import builtin_models
from farm.catalogue.presets import presets
from farm.cli.main import app
from farm.cli.plan import lasting, row
from farm.errors import BadInputError
from farm.model import Card, CardKind, MemoryPlan, RenderSettings, Tier
from farm.planning.eligibility import FarmView, bands_of, check
from farm.planning.foresee import foresee, imagined_card
from farm.planning.learned import UNLEARNED, Learned, Lesson, learn
from farm.planning.memory import LAW_WITHIN, peak_gib, peak_range_gib, stage_peaks_gib
from tests.unit.test_eligibility import job

MODELS = builtin_models()
I2VGEN = MODELS["i2vgen-xl"]
CPU = Card("CPU-n1", "n1", CardKind.CPU, "CPU of attic", models=frozenset(MODELS))
CONTRACT = {
    "card", "fits", "eligible", "tier", "reasons", "memory_plan", "peak_gib", "peak_low_gib", "peak_high_gib", "seconds", "basis",
}  # fmt: skip


def preset(name: str) -> RenderSettings:
    one = presets()[name]
    return RenderSettings(
        one.model, one.width, one.height, one.frames, one.steps, one.guidance, one.fps, seed=0
    )


def at(name: str, vram_gb: float | None = None, **more: object) -> Card:
    return replace(imagined_card(name, vram_gb, MODELS), **more)  # type: ignore[arg-type]


def view(*known: Card, **more: object) -> FarmView:
    return FarmView(MODELS, bands=bands_of(known), **more)  # type: ignore[arg-type]


def test_native_fits_a_card_of_six_gb() -> None:
    card = at("RTX 2060")
    (told,) = foresee(preset("native"), [card], view(card))
    assert (told.card, told.usable_gib, told.card_id) == ("RTX 2060 6 GB", 5.4, None)
    assert told.fits
    assert told.eligible
    assert told.reasons == []
    assert told.tier is Tier.QUALITY
    assert told.basis == "catalogue"
    assert 0.3 < told.memory_plan.weights_on_card < 1.0
    assert told.memory_plan.precision == "fp16"
    assert told.peak_gib == pytest.approx(peak_gib(I2VGEN, preset("native"), told.memory_plan), abs=1e-3)
    assert told.peak_low_gib < told.peak_gib <= told.peak_high_gib <= 5.4
    whole = peak_gib(I2VGEN, preset("native"), MemoryPlan())
    streamed = f"{told.memory_plan.weights_on_card:.0%} of the weights stay, the rest streams".replace(
        "%", " %"
    )
    assert told.how_it_fits.startswith(
        f"needs {whole:.1f} GiB whole, RTX 2060 6 GB has 5.4 usable; fits so: {streamed}, large layers in pieces; 1.0"
    )
    assert told.how_it_fits.endswith(" times the seconds")
    (roomy,) = foresee(preset("standard"), [at("RTX 3060")], view(at("RTX 3060")))
    assert roomy.how_it_fits == ""


def test_a_slot_that_is_too_slow_for_the_weights_is_named() -> None:
    """On a riser with one lane streaming does not hide, and the forecast must say so, not only be slower."""
    card = at("RTX 3090", usable_gib=2.0, bus_gb_s=0.8)
    (told,) = foresee(preset("preview"), [card], view(card))
    assert told.how_it_fits.endswith("times the seconds: its slot carries 0.8 GB/s")
    (wide,) = foresee(preset("preview"), [replace(card, bus_gb_s=12.0)], view(card))
    assert wide.how_it_fits.endswith("times the seconds")
    assert told.seconds is not None
    assert wide.seconds is not None
    assert told.seconds > 1.15 * wide.seconds


def test_a_slot_that_costs_nothing_is_not_blamed() -> None:
    """A GTX 1650 in a slot of 16 lanes was slower for its pieces, and its owner was told that the slot is what keeps it."""
    for bus_gb_s in (11.8, 3.0):
        card = at("GTX 1650", bus_gb_s=bus_gb_s)
        (told,) = foresee(preset("native"), [card], view(card), anywhere=True)
        assert told.memory_plan.weights_on_card < 1.0
        assert told.how_it_fits.endswith("1.19 times the seconds")


def test_two_gb_in_single_precision_is_refused_with_what_it_would_take() -> None:
    """The reason named the need in half precision, 1.2 GiB, less than the 1.4 that the card has."""
    card = at("GTX 1050")
    (told,) = foresee(preset("standard"), [card], view(card))
    assert not told.fits
    assert not told.eligible
    assert told.reasons == ["needs 2.4 GiB in single precision, GTX 1050 2 GB has 1.4 usable"]
    assert told.advice == "Choose a smaller model: no size of i2vgen-xl fits."
    assert told.memory_plan.precision == "fp32"
    assert told.peak_gib == pytest.approx(2.39, abs=0.01)
    assert told.seconds is None


def test_a_clip_that_is_too_large_is_answered_with_frames_that_fit() -> None:
    card = at("RTX 2060", usable_gib=2.0)
    (told,) = foresee(replace(preset("native"), frames=64), [card], view(card))
    assert not told.fits
    frames = int(told.advice.split(" frames")[0].removeprefix("Ask for "))
    for number, fits in ((frames, True), (frames + 1, False)):
        (again,) = foresee(replace(preset("native"), frames=number), [card], view(card))
        assert again.fits is fits


def test_where_one_frame_alone_would_fit_another_size_is_advised() -> None:
    """It said "Ask for 1 frames", which would be no clip."""
    square = replace(preset("svd"), model="svd-xt", width=896, height=896, frames=25)
    (told,) = foresee(square, [at("GTX 970")], view(at("GTX 970")))
    assert not told.fits
    assert told.advice == "Ask for a smaller size or a smaller model."


def test_too_little_memory_of_the_pc_is_said_as_that() -> None:
    """The reason said that the card lacks memory, of which it had more than the need."""
    card = at("RTX 2060", usable_gib=2.0, ram_gib=4.0)
    (told,) = foresee(preset("standard"), [card], view(card))
    assert told.reasons == [
        "its PC has 1.0 GiB of memory to spare for it (of 4.0), too little for the weights that RTX 2060 6 GB cannot hold"
    ]


def test_a_draft_needs_no_memory_on_any_card() -> None:
    known = [at("GTX 1050"), CPU]
    for told in foresee(preset("draft"), known, view(*known)):
        assert told.fits
        assert told.eligible
        assert (told.peak_low_gib, told.peak_gib, told.peak_high_gib) == (0.0, 0.0, 0.0)
        assert told.basis == "catalogue"
        assert told.seconds == pytest.approx(0.4 + 0.05 * 16 * 512 * 512 / 1e6, abs=0.01)


def test_a_cpu_does_not_hold_what_needs_a_gpu() -> None:
    (told,) = foresee(preset("standard"), [CPU], view(CPU))
    assert (told.fits, told.eligible, told.seconds) == (False, False, None)
    assert "i2vgen-xl needs a GPU, CPU of attic is a CPU" in told.reasons
    assert "'draft'" in told.advice


def test_the_best_card_comes_first_and_those_that_take_it_before_all_others() -> None:
    known = [CPU, at("GTX 1050"), at("RTX 2060"), at("RTX 3060"), at("RTX 3090", trouble="its fan is dead")]
    told = foresee(preset("native"), known, view(*known))
    assert [one.card.rsplit(" ", 2)[0] for one in told][:3] == ["RTX 3060", "RTX 3090", "RTX 2060"]
    assert [one.eligible for one in told] == [True, False, False, False, False]
    assert [one.fits for one in told] == [True, True, True, False, False]
    assert "its fan is dead" in told[1].reasons
    assert "it is quality work, RTX 2060 6 GB is kept for post work" in told[2].reasons
    assert "`--anywhere`" in told[2].advice
    anywhere = foresee(preset("native"), known, view(*known), anywhere=True)
    assert [one.card for one in anywhere if one.eligible] == ["RTX 3060 12 GB", "RTX 2060 6 GB"]


def test_what_attempts_taught_counts() -> None:
    card = at("RTX 3060", id="GPU-1")
    plain = foresee(preset("standard"), [card], view(card))[0]
    learned = Learned(seconds=2.0, peak=1.02, renders=3)
    taught = foresee(preset("standard"), [card], view(card, learned={("GPU-1", "i2vgen-xl"): learned}))[0]
    assert (plain.basis, taught.basis, taught.card_id) == ("catalogue", "measured", "GPU-1")
    assert plain.seconds is not None
    assert taught.seconds == pytest.approx(2 * plain.seconds, abs=0.02)
    assert taught.peak_gib == pytest.approx(1.02 * plain.peak_gib, abs=0.002)


def test_the_interval_of_the_seconds_is_what_was_learned_s() -> None:
    card = at("RTX 3060", id="GPU-1")
    learned = Learned(seconds=2.0, renders=3, of_card=0.05, of_render=0.1)
    (told,) = foresee(preset("standard"), [card], view(card, learned={("GPU-1", "i2vgen-xl"): learned}))
    assert told.seconds is not None
    span = learned.span(told.seconds)
    assert (told.seconds_low, told.seconds_high) == (
        pytest.approx(span.low, abs=0.02),
        pytest.approx(span.high, abs=0.02),
    )


def test_the_seconds_may_be_off_by_less_with_every_render() -> None:
    widths = [learn([Lesson(seconds=1.5)] * renders).span(1.0).high for renders in range(13)]
    assert UNLEARNED.span(1.0).high == widths[0] == pytest.approx(2.09, abs=0.01)
    assert widths == sorted(widths, reverse=True)
    assert widths[1] == pytest.approx(1.47, abs=0.01)
    assert widths[12] < 1.06


def test_the_range_of_the_peak_is_from_the_least_that_was_kept_to_where_the_worker_holds_it() -> None:
    plan = MemoryPlan()
    low, high = peak_range_gib(I2VGEN, preset("standard"), plan)
    assert low == pytest.approx(
        (1 - LAW_WITHIN) * max(stage_peaks_gib(I2VGEN, preset("standard"), plan, least=True).values())
    )
    assert high == pytest.approx(1.05 * peak_gib(I2VGEN, preset("standard"), plan))
    assert peak_range_gib(MODELS["animatic"], preset("draft"), plan) == (0.0, 0.0)


@given(st.sampled_from(cards()), st.sampled_from(sorted(presets())), st.integers(1, 14))
def test_a_forecast_is_the_schedulers_own_verdict(card_row: CardRow, name: str, frames: int) -> None:
    card = at(card_row.name, card_row.vram_gb)
    settings = replace(preset(name), frames=frames)
    (told,) = foresee(settings, [card], view(card))
    verdict = check(job(settings), card, view(card))
    assert told.eligible is verdict.eligible
    assert told.peak_low_gib <= told.peak_gib <= told.peak_high_gib
    assert bool(told.reasons) is not told.eligible
    assert card.usable_gib is not None
    assert told.fits is (told.peak_gib <= card.usable_gib)
    assert (told.seconds is None) is not told.fits
    if told.fits:
        assert told.memory_plan == verdict.plan
        assert told.peak_high_gib <= max(card.usable_gib, 0.0)


@pytest.mark.parametrize(
    ("name", "vram_gb", "gb"),
    [
        ("RTX 2060", None, 6),
        ("rtx2060", 12, 12),
        ("NVIDIA GeForce RTX 2060 12 GB", None, 12),
        ("RTX 3050", None, 8),
        ("RTX 3060", None, 12),
        ("GTX 1050", None, 2),
    ],
)
def test_a_bare_name_means_the_usual_size(name: str, vram_gb: float | None, gb: int) -> None:
    assert named_card(name, vram_gb).vram_gb == gb


def test_an_unknown_card_is_told_its_neighbours_and_an_unknown_size_its_sizes() -> None:
    with pytest.raises(BadInputError) as unknown:
        named_card("RTX 2061")
    assert unknown.value.field == "card"
    assert "RTX 2060" in unknown.value.remedy
    for name, size in (("RTX 2060", 9), ("RTX 2060 9GB", None)):
        with pytest.raises(BadInputError) as wrong:
            named_card(name, size)
        assert wrong.value.remedy == "The catalogue has it with 6 GB and 12 GB."


def test_the_command_needs_no_farm_for_a_card_of_the_catalogue() -> None:
    done = CliRunner().invoke(app, ["plan", "--card", "RTX 2060", "--preset", "native", "--json"])
    assert done.exit_code == 0, done.output
    (told,) = json.loads(done.stdout)
    assert set(told) >= CONTRACT
    assert told["fits"] is True
    assert 0.0 < told["memory_plan"]["weights_on_card"] < 1.0


def test_a_forecast_is_said_in_a_persons_words() -> None:
    card = at("RTX 2060")
    (told,) = foresee(preset("standard"), [card], view(card))
    assert row(told.model_copy(update={"seconds": 118.0})) == [
        "RTX 2060 6 GB",
        "fits",
        f"{told.peak_gib:.1f} of 5.4 GiB",
        f"{told.memory_plan.weights_on_card * 100:.0f} % of the weights stay, the rest streams",
        f"about 1 min 58 s ({lasting(told.seconds_low or 0)} to {lasting(told.seconds_high or 0)})",
    ]
    small = at("GTX 1050")
    (told,) = foresee(preset("standard"), [small], view(small))
    assert row(told)[:3] == ["GTX 1050 2 GB", "does not fit", "needs 2.4 GiB, has 1.4 GiB"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.61, "0.6 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (118, "1 min 58 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_lasting(seconds: float, said: str) -> None:
    assert lasting(seconds) == said
