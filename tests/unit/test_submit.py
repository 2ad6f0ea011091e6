"""Submitted settings: what is filled in, and every fault in a sentence that names its field."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.models import builtin_models
from farm.catalogue.presets import presets
from farm.errors import BadInputError, BadSettingsError
from farm.model import RenderSettings, Tier
from farm.submit import Submission, parse_settings

SEED = 4_242


def parse(raw: Any, default: str = "draft") -> Submission:
    return parse_settings(
        raw, models=builtin_models(), presets=presets(), default_preset=default, random_seed=SEED
    )


def faults(raw: Any) -> dict[str, str]:
    """What is wrong, by field."""
    with pytest.raises(BadInputError) as caught:
        parse(raw)
    error = caught.value
    found = error.errors if isinstance(error, BadSettingsError) else (error,)
    for each in found:
        for leak in ("Input should", "pydantic", "_type", "Traceback", "Extra inputs"):
            assert leak not in str(each)
    assert len({each.field for each in found}) == len(found)
    return {each.field: str(each) for each in found}


PROMPT = {"preset": "standard", "prompt": "waves"}


def test_nothing_sent_is_the_default_preset() -> None:
    draft = RenderSettings("animatic", 512, 512, frames=16, steps=1, guidance=1.0, fps=8, seed=SEED)
    expected = Submission(draft, Tier.PREVIEW, "draft", priority=0, anywhere=False)
    assert parse({}) == parse("{}") == parse(b" {} ") == parse("") == expected


def test_a_preset_and_what_overrides_it() -> None:
    plain = parse({"preset": "quality", "prompt": "waves"})
    assert plain.settings == RenderSettings(
        "i2vgen-xl", 768, 768, frames=16, steps=80, guidance=9.0, fps=8, seed=SEED, prompt="waves"
    )
    assert (plain.tier, plain.preset) == (Tier.QUALITY, "quality")
    changed = parse(
        {
            "preset": "quality",
            "prompt": " waves\n roll ",
            "negative_prompt": "blur",
            "width": 512,
            "height": 512,
            "steps": 50,
            "guidance": 5,
            "fps": 12,
            "frames": 8,
            "seed": 0,
            "motion": "zoom-in",
            "strength": 0.5,
            "priority": 3,
            "anywhere": True,
        }
    )
    assert changed == Submission(
        RenderSettings("i2vgen-xl", 512, 512, 8, 50, 5.0, 12, 0, "waves roll", "blur", "zoom-in", 0.5),
        Tier.PREVIEW,
        "quality",
        priority=3,
        anywhere=True,
    )


def test_a_model_named_alone_begins_with_its_first_preset() -> None:
    alone = parse({"model": "i2vgen-xl", "prompt": "waves"})
    assert alone.preset is None
    assert (alone.settings.model, alone.settings.frames, alone.settings.steps) == ("i2vgen-xl", 8, 30)
    assert parse({"model": "i2vgen-xl", "prompt": "waves"}, default="standard").settings.frames == 16


def test_a_model_beside_a_preset_takes_the_presets_numbers() -> None:
    both = parse({"preset": "standard", "model": "animatic"})
    assert (both.settings.model, both.settings.steps, both.preset) == ("animatic", 50, "standard")


def test_null_is_the_same_as_not_sent() -> None:
    assert parse(dict.fromkeys(("width", "seed", "prompt", "preset", "anywhere"))) == parse({})


def test_a_draft_needs_no_prompt() -> None:
    assert parse({"preset": "draft", "prompt": "  "}).settings.prompt == ""


@pytest.mark.parametrize(
    ("sent", "field", "words"),
    [
        ({"width": 500}, "width", "Width must be a multiple of 8 pixels, not 500. Nearest: 496 or 504."),
        (
            {"height": 1919},
            "height",
            "Height must be a multiple of 8 pixels, not 1919. Nearest: 1912 or 1920.",
        ),
        ({"width": 8}, "width", "Width must be between 64 and 1920 pixels for animatic, not 8."),
        ({"width": -512}, "width", "Width must be between 64 and 1920 pixels for animatic, not -512."),
        ({"frames": 0}, "frames", "Frames must be between 1 and 240 for animatic, not 0."),
        ({"frames": 1_000_000}, "frames", "Frames must be between 1 and 240 for animatic, not 1000000."),
        ({"frames": 10**400}, "frames", "Frames must be between 1 and 240 for animatic, not a huge number."),
        ({"steps": 0}, "steps", "Steps must be between 1 and 500 for animatic, not 0."),
        ({"fps": 61}, "fps", "Fps must be between 1 and 60, not 61."),
        ({"fps": 0}, "fps", "Fps must be between 1 and 60, not 0."),
        ({"guidance": -0.1}, "guidance", "Guidance must be between 0 and 30, not -0.1."),
        ({"guidance": float("nan")}, "guidance", "Guidance must be between 0 and 30, not NaN."),
        ({"guidance": float("inf")}, "guidance", "Guidance must be between 0 and 30, not infinity."),
        ({"strength": 2.5}, "strength", "Strength must be between 0 and 2, not 2.5."),
        ({"seed": -1}, "seed", "Seed must be between 0 and 4294967295, not -1."),
        ({"seed": 2**32}, "seed", "Seed must be between 0 and 4294967295, not 4294967296."),
        ({"priority": 101}, "priority", "Priority must be between -100 and 100, not 101."),
        ({"frames": "16"}, "frames", "Frames must be a whole number, not the text '16'."),
        ({"frames": 16.5}, "frames", "Frames must be a whole number, not 16.5."),
        ({"frames": True}, "frames", "Frames must be a whole number, not true."),
        ({"frames": [16]}, "frames", "Frames must be a whole number, not a list."),
        ({"guidance": "9"}, "guidance", "Guidance must be a number, not the text '9'."),
        ({"guidance": False}, "guidance", "Guidance must be a number, not false."),
        ({"prompt": 7}, "prompt", "Prompt must be text, not 7."),
        ({"prompt": {"a": 1}}, "prompt", "Prompt must be text, not an object."),
        ({"anywhere": 1}, "anywhere", "Anywhere must be true or false, not 1."),
        ({"anywhere": "yes"}, "anywhere", "Anywhere must be true or false, not the text 'yes'."),
        (
            {"prompt": "a\0b"},
            "prompt",
            "Prompt holds control characters, such as NUL or half of an emoji. "
            "Type it anew, or paste it as plain text.",
        ),
        (
            {"negative_prompt": "\ud83d"},
            "negative_prompt",
            "Negative prompt holds control characters, such as NUL or half of an emoji. "
            "Type it anew, or paste it as plain text.",
        ),
        (
            {"prompt": "x" * 10_000},
            "prompt",
            "Prompt has 10,000 characters; the limit is 2,000. "
            "Models read about the first 75 words only: say it shorter.",
        ),
        (
            {"preset": "standart"},
            "preset",
            f"There is no preset called 'standart'. Did you mean 'standard'? Known: {', '.join(presets())}.",
        ),
        (
            {"model": "i2vgen"},
            "model",
            "There is no model called 'i2vgen'. Did you mean 'i2vgen-xl'? Known: animatic, i2vgen-xl, svd, svd-xt.",
        ),
        ({"motion": "zoom"}, "motion", None),
        ({"widht": 512}, "widht", None),
    ],
)
def test_each_fault_in_words(sent: dict[str, Any], field: str, words: str | None) -> None:
    found = faults(sent)
    assert list(found) == [f"settings.{field}"]
    if words is not None:
        assert found[f"settings.{field}"] == words


def test_an_unknown_setting_is_named_with_the_nearest_known_one() -> None:
    text = faults({"widht": 512})["settings.widht"]
    assert text.startswith("There is no setting called 'widht'. Did you mean 'width'? Known: preset, model, ")


def test_a_motion_is_suggested() -> None:
    text = faults({"motion": "zoom_in"})["settings.motion"]
    assert text.startswith("There is no motion called 'zoom_in'. Did you mean 'zoom-in'? Known: auto, ")


@pytest.mark.parametrize("prompt", ["", " \n\t ", None])
def test_a_model_that_needs_a_prompt_says_so(prompt: str | None) -> None:
    text = faults({"preset": "standard", "prompt": prompt})["settings.prompt"]
    assert text.startswith("The model i2vgen-xl needs a prompt, and it is empty. Say in a few words")


def test_too_many_pixels_in_all() -> None:
    assert faults({**PROMPT, "width": 1920, "height": 1080}) == {
        "settings.width": "1920 x 1080 is more than i2vgen-xl takes: at most 1,048,576 pixels in all. "
        "At this width, height may be up to 544."
    }
    assert parse({**PROMPT, "width": 1920, "height": 544}).settings.height == 544


def test_a_side_just_over_the_limit_of_a_model() -> None:
    assert "between 256 and 1920 pixels for i2vgen-xl" in faults({**PROMPT, "width": 248})["settings.width"]


def test_all_faults_are_said_at_once() -> None:
    found = faults(
        {
            "preset": "standard",
            "width": 500,
            "height": "tall",
            "frames": 0,
            "guidance": float("nan"),
            "seed": -1,
            "color": "red",
        }
    )
    expected = ("height", "color", "guidance", "seed", "width", "frames", "prompt")
    assert set(found) == {f"settings.{name}" for name in expected}


def test_with_an_unknown_model_the_rest_is_still_checked() -> None:
    assert set(faults({"model": "sora", "fps": 0, "prompt": "a\0"})) == {
        "settings.model",
        "settings.fps",
        "settings.prompt",
    }


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("{", "The settings are not valid JSON (at line 1, column 2)."),
        ("width=512", "The settings are not valid JSON (at line 1, column 1)."),
        ("[1]", "The settings are a list, not a JSON object."),
        ("7", "The settings are 7, not a JSON object."),
        ("null", "The settings are null, not a JSON object."),
        (b"\xff\xfe\xfa", "The settings are not UTF-8 text."),
        ("[" * 100_000, "The settings are nested too deep."),
        ('{"seed":' + "9" * 5000 + "}", "The settings hold a number that is too long to read."),
        ('{"prompt": "' + "x" * 300_000 + '"}', "The settings are larger than 256 KiB."),
        ('{"width": 512, "width": 256}', "The settings name 'width' twice."),
    ],
)
def test_what_is_not_an_object_of_settings(raw: str | bytes, words: str) -> None:
    found = faults(raw)
    assert list(found) == ["settings"]
    assert found["settings"].startswith(words)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_in_json(number: str) -> None:
    assert list(faults(f'{{"guidance": {number}}}')) == ["settings.guidance"]


VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.lists(st.integers(), max_size=2)
)
KEYS = st.sampled_from(
    [
        *("preset", "model", "prompt", "negative_prompt", "width", "height", "frames", "steps"),
        *("guidance", "fps", "smooth", "seed", "motion", "strength", "priority", "anywhere", "colour", ""),
    ]
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_anything_at_all_is_a_submission_within_the_limits_or_a_clear_refusal(sent: dict[str, Any]) -> None:
    try:
        settings = parse(sent).settings
    except BadSettingsError:
        assert all(field.startswith("settings.") for field in faults(sent))
        return
    limits = builtin_models()[settings.model].limits
    assert limits.min_side <= settings.width <= limits.max_side
    assert settings.width % limits.multiple == 0
    assert 1 <= settings.frames <= limits.max_frames
    assert 0 <= settings.guidance <= 30
    assert parse(json.dumps(sent)) == parse(sent)


@given(st.integers(32, 131).map(lambda n: n * 8), st.integers(1, 64), st.integers(0, 2**32 - 1))
def test_what_is_allowed_arrives_unchanged(side: int, frames: int, seed: int) -> None:
    sent = {**PROMPT, "width": side, "height": 512, "frames": frames, "seed": seed}
    expected = replace(parse(PROMPT).settings, width=side, frames=frames, seed=seed)
    assert parse(json.dumps(sent)).settings == expected


@pytest.mark.parametrize(("model", "preset"), [("svd", "svd"), ("svd-xt", None)])
def test_a_model_without_a_prompt_asks_for_none_and_begins_with_numbers_of_its_kind(
    model: str, preset: str | None
) -> None:
    """With the usual preset's guidance of 9 SVD burns out its colours."""
    found = parse({"preset": preset} if preset else {"model": model})
    row = presets()["svd"]

    assert found.settings.model == model
    assert found.settings.prompt == ""
    assert found.preset == preset
    for name in ("width", "height", "frames", "steps", "guidance", "fps"):
        assert getattr(found.settings, name) == getattr(row, name)


