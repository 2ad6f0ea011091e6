"""How many seconds the interpolation of a clip takes. Pure.

    seconds = megapixels * (a * new frames + b * frames of the model's clip)

`a`: the motion around a new frame is estimated, and the frame put together of moved blocks. `b`: a frame of the model is decoded and
passed on. It is the PC's processor that works, whatever card the stage is on: the coefficients are of one measured processor
(`farm.catalogue.interpolators`), and another may well be twice as fast or as slow.
"""

from math import gcd

from farm.catalogue.interpolators import InterpolatorRow
from farm.model import RenderSettings
from farm.stages import clip_fps


def interpolation_seconds(row: InterpolatorRow, settings: RenderSettings) -> float:
    """Predicted seconds of the stage, from the clip between stages to the finished one."""
    law = row.time
    work = (
        law.s_per_new_frame_megapixel * new_frames(settings)
        + law.s_per_base_frame_megapixel * settings.frames
    )
    return settings.width * settings.height / 1e6 * work


def new_frames(settings: RenderSettings) -> int:
    """How many frames are made: those between the model's first and last one that do not fall on any of them."""
    fps, rate = settings.fps, clip_fps(settings)
    last = (settings.frames - 1) * rate // fps
    falls_on_one = last // (rate // gcd(fps, rate))
    return last - falls_on_one
