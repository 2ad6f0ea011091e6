"""The presets and models that a job may name."""

from farm.answers.base import Answer


class PresetView(Answer):
    """A named set of settings; `fps` is what the model makes, `smooth` the rate that the clip is interpolated to."""

    name: str
    title: str
    model: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    fps: int
    smooth: int | None = None
    draft: bool


class ModelView(Answer):
    """A model and what it accepts; sides in pixels and multiples of `multiple`.

    `download_gib` is the size of its weights; `weights_bytes` that of those which the head has, None while it has none.
    """

    name: str
    title: str
    licence: str
    source: str = ""
    download_gib: float | None = None
    weights_bytes: int | None = None
    draft: bool
    devices: list[str]
    multiple: int
    min_side: int
    max_side: int
    max_pixels: int
    max_frames: int
    max_steps: int
