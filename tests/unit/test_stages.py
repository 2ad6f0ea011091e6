"""Which stages a job has, and what each leaves, by value."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.interpolators import InterpolationTime, InterpolatorRow, interpolator, interpolators
from farm.catalogue.presets import presets
from farm.model import StageKind
from farm.planning.interpolation import interpolation_seconds, new_frames
from farm.stages import ClipShape, clip_fps, clip_frames, delivered, stage_after, stage_before, stages_of
from tests.storage import SETTINGS

GENERATE, INTERPOLATE = StageKind.GENERATE, StageKind.INTERPOLATE
SMOOTH = replace(SETTINGS, smooth=24)


def test_only_a_job_that_is_smoothed_has_a_second_stage() -> None:
    assert stages_of(SETTINGS) == (GENERATE,)
    assert (stage_before(SETTINGS, GENERATE), stage_after(SETTINGS, GENERATE)) == (None, None)
    assert stages_of(SMOOTH) == (GENERATE, INTERPOLATE)
    assert (stage_before(SMOOTH, GENERATE), stage_after(SMOOTH, GENERATE)) == (None, INTERPOLATE)
    assert (stage_before(SMOOTH, INTERPOLATE), stage_after(SMOOTH, INTERPOLATE)) == (GENERATE, None)


def test_a_stage_in_between_leaves_all_colours_and_the_last_one_what_browsers_play() -> None:
    assert delivered(SETTINGS, GENERATE) == ClipShape(128, 96, 8, 8, "yuv420p")
    assert delivered(SMOOTH, GENERATE) == ClipShape(128, 96, 8, 8, "yuv444p")
    assert delivered(SMOOTH, INTERPOLATE) == ClipShape(128, 96, 24, 24, "yuv420p")


@pytest.mark.parametrize(
    ("frames", "fps", "smooth", "expected"),
    [
        (8, 8, 24, 24),
        (16, 8, 24, 48),
        (14, 7, 24, 48),
        (8, 7, 24, 27),
        (8, 8, 60, 60),
        (5, 24, 25, 5),
        (2, 1, 8, 16),
    ],
)
def test_the_number_of_frames_keeps_the_playing_time(
    frames: int, fps: int, smooth: int, expected: int
) -> None:
    settings = replace(SETTINGS, frames=frames, fps=fps, smooth=smooth)
    assert (clip_frames(settings), clip_fps(settings)) == (expected, smooth)


@given(st.integers(2, 240), st.integers(1, 60), st.integers(1, 60))
def test_no_clip_is_longer_or_shorter_by_more_than_half_a_frame(frames: int, fps: int, more: int) -> None:
    settings = replace(SETTINGS, frames=frames, fps=fps, smooth=fps + more)
    off = Fraction(clip_frames(settings), fps + more) - Fraction(frames, fps)
    assert abs(off) <= Fraction(1, 2 * (fps + more))
    assert clip_frames(settings) >= frames


def test_the_preset_smooth_is_the_contracts() -> None:
    smooth = presets()["smooth"]
    named = (smooth.model, smooth.width, smooth.height, smooth.frames, smooth.steps, smooth.guidance)
    assert named == ("i2vgen-xl", 512, 512, 8, 30, 7.5)
    assert (smooth.fps, smooth.smooth) == (8, 24)
    assert [name for name, preset in presets().items() if preset.smooth is not None] == ["smooth"]


@pytest.mark.parametrize(
    ("frames", "fps", "smooth", "expected"),
    [
        (8, 8, 24, 14),  # two between each of seven pairs
        (8, 8, 16, 7),
        (16, 8, 60, 105),  # 112 places after the first, of which every 15th is a frame's own
        (2, 1, 8, 7),
        (3, 24, 25, 2),
    ],
)
def test_new_frames_are_those_between_the_models(frames: int, fps: int, smooth: int, expected: int) -> None:
    assert new_frames(replace(SETTINGS, frames=frames, fps=fps, smooth=smooth)) == expected


@given(st.integers(2, 60), st.integers(1, 30), st.integers(1, 30))
def test_new_frames_agree_with_counting_them(frames: int, fps: int, more: int) -> None:
    rate = fps + more
    times = [Fraction(at, rate) for at in range(frames * rate)]
    own = {Fraction(at, fps) for at in range(frames)}
    counted = sum(time < max(own) and time not in own for time in times)
    assert new_frames(replace(SETTINGS, frames=frames, fps=fps, smooth=rate)) == counted


def test_seconds_follow_from_new_frames_the_models_frames_and_the_size() -> None:
    row = InterpolatorRow("x", "X", "x", InterpolationTime(0.5, 0.25))
    settings = replace(SETTINGS, width=1000, height=500, frames=8, fps=8, smooth=24)
    assert interpolation_seconds(row, settings) == pytest.approx(0.5 * (0.5 * 14 + 0.25 * 8))


def test_the_catalogue_has_the_interpolator_that_is_used() -> None:
    assert interpolator() is interpolators()["mci"]
    assert interpolator().time.s_per_new_frame_megapixel > 0
