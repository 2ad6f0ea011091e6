"""What `benchmarks.render` renders, under which caps in GiB, and what must be reached. Needs no torch."""

from dataclasses import replace

from farm.model import RenderSettings

STEPS = 10
"""Enough for a pace: only the number of steps is small."""
I2VGEN = RenderSettings(
    "i2vgen-xl", 512, 512, 16, STEPS, 9.0, 8, seed=7, prompt="A person walking forward naturally"
)
SVD = RenderSettings("svd", 1024, 576, 14, STEPS, 3.0, 7, seed=7)
JOBS = {
    "i2vgen-xl 512x512x16": I2VGEN,
    "i2vgen-xl 1280x704x16": replace(I2VGEN, width=1280, height=704),
    "svd 1024x576x14": SVD,
    "svd-xt 1024x576x25": replace(SVD, model="svd-xt", frames=25),
}
MUST = (
    ("6 GB", "i2vgen-xl 512x512x16", 5.4, 1.03),
    ("6 GB", "i2vgen-xl 1280x704x16", 5.4, 1.05),
    ("4 GB", "i2vgen-xl 512x512x16", 3.4, 1.05),
    ("4 GB", "i2vgen-xl 1280x704x16", 3.4, 1.15),
    ("2 GB", "i2vgen-xl 512x512x16", 1.6, 1.25),
    ("4 GB", "svd 1024x576x14", 3.4, 1.20),
    ("6 GB", "svd-xt 1024x576x25", 5.4, 1.20),
)
HELD_BACK = (
    (replace(I2VGEN, width=768, height=768), 4.0),
    (replace(I2VGEN, width=640, height=448, frames=24), 3.4),
    (replace(I2VGEN, width=960, height=544, frames=12), 2.4),
    (replace(SVD, width=768, height=448), 3.0),
)
"""Sizes beside those that `farm calibrate` measures, each with a cap in GiB."""


def _job(model: str, width: int, height: int, frames: int, steps: int) -> RenderSettings:
    first = I2VGEN if model == "i2vgen-xl" else SVD
    return replace(first, model=model, width=width, height=height, frames=frames, steps=steps)


def _sizes(model: str, *found: tuple[int, int, int, float]) -> tuple[tuple[RenderSettings, float], ...]:
    return tuple((_job(model, w, h, f, 4), cap) for w, h, f, cap in found)


MORE_SIZES = (
    *_sizes("i2vgen-xl", (448, 320, 16, 1.8), (704, 704, 8, 3.4), (512, 896, 16, 5.4), (1024, 576, 16, 3.4)),
    *_sizes("i2vgen-xl", (640, 640, 16, 2.4), (640, 640, 32, 5.4), (384, 384, 24, 1.6), (832, 480, 20, 4.2)),
    *_sizes("i2vgen-xl", (512, 512, 40, 6.5), (1280, 704, 8, 2.2)),
    *_sizes("i2vgen-xl", (512, 512, 8, 1.3), (640, 384, 6, 1.8), (768, 512, 10, 2.0), (896, 512, 14, 3.4)),
    *_sizes("svd", (512, 512, 14, 3.0), (640, 384, 14, 2.0), (1024, 576, 8, 2.4), (576, 1024, 14, 4.4)),
    *_sizes("svd", (768, 576, 6, 2.4), (832, 448, 12, 3.0)),
    *_sizes("svd-xt", (768, 768, 20, 5.4), (960, 576, 25, 4.0), (704, 448, 25, 2.6), (1152, 640, 16, 4.8)),
)
"""The same again, of every shape and length, for the peaks alone: `--only sizes` measures them in a run of their own."""


TAUGHT = (
    (
        _job("i2vgen-xl", 512, 512, 16, 25), _job("i2vgen-xl", 1280, 704, 16, 25),
        _job("i2vgen-xl", 768, 768, 16, 20), _job("i2vgen-xl", 512, 512, 8, 30),
    ),
    (
        _job("svd", 768, 448, 14, 25), _job("svd", 1024, 576, 14, 25),
        _job("svd", 1280, 704, 14, 20), _job("svd", 512, 512, 14, 25),
    ),
)  # fmt: skip
"""Three renders of the first teach the card what the others will take: `--only learned`, whole renders, in a run of their own."""
LEARNED_CAP = 5.4


MORE = "more sizes"
"""What stands for the card in the rows of `MORE_SIZES`."""


def name_of(settings: RenderSettings) -> str:
    """A job in the tables: model and size."""
    return f"{settings.model} {settings.width}x{settings.height}x{settings.frames}"
