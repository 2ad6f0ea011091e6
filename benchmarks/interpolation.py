"""The stage that smooths a clip: its seconds, how near its frames come to rendered ones, and what the clip between stages costs.

The seconds are for `farm/catalogue/interpolators.toml`. The clips are drafts: `animatic` can render the frames in between too, so that
interpolated ones have a truth to be held against.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from benchmarks.record import record
from farm.catalogue.interpolators import InterpolationTime, InterpolatorRow, interpolator
from farm.catalogue.models import builtin_models
from farm.model import MemoryPlan, RenderSettings, StageKind
from farm.planning.interpolation import interpolation_seconds, new_frames
from farm.stages import delivered
from farm.video import ffmpeg_path
from node_agent.encode import encode
from node_agent.interpolate.base import InterpolationRequest, interpolate
from node_agent.pipelines.animatic import open_model
from node_agent.pipelines.base import Frame, RenderRequest
from tests.pictures import street

# width, height, frames, fps, smooth
JOBS = (
    (256, 256, 16, 8, 24),
    (512, 512, 8, 8, 24),
    (512, 512, 16, 8, 24),
    (512, 512, 16, 8, 60),
    (768, 768, 16, 8, 16),
    (768, 768, 16, 8, 24),
    (1280, 704, 16, 8, 24),
    (1024, 576, 14, 7, 56),
    (1920, 1080, 8, 8, 24),
)
ROUNDS = 3
TRUTHS = (("pan-left", 512, 512), ("zoom-in", 512, 512), ("pan-left", 960, 544))
NOISE = 4.0
"""Standard deviation, levels: film grain, the worst that an encoder meets."""


class Silent:
    """A report that nobody hears."""

    def part(self, _name: str) -> AbstractContextManager[None]:
        """Not timed."""
        return nullcontext()

    def step(self, _done: int, _total: int) -> None:
        """Not heard."""

    def preview(self, _jpeg: bytes) -> None:
        """Not heard."""

    def note(self, _text: str) -> None:
        """Not heard."""

    def checkpoint(self, _step: int, _state: bytes) -> None:
        """Not heard."""


def run(root: Path) -> None:
    """Measures all three."""
    measured = [(_settings(*job), _seconds(root, _settings(*job))) for job in JOBS]
    law = _fit(measured)
    row = InterpolatorRow("measured", "", "", law)
    times = "\n".join(
        f"| {one.width}x{one.height}x{one.frames} at {one.fps} to {one.smooth} fps | {new_frames(one)} | {took:.2f} | "
        f"{interpolation_seconds(row, one):.2f} | {interpolation_seconds(interpolator(), one):.2f} |"
        for one, took in measured
    )
    truths = "\n".join(_truth(root, *clip) for clip in TRUTHS)
    record(
        "interpolation",
        "## Smoothing a clip\n\nThe stage `interpolate` on this PC's processor, from the clip between stages to the finished MP4; the best "
        f"of {ROUNDS} rounds (`benchmarks/interpolation.py`). The law of `farm/planning/interpolation.py` fitted to them: "
        f"s_per_new_frame_megapixel = {law.s_per_new_frame_megapixel:.3f}, s_per_base_frame_megapixel = "
        f"{law.s_per_base_frame_megapixel:.3f}. Load average of the PC, by other work too: {os.getloadavg()[0]:.1f}.\n\n"
        f"| clip | new frames | seconds | fitted | catalogue |\n|---|---|---|---|---|\n{times}\n\n"
        "Frames put in between, three for one, against the frames that the model itself renders for those times (PSNR, dB, mean): the "
        f"nearest frame, both cross-faded, the farm's interpolation.\n\n"
        f"| draft, 8 frames | nearest | cross-faded | interpolated |\n|---|---|---|---|\n{truths}\n\n"
        "The clip between two stages, 16 frames of 512x512 with a grain of 4 levels and without, and of 1280x704: size, seconds to write, "
        "and the finished clip against the model's frames (PSNR, dB; encoded without a stage in between: `none`).\n\n"
        f"| clip | way | MB | written in s | finished dB |\n|---|---|---|---|---|\n{_between(root)}",
    )


def _settings(width: int, height: int, frames: int, fps: int, smooth: int) -> RenderSettings:
    return RenderSettings("animatic", width, height, frames, 1, 1.0, fps, 7, motion="pan-left", smooth=smooth)


def _frames(settings: RenderSettings) -> list[Frame]:
    model = open_model(builtin_models()["animatic"], "cpu")
    picture = street(settings.width, settings.height).image.convert("RGB")
    return list(model.render(RenderRequest(settings, picture, MemoryPlan()), Silent()))


def _interpolated(root: Path, settings: RenderSettings, frames: list[Frame]) -> Iterator[Frame]:
    base, wanted = delivered(settings, StageKind.GENERATE), delivered(settings, StageKind.INTERPOLATE)
    source = root / "source.mp4"
    encode(
        iter(frames), source, fps=base.fps, width=base.width, height=base.height, count=base.frames,
        metadata={}, between_stages=True,
    )  # fmt: skip
    return interpolate(InterpolationRequest(source, base, wanted), Silent())


def _seconds(root: Path, settings: RenderSettings) -> float:
    wanted = delivered(settings, StageKind.INTERPOLATE)
    frames = _frames(settings)
    took = []
    for _ in range(ROUNDS):
        made = _interpolated(root, settings, frames)
        began = time.perf_counter()
        encode(
            made, root / "clip.mp4", fps=wanted.fps, width=wanted.width, height=wanted.height, count=wanted.frames,
            metadata={},
        )  # fmt: skip
        took.append(time.perf_counter() - began)
    return min(took)


def _fit(measured: list[tuple[RenderSettings, float]]) -> InterpolationTime:
    """The coefficients with the least squares of the relative errors."""
    rows, ones = [], []
    for one, took in measured:
        megapixels = one.width * one.height / 1e6
        rows.append([megapixels * new_frames(one) / took, megapixels * one.frames / took])
        ones.append(1.0)
    found = np.linalg.lstsq(np.array(rows), np.array(ones), rcond=None)[0]
    return InterpolationTime(*(float(value) for value in found))


def _truth(root: Path, motion: str, width: int, height: int) -> str:
    base = RenderSettings("animatic", width, height, 8, 1, 1.0, 8, 7, motion=motion, smooth=24)
    # The move takes the same way whatever the number of frames: 22 frames are the 8 with two more between any two.
    truth = _frames(RenderSettings("animatic", width, height, 22, 1, 1.0, 24, 7, motion=motion))
    frames = _frames(base)
    made = list(_interpolated(root, base, frames))
    between = [at for at in range(len(truth)) if at % 3]
    nearest = np.mean([_psnr(frames[round(at / 3)], truth[at]) for at in between])
    faded = np.mean([_psnr(_fade(frames, at / 3), truth[at]) for at in between])
    ours = np.mean([_psnr(made[at], truth[at]) for at in between])
    return f"| {motion}, {width}x{height} | {nearest:.1f} | {faded:.1f} | {ours:.1f} |"


def _fade(frames: list[Frame], at: float) -> np.ndarray:
    left, share = int(at), at - int(at)
    return frames[left] * (1 - share) + frames[min(left + 1, len(frames) - 1)] * share


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.mean((one.astype(np.float64) - other) ** 2))
    return 10 * float(np.log10(255**2 / max(error, 1e-3)))


WAYS: dict[str, list[str]] = {
    "FFV1, RGB": ["-pix_fmt", "bgr0", "-c:v", "ffv1"],
    "FFV1, yuv444p": ["-pix_fmt", "yuv444p", "-c:v", "ffv1"],
    **{
        f"H.264 yuv444p, crf {crf}": [
            "-pix_fmt",
            "yuv444p",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-crf",
            str(crf),
        ]
        for crf in (0, 4, 8, 12)
    },
}


def _between(root: Path) -> str:
    small = np.stack(_frames(_settings(512, 512, 16, 8, 24)))
    grain = np.random.default_rng(1).normal(0, NOISE, small.shape)
    clips = {
        "512x512": small,
        "512x512, grain": np.clip(small + grain, 0, 255).astype(np.uint8),
        "1280x704": np.stack(_frames(_settings(1280, 704, 16, 8, 24))),
    }
    return "\n".join(line for name, clip in clips.items() for line in _ways(root, name, clip))


def _ways(root: Path, name: str, clip: np.ndarray) -> Iterator[str]:
    _, height, width, _ = clip.shape
    raw = [
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-video_size",
        f"{width}x{height}",
        "-framerate",
        "8",
        "-i",
        "pipe:0",
    ]
    finish = ["-pix_fmt", "yuv420p", "-c:v", "libx264", "-preset", "veryfast", "-crf", "17"]
    between, done = root / "between.mkv", root / "done.mp4"
    _ffmpeg([*raw, *finish, str(done)], clip.tobytes())
    yield f"| {name} | none | - | - | {_likeness(done, clip):.2f} |"
    for way, options in WAYS.items():
        began = time.perf_counter()
        _ffmpeg([*raw, *options, str(between)], clip.tobytes())
        took = time.perf_counter() - began
        _ffmpeg(["-i", str(between), *finish, str(done)])
        yield f"| {name} | {way} | {between.stat().st_size / 1e6:.2f} | {took:.2f} | {_likeness(done, clip):.2f} |"


def _likeness(path: Path, clip: np.ndarray) -> float:
    raw = _ffmpeg(["-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"])
    return _psnr(np.frombuffer(raw, np.uint8).reshape(clip.shape), clip)


def _ffmpeg(options: list[str], data: bytes | None = None) -> bytes:
    command = [ffmpeg_path(), "-hide_banner", "-nostats", "-loglevel", "error", "-y", *options]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout
