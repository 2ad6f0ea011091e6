"""The draft model, measured: what moves where and how fast, in pictures whose foreground is known."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from farm.catalogue.models import builtin_models
from farm.errors import CancelledRenderError
from farm.model import MemoryPlan, RenderSettings
from farm.motion import MOTIONS, CameraMove
from node_agent.pipelines.animatic import open_model
from node_agent.pipelines.animatic.camera import BACKDROP, Plane, eased, margins, moment, pose_at, view
from node_agent.pipelines.animatic.layers import fill_behind
from node_agent.pipelines.animatic.subject import find_subject
from node_agent.pipelines.base import Frame, RenderRequest
from tests.pictures import ODD, SCENES, Picture, noise

NAMED = [motion for motion in MOTIONS if motion != "auto"]


class Notes:
    """A `Report` that writes down what it is told; `stop_at` cancels at that step."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[tuple[int, int]] = []
        self.previews: list[bytes] = []
        self.parts: list[str] = []
        self.open_parts = 0
        self._stop_at = stop_at

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.parts.append(name)
        self.open_parts += 1
        try:
            yield
        finally:
            self.open_parts -= 1

    def step(self, done: int, total: int) -> None:
        if done == self._stop_at:
            raise CancelledRenderError("The render was cancelled.")
        self.steps.append((done, total))

    def preview(self, jpeg: bytes) -> None:
        self.previews.append(jpeg)


def request(
    image: Image.Image,
    motion: str,
    size: tuple[int, int],
    frames: int,
    strength: float,
    prompt: str,
    seed: int,
) -> RenderRequest:
    asked = RenderSettings("animatic", *size, frames, 1, 1.0, 8, seed, prompt, "", motion, strength)
    return RenderRequest(asked, image, MemoryPlan())


def clip(
    image: Image.Image,
    motion: str = "auto",
    *,
    size: tuple[int, int] = (256, 256),
    frames: int = 9,
    strength: float = 1.0,
    prompt: str = "",
    seed: int = 0,
    notes: Notes | None = None,
) -> list[Frame]:
    model = open_model(builtin_models()["animatic"], "cpu")
    notes = notes or Notes()
    model.load(MemoryPlan(), notes)
    return list(model.render(request(image, motion, size, frames, strength, prompt, seed), notes))


@cache
def scene(name: str) -> Picture:
    return SCENES[name](384, 384)


@cache
def odd(name: str) -> Image.Image:
    return ODD[name]()


@cache
def subject_before_texture(left: float = 0.5) -> Image.Image:
    """A textured disc before a textured wall of another colour: both layers can be followed exactly."""
    wall = np.stack([noise(384, 384, cell=16, seed=1)] * 3, -1) * 45 + np.array([120, 130, 140])
    disc = np.stack([noise(384, 384, cell=16, seed=2)] * 3, -1) * 45 + np.array([210, 80, 40])
    y, x = np.mgrid[0:384, 0:384]
    inside = np.hypot(x - 384 * left, y - 192) < 75
    return Image.fromarray(np.clip(np.where(inside[..., None], disc, wall), 0, 255).astype(np.uint8))


def flow(first: Frame, last: Frame) -> NDArray[np.float32]:
    """Dense optical flow in pixels, `[height, width, 2]`."""
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, last)]
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)


def layers_flow(first: Frame, last: Frame) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean movement (x, y) of the disc's middle and of the wall level with it, left and right of it."""
    moved = flow(first, last)
    disc = moved[112:144, 112:144].reshape(-1, 2)
    wall = np.concatenate([moved[112:144, 20:50].reshape(-1, 2), moved[112:144, 206:236].reshape(-1, 2)])
    return np.median(disc, 0), np.median(wall, 0)


# --- what moves where ---


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [("pan-left", 0, 1), ("pan-right", 0, -1), ("pan-up", 1, 1), ("pan-down", 1, -1)],
)
def test_a_pan_moves_the_picture_the_other_way_and_the_subject_faster(
    motion: str, axis: int, sign: int
) -> None:
    frames = clip(subject_before_texture(), motion)
    disc, wall = layers_flow(frames[2], frames[6])
    assert sign * wall[axis] > 256 * 0.02
    assert sign * disc[axis] > 1.25 * sign * wall[axis]
    assert abs(disc[1 - axis]) < 0.6
    assert abs(wall[1 - axis]) < 1.0


