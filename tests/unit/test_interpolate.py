"""Interpolation by the real ffmpeg: how many frames there are, what each shows, and that it ends when it is told to."""

import io
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from farm.catalogue.models import builtin_models
from farm.errors import CancelledRenderError, RenderFailedError
from farm.model import MemoryPlan, RenderSettings, StageKind
from farm.stages import delivered
from node_agent.encode import encode
from node_agent.interpolate import mci
from node_agent.interpolate.base import InterpolationRequest, interpolate
from node_agent.pipelines.animatic import open_model
from node_agent.pipelines.base import Frame, RenderRequest
from tests.pictures import street
from tests.storage import SETTINGS

SMALL = replace(SETTINGS, width=256, height=192, smooth=24)
SAME_DB = 40.0
"""What a frame loses on its way through two conversions of its colours and an encoder is below what an eye sees."""


@dataclass
class Heard:
    """A report that remembers, and stops the work once `stop_at` frames are told."""

    stop_at: int | None = None
    steps: list[tuple[int, int]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    stopped_at: float | None = None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        if self.stopped_at is not None:
            raise CancelledRenderError("The render was cancelled.")
        yield

    def part(self, _name: str) -> AbstractContextManager[None]:
        return self._timed()

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))
        if self.stop_at is not None and done >= self.stop_at and self.stopped_at is None:
            self.stopped_at = time.monotonic()

    def preview(self, jpeg: bytes) -> None:
        self.previews.append(jpeg)

    def note(self, _text: str) -> None: ...
    def checkpoint(self, _step: int, _state: bytes) -> None: ...


def rendered(settings: RenderSettings) -> list[Frame]:
    """The model's own frames. A pan takes the same way whatever the number of frames."""
    model = open_model(builtin_models()["animatic"], "cpu")
    picture = street(settings.width, settings.height).image.convert("RGB")
    return list(model.render(RenderRequest(settings, picture, MemoryPlan()), Heard()))


def request(root: Path, settings: RenderSettings, frames: list[Frame]) -> InterpolationRequest:
    base, wanted = delivered(settings, StageKind.GENERATE), delivered(settings, StageKind.INTERPOLATE)
    made = encode(
        iter(frames), root / "source.mp4", fps=base.fps, width=base.width, height=base.height, count=base.frames,
        metadata={}, between_stages=True,
    )  # fmt: skip
    return InterpolationRequest(made.video, base, wanted)


def error(one: np.ndarray, other: np.ndarray) -> float:
    """Mean squared, in levels."""
    return float(np.mean((one.astype(np.float64) - other) ** 2))


def likeness_db(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * float(np.log10(255**2 / max(error(one, other), 1e-3)))


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


@pytest.mark.parametrize(
    ("frames", "fps", "smooth"),
    [(8, 8, 24), (8, 7, 24), (3, 8, 16), (2, 8, 9), (2, 1, 8), (4, 8, 60), (5, 24, 25)],
)
def test_the_models_frames_stay_at_their_times_and_the_last_one_stays_to_the_end(
    tmp_path: Path, frames: int, fps: int, smooth: int
) -> None:
    settings = replace(SMALL, frames=frames, fps=fps, smooth=smooth)
    base = rendered(settings)
    heard = Heard()
    asked = request(tmp_path, settings, base)
    made = list(interpolate(asked, heard))
    assert len(made) == asked.wanted.frames
    assert {(frame.shape, frame.dtype.name) for frame in made} == {((192, 256, 3), "uint8")}
    own = {at: at * fps // smooth for at in range(len(made)) if at * fps % smooth == 0}
    held = {at: frames - 1 for at in range(len(made)) if at * fps >= (frames - 1) * smooth}
    assert own[0] == 0
    for at, which in (own | held).items():
        likeness = likeness_db(made[at], base[min(which, frames - 1)])
        assert likeness > SAME_DB, f"frame {at} is not the model's frame {which}: {likeness:.1f} dB"
    with Image.open(io.BytesIO(heard.previews[0])) as preview:
        assert (preview.format, preview.size) == ("JPEG", (256, 192))
    assert heard.steps[0] == (0, len(made))
    assert heard.steps[-1] == (len(made), len(made))


@pytest.mark.parametrize("motion", ["pan-left", "zoom-in"])
def test_new_frames_lie_between_their_neighbours_and_near_what_the_model_renders_there(
    tmp_path: Path, motion: str
) -> None:
    """Held against the frames that the model itself gives for those times, they beat what needs no thought: cross-fading."""
    settings = replace(SMALL, width=384, height=288, motion=motion, frames=8, fps=8, smooth=24)
    base = rendered(settings)
    truth = rendered(replace(settings, frames=22, fps=24))
    assert all(np.array_equal(truth[3 * at], frame) for at, frame in enumerate(base))
    made = list(interpolate(request(tmp_path, settings, base), Heard()))
    gains = []
    for at in (at for at in range(22) if at % 3):
        left, right, share = base[at // 3], base[at // 3 + 1], at % 3 / 3
        apart = error(left, right)
        assert error(made[at], left) < apart, at
        assert error(made[at], right) < apart, at
        assert (error(made[at], left) < error(made[at], right)) == (at % 3 == 1), (
            "it is nearer to the nearer one"
        )
        faded = left * (1 - share) + right * share
        gains.append(likeness_db(made[at], truth[at]) - likeness_db(faded, truth[at]))
    assert float(np.mean(gains)) > 2.0, f"{np.mean(gains):.1f} dB over cross-fading"


def test_a_cancel_is_heard_while_ffmpeg_works_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        mci, "_TELL_EVERY_S", 0.0
    )  # each frame is told, so that most are to come at the second
    settings = replace(SMALL, width=384, height=288, frames=4, fps=8, smooth=60)
    asked = request(tmp_path, settings, rendered(settings))
    before = children()
    heard = Heard(stop_at=2)
    with pytest.raises(CancelledRenderError):
        list(interpolate(asked, heard))
    assert heard.stopped_at is not None
    assert time.monotonic() - heard.stopped_at < 1.0
    assert heard.steps[-1][0] < asked.wanted.frames
    assert children() == before


def test_who_wants_no_more_frames_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    frames = interpolate(request(tmp_path, SMALL, rendered(SMALL)), Heard())
    next(frames)
    assert len(children()) == len(before) + 1
    del frames
    assert children() == before


def test_a_clip_that_is_cut_short_says_what_is_wrong(tmp_path: Path) -> None:
    asked = request(tmp_path, SMALL, rendered(SMALL))
    asked.source.write_bytes(asked.source.read_bytes()[:-400])
    with pytest.raises(RenderFailedError, match=r"ffmpeg interpolated \d+ of the 24 frames") as caught:
        list(interpolate(asked, Heard()))
    assert "the clip that it works on is kept" in caught.value.remedy
    asked.source.write_bytes(b"no clip")
    with pytest.raises(RenderFailedError, match=r"interpolated 0 of the 24 frames .*: .+"):
        list(interpolate(asked, Heard()))
