"""The stages of a job: which it has, in their order, and what each leaves. Pure; the head and a card's worker read it alike.

generate -> interpolate. Only a job that is to be smoothed has the second. Its first stage leaves a clip between stages, nearly without
loss, and the last one the finished clip. docs/decisions/0012 says why encoding is no stage of its own.
"""

from dataclasses import dataclass

from farm.model import RenderSettings, StageKind


@dataclass(frozen=True, slots=True)
class ClipShape:
    """What a stage's clip must decode to. Sides in pixels, `fps` in frames per second; `pixel_format` as ffmpeg names it."""

    width: int
    height: int
    frames: int
    fps: int
    pixel_format: str


FINISHED_PIXELS = "yuv420p"
"""What every browser plays."""
BETWEEN_PIXELS = "yuv444p"
"""All of the colours, for a clip that is worked on."""


def stages_of(settings: RenderSettings) -> tuple[StageKind, ...]:
    """A job's stages, first to last."""
    if settings.smooth is None:
        return (StageKind.GENERATE,)
    return (StageKind.GENERATE, StageKind.INTERPOLATE)


def stage_after(settings: RenderSettings, stage: StageKind) -> StageKind | None:
    """The stage that follows `stage`, None after the last."""
    stages = stages_of(settings)
    following = stages[stages.index(stage) + 1 :]
    return following[0] if following else None


def stage_before(settings: RenderSettings, stage: StageKind) -> StageKind | None:
    """The stage whose clip `stage` works on, None for the first, which works on the picture."""
    stages = stages_of(settings)
    at = stages.index(stage)
    return stages[at - 1] if at else None


def delivered(settings: RenderSettings, stage: StageKind) -> ClipShape:
    """The clip that `stage` leaves."""
    last = stage_after(settings, stage) is None
    frames, fps = settings.frames, settings.fps
    if stage is StageKind.INTERPOLATE:
        frames, fps = clip_frames(settings), clip_fps(settings)
    pixels = FINISHED_PIXELS if last else BETWEEN_PIXELS
    return ClipShape(settings.width, settings.height, frames, fps, pixels)


def clip_fps(settings: RenderSettings) -> int:
    """The rate of the finished clip, frames per second."""
    return settings.fps if settings.smooth is None else settings.smooth


def clip_frames(settings: RenderSettings) -> int:
    """The number of frames of the finished clip.

    Smoothing keeps the playing time, to the nearest whole frame: 8 frames at 8 fps become 24 at 24 fps. The last picture is shown for as
    long as it was before, so nothing is made up beyond it.
    """
    if settings.smooth is None:
        return settings.frames
    return (2 * settings.frames * settings.smooth + settings.fps) // (2 * settings.fps)