@pytest.mark.parametrize(("motion", "grows"), [("zoom-in", True), ("zoom-out", False), ("forward", True)])
def test_a_move_ahead_enlarges_the_subject_more_than_the_scene(motion: str, grows: bool) -> None:
    frames = clip(subject_before_texture(), motion)
    first, last = (frames[0], frames[-1]) if grows else (frames[-1], frames[0])
    moved = flow(first, last)
    # Growth per pixel from the middle: the slope of the movement between two places on the same layer.
    disc = (np.median(moved[120:136, 150:160, 0]) - np.median(moved[120:136, 96:106, 0])) / 54
    wall = (np.median(moved[120:136, 215:225, 0]) - np.median(moved[120:136, 31:41, 0])) / 184
    assert wall > 0.04
    assert disc > wall + 0.015


def test_an_orbit_holds_the_subject_and_turns_the_scene() -> None:
    frames = clip(subject_before_texture(), "orbit")
    disc, wall = layers_flow(frames[0], frames[-1])
    assert abs(disc[0]) < 0.02 * 256
    assert abs(wall[0]) > 0.025 * 256


@pytest.mark.parametrize(
    ("prompt", "motion"),
    [("zoom", "zoom-in"), ("pan left", "pan-left"), ("walking forward", "forward"), ("zoom out", "zoom-out")],
)
def test_the_prompts_words_do_what_the_setting_does(prompt: str, motion: str) -> None:
    by_word, by_name = clip(subject_before_texture(), prompt=prompt), clip(subject_before_texture(), motion)
    assert np.array_equal(by_word, by_name)


def test_more_strength_moves_farther() -> None:
    far = [
        layers_flow(*clip(subject_before_texture(), "pan-left", strength=s)[3:6:2])[0][0]
        for s in (0.5, 1.0, 2.0)
    ]
    assert far[1] == pytest.approx(2 * far[0], rel=0.2)
    assert far[2] == pytest.approx(4 * far[0], rel=0.2)


def test_the_seed_turns_an_unasked_orbit_round_and_changes_nothing_else() -> None:
    picture = subject_before_texture()
    ways = [layers_flow(*clip(picture, seed=seed)[::8])[1][0] for seed in (0, 1)]
    assert ways[0] == pytest.approx(-ways[1], rel=0.2)
    assert abs(ways[0]) > 5
    assert np.array_equal(clip(picture, "pan-left", seed=0), clip(picture, "pan-left", seed=1))


def test_the_move_begins_and_ends_slowly() -> None:
    frames = clip(subject_before_texture(), "pan-left", frames=17, strength=1.5)
    speeds = [float(layers_flow(a, b)[1][0]) for a, b in pairwise(frames)]
    middle = np.mean(speeds[6:10])
    assert speeds[0] < 0.35 * middle
    assert speeds[-1] < 0.35 * middle
    assert middle == pytest.approx(max(speeds), rel=0.15)


# --- what must not be seen ---


@pytest.mark.parametrize("name", SCENES)
def test_the_subject_is_found(name: str) -> None:
    picture = scene(name)
    found = find_subject(np.asarray(picture.image))
    assert found is not None
    mask = found.alpha > 0.5
    overlap = (mask & picture.foreground).sum() / (mask | picture.foreground).sum()
    assert overlap > 0.85
    assert found.certainty > 0.5


@pytest.mark.parametrize("name", ["flat", "black", "gradient", "noise"])
def test_no_subject_is_made_up(name: str) -> None:
    assert find_subject(np.asarray(odd(name))) is None


@pytest.mark.parametrize("name", SCENES)
def test_nothing_of_the_subject_stays_behind(name: str) -> None:
    """The rim of the subject, left in the scene, shows as a second outline as soon as the layers part."""
    picture = scene(name)
    pixels = np.asarray(picture.image)
    marked = pixels.copy()
    marked[picture.foreground] = (255, 0, 255)  # the subject as it is, but in a colour that is nowhere else
    alpha = picture.foreground.astype(np.float32)
    filled = fill_behind(marked, alpha).astype(int)
    tinted = (filled[..., 0] > 150) & (filled[..., 2] > 150) & (filled[..., 1] < 90)
    assert not tinted.any()
    away = cv2.dilate(alpha, np.ones((25, 25))) == 0
    assert np.array_equal(filled[away], pixels[away])