def test_a_farm_s_own_model_of_the_usual_preset_s_kind_begins_with_that_preset() -> None:
    own = {**builtin_models(), "mine": replace(builtin_models()["i2vgen-xl"], name="mine")}
    sent = {"model": "mine", "prompt": "a fox"}
    found = parse_settings(sent, models=own, presets=presets(), default_preset="quality", random_seed=1)

    assert (found.settings.model, found.settings.width, found.settings.steps) == ("mine", 768, 80)


def test_a_clip_is_smoothed_where_preset_or_option_say_so_and_0_says_no() -> None:
    assert parse({"preset": "draft"}).settings.smooth is None
    assert parse({"preset": "draft", "smooth": 24}).settings.smooth == 24
    asked = parse({"preset": "smooth", "prompt": "waves"})
    assert (asked.settings.frames, asked.settings.fps, asked.settings.smooth) == (8, 8, 24)
    assert (asked.preset, asked.tier) == ("smooth", Tier.PREVIEW)
    assert parse({"preset": "smooth", "prompt": "waves", "smooth": 60}).settings.smooth == 60
    assert parse({"preset": "smooth", "prompt": "waves", "smooth": 0}).settings.smooth is None


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (
            {"preset": "draft", "smooth": 8},
            "Smooth must be above the clip's own 8 fps, not 8. "
            "Leave smooth out, or send 0, for a clip as it is, or ask for 9 to 60 fps.",
        ),
        (
            {"preset": "smooth", "prompt": "waves", "fps": 30},
            "Smooth must be above the clip's own 30 fps, not 24. "
            "Leave smooth out, or send 0, for a clip as it is, or ask for 31 to 60 fps.",
        ),
        (
            {"preset": "draft", "fps": 60, "smooth": 60},
            "Smooth must be above the clip's own 60 fps, not 60. Leave smooth out, or send 0, for a clip as it is.",
        ),
        (
            {"preset": "draft", "fps": 7, "smooth": 57},
            "Smooth may be up to 8 times the clip's own 7 fps: 56, not 57. "
            "Ask for less, or let the model make more frames at a higher fps.",
        ),
        (
            {"preset": "draft", "frames": 1, "smooth": 24},
            "A clip of one frame cannot be smoothed to 24 fps: there is nothing in between. "
            "Ask for more frames. Leave smooth out, or send 0, for a clip as it is.",
        ),
        ({"preset": "draft", "smooth": 61}, "Smooth must be between 0 and 60, not 61."),
        ({"preset": "draft", "smooth": -1}, "Smooth must be between 0 and 60, not -1."),
        ({"preset": "draft", "smooth": 24.5}, "Smooth must be a whole number, not 24.5."),
        ({"preset": "draft", "smooth": True}, "Smooth must be a whole number, not true."),
    ],
)
def test_smoothing_that_makes_no_sense_is_refused(sent: dict[str, Any], expected: str) -> None:
    assert faults(sent) == {"settings.smooth": expected}


@pytest.mark.parametrize(("fps", "smooth"), [(8, 9), (7, 56), (8, 60), (59, 60), (1, 8)])
def test_smoothing_within_the_limits_is_taken(fps: int, smooth: int) -> None:
    assert parse({"preset": "draft", "fps": fps, "smooth": smooth}).settings.smooth == smooth


def test_a_wrong_rate_is_told_once_and_not_held_against_the_smoothing_too() -> None:
    assert list(faults({"preset": "draft", "fps": 0, "smooth": 24})) == ["settings.fps"]
