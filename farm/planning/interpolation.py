"""How many seconds the interpolation of a clip takes. Pure.

    seconds = fixed + megapixels * (a * frames of the finished clip + b * frames of the model's clip)

`a`: a new frame is put together, converted and encoded. `b`: the motion between two frames of the model is estimated, once however many
new frames come between them. It is the PC's processor that works, whatever card the stage is on: the coefficients are of one measured
processor (`farm.catalogue.interpolators`), and others may well be twice as fast or as slow.
"""

from farm.catalogue.interpolators import InterpolatorRow
from farm.model import RenderSettings
from farm.stages import clip_frames


def interpolation_seconds(row: InterpolatorRow, settings: RenderSettings) -> float:
    """Predicted seconds of the stage, from the clip between stages to the finished one."""
    law = row.time
    made, base = law.s_per_frame_megapixel, law.s_per_base_frame_megapixel
    work = made * clip_frames(settings) + base * settings.frames
    return law.fixed_s + settings.width * settings.height / 1e6 * work