@pytest.mark.parametrize("motion", NAMED)
def test_no_border_shows(motion: str) -> None:
    """Outside the picture there is nothing (black) or its outermost line repeated (a smear); neither may be in a frame."""
    image = Image.fromarray(np.clip(np.asarray(subject_before_texture()), 60, 200))
    for frame in clip(image, motion, strength=2.0):
        lines = [frame[0], frame[-1], frame[:, 0], frame[:, -1]]
        assert min(line.min() for line in lines) > 30
        further_in = [frame[3], frame[-4], frame[:, 3], frame[:, -4]]
        for line, other in zip(lines, further_in, strict=True):
            assert np.abs(line.astype(int) - other).mean() > 0.5


@given(
    st.sampled_from(NAMED),
    st.floats(0, 2),
    st.sampled_from([(64, 64), (512, 512), (64, 1920), (1920, 64), (1280, 704)]),
    st.floats(0.5, 1.0),
    st.floats(-0.32, 0.0),
)
@settings(max_examples=60)
def test_the_margin_covers_every_frame(
    motion: str, strength: float, size: tuple[int, int], near: float, slope: float
) -> None:
    """For the scene and for every plane that a subject can be given."""
    move = CameraMove(motion, strength)
    unit = (size[0] * size[1]) ** 0.5
    u, v = size[0] / unit / 2, size[1] / unit / 2
    planes = (BACKDROP, Plane(1.0))
    need = [
        margins(move, planes[: 1 + with_subject], 9, *size, focus=float(with_subject))
        for with_subject in (0, 1)
    ]
    half = max(n.half_width for n in need), max(n.half_height for n in need)
    corners = np.array([[-u, u, u, -u], [-v, -v, v, v], [1, 1, 1, 1]])
    for index in range(9):
        seen = np.linalg.inv(view(BACKDROP, pose_at(move, moment(index, 9), focus=near))) @ corners
        assert np.abs(seen[0] / seen[2]).max() <= half[0] + 1e-6
        assert np.abs(seen[1] / seen[2]).max() <= half[1] + 1e-6


def test_straight_lines_stay_straight() -> None:
    """Relief by displacement would bend them; a plane seen by a camera does not."""
    pixels = np.full((384, 384, 3), (90, 120, 150), np.uint8)
    for at in range(40, 384, 60):
        pixels[:, at : at + 3] = (240, 240, 235)
    for frame in clip(Image.fromarray(pixels), "pan-left", strength=2.0)[::4]:
        light = frame[30:200, :, 0].astype(float)
        line = light[:, 96:160] - 90
        centre = (line * np.arange(64)).sum(1) / line.sum(1)
        fit = np.polyval(np.polyfit(np.arange(len(centre)), centre, 1), np.arange(len(centre)))
        assert np.abs(centre - fit).max() < 0.35


# --- any request ---


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("name", SCENES)
def test_the_same_request_gives_the_same_frames(name: str, motion: str) -> None:
    image = scene(name).image
    once = clip(image, motion, size=(160, 128), frames=3)
    cv2.setRNGSeed(12345)  # whatever ran before in this thread
    assert np.array_equal(once, clip(image, motion, size=(160, 128), frames=3))


