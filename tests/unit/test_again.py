"""A clip's own description, written and read back: complete, strict, and overruled only by what was asked for."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.again import Recipe, changed, describe, read_recipe, recipe_of
from farm.catalogue.models import builtin_models
from farm.catalogue.presets import presets
from farm.errors import BadInputError
from farm.model import RenderSettings
from farm.submit import MAX_FPS, MAX_SEED, SubmittedSettings, parse_settings
from farm.video import Metadata
from node_agent.encode import encode
from tests.storage import SETTINGS

PICTURE = "ab" * 32
DESCRIBED = describe(SETTINGS, input_sha256=PICTURE, draft=True)


def clip(path: Path, metadata: Metadata) -> Path:
    frames = [np.full((64, 64, 3), 9 * index, np.uint8) for index in range(3)]
    return encode(iter(frames), path, fps=8, width=64, height=64, count=3, metadata=metadata).video


@given(
    st.builds(
        RenderSettings,
        model=st.just("animatic"),
        width=st.sampled_from((256, 512)),
        height=st.sampled_from((256, 512)),
        frames=st.integers(1, 32),
        steps=st.just(1),
        guidance=st.floats(0, 30),
        fps=st.integers(1, MAX_FPS),
        seed=st.integers(0, MAX_SEED),
        prompt=st.text(st.characters(exclude_categories=("C", "Z")), max_size=40),
        negative_prompt=st.sampled_from(("", "blur")),
        motion=st.sampled_from(("auto", "orbit")),
        strength=st.floats(0, 2),
    )
)
def test_what_is_described_is_submitted_as_the_very_same_settings(settings: RenderSettings) -> None:
    recipe = recipe_of(describe(settings, input_sha256=PICTURE, draft=True), "clip.mp4")
    submission = parse_settings(
        changed(recipe, {}),
        models=builtin_models(),
        presets=presets(),
        default_preset="preview",
        random_seed=1,
    )
    assert (submission.settings, recipe.input_sha256) == (settings, PICTURE)


def test_every_setting_of_a_render_can_be_submitted() -> None:
    """A setting that a clip names and a submit refuses would make all its clips impossible to make again."""
    assert {field.name for field in fields(RenderSettings)} <= set(SubmittedSettings.model_fields)


def test_a_clip_tells_its_recipe(tmp_path: Path) -> None:
    settings = replace(SETTINGS, prompt='a "b"; \u732b \\ \u00e4', guidance=7.5)
    path = clip(tmp_path / "v.mp4", describe(settings, input_sha256=PICTURE, draft=False))
    assert read_recipe(path) == Recipe(asdict(settings), PICTURE)


def test_a_clip_of_the_first_farms_which_names_its_job_is_read_too() -> None:
    assert recipe_of({**DESCRIBED, "job": "01J"}, "v.mp4") == recipe_of(DESCRIBED, "v.mp4")


def test_a_setting_that_came_later_has_its_default_in_an_older_clip() -> None:
    older = {name: value for name, value in DESCRIBED.items() if name not in ("motion", "strength")}
    assert recipe_of(older, "v.mp4").settings == asdict(replace(SETTINGS, motion="auto", strength=1.0))


@pytest.mark.parametrize(
    ("metadata", "says", "remedy"),
    [
        ({}, "v.mp4 does not say how it was made", "Submit its picture"),
        ({"title": "holiday"}, "no farm made it", "Submit its picture"),
        (
            {**DESCRIBED, "lens": [1, 2]},
            "by a newer farm: it has settings that this one does not know (lens)",
            "Update",
        ),
        ({**DESCRIBED, "lens": None, "a": {}}, "(a, lens)", "Update"),
        (
            {name: v for name, v in DESCRIBED.items() if name not in ("steps", "seed")},
            "steps, seed cannot",
            "Submit",
        ),
        ({**DESCRIBED, "input_sha256": "../etc"}, "its picture cannot be made out", "Submit its picture"),
        ({**DESCRIBED, "input_sha256": 7}, "its picture cannot be made out", "Submit its picture"),
    ],
)
def test_what_cannot_be_made_again_is_said_with_a_remedy(metadata: Metadata, says: str, remedy: str) -> None:
    with pytest.raises(BadInputError) as caught:
        recipe_of(metadata, "v.mp4")
    assert caught.value.field == "again"
    assert says in caught.value.message
    assert remedy in caught.value.remedy


def test_files_that_are_no_clip(tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    for content in (b"", b"hello", b"GIF89a" + bytes(100), b"\0\0\0\x08moov"):
        text.write_bytes(content)
        with pytest.raises(BadInputError, match=r"notes\.mp4 is not a complete MP4"):
            read_recipe(text)
    with pytest.raises(BadInputError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "gone.mp4")
    with pytest.raises(BadInputError, match="does not say how it was made"):
        read_recipe(clip(tmp_path / "bare.mp4", {}))


def test_options_overrule_the_clip_and_a_preset_stands_for_all_that_it_names() -> None:
    recipe = recipe_of(DESCRIBED, "v.mp4")
    assert changed(recipe, {"prompt": "", "seed": 0, "fps": None}) == {
        **asdict(SETTINGS),
        "prompt": "",
        "seed": 0,
    }
    with_preset = changed(recipe, {"preset": "draft", "frames": 4})
    assert with_preset == {
        "preset": "draft", "frames": 4, "seed": 7, "prompt": "pan left", "negative_prompt": "", "motion": "auto",
        "strength": 1.0,
    }  # fmt: skip
