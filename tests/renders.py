"""What the tests of diffusion models share: a picture, a report that remembers, a whole clip, weights to damage. No torch at the top."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from farm.errors import CancelledRenderError
from farm.model import MemoryPlan, RenderSettings
from node_agent.pipelines.base import RenderRequest
from node_agent.pipelines.stored import weight_files

LIBRARIES = {
    "unet": "diffusers",
    "vae": "diffusers",
    "text_encoder": "transformers",
    "image_encoder": "transformers",
}
"""Whose classes read a part of a checkpoint, by which its file of weights is named."""

SETTINGS = RenderSettings(
    model="i2vgen-xl-small",
    width=64,
    height=64,
    frames=3,
    steps=2,
    guidance=9.0,
    fps=8,
    seed=7,
    prompt="a fox walking in the snow",
    negative_prompt="blurry",
)
"""A tiny clip of the small I2VGen-XL."""


@dataclass
class Recorder:
    """A report that writes down what it is told; `cancel_at` cancels when that step is reported, for the card's owner if it `leaves`.

    `cancel_in`: cancels when it has been asked so often, in between.
    """

    cancel_at: int | None = None
    leaves: bool = False
    cancel_in: int | None = None
    asked: int = 0
    parts: list[str] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    checkpoints: list[tuple[int, bytes]] = field(default_factory=list)
    open_parts: list[str] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.open_parts.append(name)
        try:
            yield
        finally:
            self.parts.append(self.open_parts.pop())

    def check(self) -> None:
        self.asked += 1
        if self.asked == self.cancel_in:
            raise CancelledRenderError("The render was cancelled.")

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))
        if done == self.cancel_at:
            raise CancelledRenderError("The render was cancelled.")

    def preview(self, jpeg: bytes) -> None:
        self.previews.append(jpeg)

    def leaving(self) -> bool:
        """Asked once before each step's word; the one of `cancel_at` is the last."""
        return self.leaves and len(self.steps) + 1 == self.cancel_at

    def checkpoint(self, step: int, state: bytes) -> None:
        self.checkpoints.append((step, state))


def photograph(width: int = 90, height: int = 70) -> Image.Image:
    """A picture with structure in every channel and direction."""
    y, x = np.mgrid[0:height, 0:width]
    bands = (x * 255 / width, y * 255 / height, 127 + 120 * np.sin((x + 2 * y) / 6))
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


def clip(
    model: Any,
    settings: RenderSettings = SETTINGS,
    plan: MemoryPlan = MemoryPlan(),  # noqa: B008  # frozen
    image: Image.Image | None = None,
    report: Recorder | None = None,
) -> NDArray[np.uint8]:
    """All frames of a clip, `[frames, height, width, 3]`."""
    request = RenderRequest(settings, image or photograph(), plan)
    return np.stack(list(model.render(request, report or Recorder())))


def edit_tensors(directory: Path, part: str, change: Callable[[dict[str, Any]], object]) -> Path:
    """Changes the stored weights of a checkpoint's part; the file."""
    from safetensors.torch import load_file, save_file

    (file,) = weight_files(directory / part, LIBRARIES[part])
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return file


def stock_pipeline(name: str, checkpoint: Path) -> Any:
    """Diffusers' own pipeline of this class, with a checkpoint's weights in single precision. Each call sets all that it computes with."""
    import diffusers
    import torch

    pipeline = getattr(diffusers, name).from_pretrained(
        checkpoint, variant="fp16", use_safetensors=True, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