def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cards with different settings of OpenCV must agree, or a job that is tried again gives another clip."""
    image = scene("person").image
    with_two = clip(image, "orbit", size=(512, 512), frames=3)
    monkeypatch.setattr("node_agent.pipelines.animatic._THREADS", 1)
    assert np.array_equal(with_two, clip(image, "orbit", size=(512, 512), frames=3))


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("size", [(64, 64), (256, 72), (72, 256)])
def test_odd_pictures_give_whole_frames(name: str, size: tuple[int, int]) -> None:
    frames = clip(odd(name), "zoom-in", size=size, frames=3)
    assert [frame.shape for frame in frames] == [(size[1], size[0], 3)] * 3
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("size", [(64, 1920), (1920, 64), (1920, 1080)])
def test_the_largest_sizes(size: tuple[int, int]) -> None:
    frames = clip(scene("person").image, "orbit", size=size, frames=2)
    assert [frame.shape for frame in frames] == [(size[1], size[0], 3)] * 2


@given(st.integers(8, 32), st.integers(8, 32), st.sampled_from(MOTIONS), st.floats(0, 2), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_any_size_gives_frames_of_that_size(
    columns: int, rows: int, motion: str, strength: float, count: int
) -> None:
    frames = clip(
        scene("street").image, motion, size=(8 * columns, 8 * rows), frames=count, strength=strength
    )
    assert [frame.shape for frame in frames] == [(8 * rows, 8 * columns, 3)] * count


def test_a_flat_picture_stays_flat_but_for_the_mark() -> None:
    for frame in clip(odd("flat"), "pan-left"):
        assert np.abs(frame[:200].astype(int) - (70, 110, 160)).max() <= 1


def test_no_strength_is_a_still_of_the_whole_picture() -> None:
    image = scene("product").image
    frames = clip(image, "pan-left", strength=0.0)
    assert all(np.array_equal(frame, frames[0]) for frame in frames)
    plain = np.asarray(image.resize((256, 256), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(frames[0][:200].astype(int) - plain[:200]).max() <= 2


def test_a_wide_picture_gives_its_sides_to_a_pan() -> None:
    """A square frame of a wide picture need not be cropped closer for a pan: the picture goes on at the sides."""
    grey = np.stack([noise(768, 384, cell=40, seed=6)] * 3, -1) * 20 + 128
    wide = Image.fromarray(grey.astype(np.uint8))
    middle = clip(wide, "pan-left", strength=2.0)[4][:200].astype(int)
    plain = np.asarray(wide.resize((512, 256), Image.Resampling.LANCZOS))[:200, 128:384].astype(int)
    assert np.abs(middle - plain).mean() < 1.5
    square = wide.crop((192, 0, 576, 384))
    assert np.abs(clip(square, "pan-left", strength=2.0)[4][:200].astype(int) - plain).mean() > 4


# --- the mark and the report ---


@pytest.mark.parametrize("side", [64, 128, 512])
def test_every_frame_is_marked_as_a_draft(side: int) -> None:
    marked = clip(odd("flat"), "zoom-in", size=(side, side), frames=2)
    for frame in marked:
        differs = np.abs(frame.astype(int) - (70, 110, 160)).max(2) > 60
        rows, columns = np.flatnonzero(differs.any(1)), np.flatnonzero(differs.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert height >= 7  # letters that can be read
        assert width >= 24
        assert height * width < 0.135 * side * side
        assert rows.min() > side / 2
        assert frame.max() > 225


def test_the_mark_makes_room_for_the_subject() -> None:
    picture = Image.new("RGB", (512, 512), (60, 90, 130))
    picture.paste((230, 120, 40), (290, 240, 494, 494))
    frame = clip(picture, "zoom-in", frames=1)[0]
    light = frame.astype(int).min(2) > 215
    assert light[:, :128].any()
    assert not light[:, 128:].any()


def test_steps_previews_and_parts_are_reported() -> None:
    notes = Notes()
    clip(scene("person").image, "pan-left", size=(640, 320), frames=10, notes=notes)
    assert notes.steps == [(done, 10) for done in range(11)]
    assert notes.parts == ["depth"] + ["render"] * 10
    assert len(notes.previews) == 3
    for jpeg in notes.previews:
        with Image.open(io.BytesIO(jpeg)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (320, 160))


def test_frames_come_one_at_a_time_with_no_part_left_open() -> None:
    """A part that stays open over a yield would count the encoder's time as the model's."""
    notes = Notes()
    model = open_model(builtin_models()["animatic"], "cpu")
    frames = model.render(request(scene("person").image, "orbit", (64, 64), 5, 1.0, "", 0), notes)
    for index, _ in enumerate(frames, 1):
        assert notes.steps[-1] == (index, 5)
        assert notes.open_parts == 0


def test_a_cancel_takes_hold_at_its_step() -> None:
    notes = Notes(stop_at=3)
    with pytest.raises(CancelledRenderError):
        clip(scene("person").image, notes=notes)
    assert notes.steps[-1] == (2, 9)


def test_eased() -> None:
    assert [eased(t) for t in (0.0, 0.5, 1.0)] == [0.0, 0.5, 1.0]
