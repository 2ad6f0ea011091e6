"""The narrow protocol between a card worker and a model. Adding a model is one file beside this one plus one catalogue row.

A module `node_agent.pipelines.<pipeline>` has `open_model(row, device) -> VideoModel`. Nothing heavy (torch, diffusers) is
imported at the module's top level: a CPU node without torch must be able to list it.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from farm.catalogue.models import ModelRow
from farm.model import MemoryPlan, RenderSettings

Frame = NDArray[np.uint8]
"""One picture of a clip: `[height, width, 3]`, RGB."""


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """What to render. `image` is RGB, upright, of any size: the model crops it to the settings' shape."""

    settings: RenderSettings
    image: Image.Image
    plan: MemoryPlan


class Report(Protocol):
    """Where a model says how far it is. Every call may raise `CancelledRenderError`, which the model lets pass."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Times a part of the work ("encode_prompt", "denoise", "decode", ...); the seconds go into the history."""
        ...

    def step(self, done: int, total: int) -> None:
        """Says that `done` of `total` steps are done. Called at least once per step, so that a cancel takes hold."""
        ...

    def preview(self, jpeg: bytes) -> None:
        """Shows a small picture (JPEG, at most 320 pixels wide) of the clip so far."""
        ...


class VideoModel(Protocol):
    """A model that is opened for one device. Used by one thread."""

    def load(self, plan: MemoryPlan, report: Report) -> None:
        """Brings the weights in, as the plan says. Called again with another plan it changes over.

        Raises:
            MissingWeightsError: the weights are not on this PC, or are not those of this model.
        """
        ...

    def render(self, request: RenderRequest, report: Report) -> Iterator[Frame]:
        """Yields `settings.frames` frames of `[settings.height, settings.width, 3]`, each as soon as it is there.

        The same request gives the same frames on the same device.

        Raises:
            RenderFailedError: the model ran and gave no usable picture (black, NaN).
        """
        ...

    def unload(self) -> None:
        """Gives the memory back."""
        ...


class OpenModel(Protocol):
    """The function `open_model` that every pipeline module has."""

    def __call__(self, row: ModelRow, device: str) -> VideoModel:
        """Opens the model of a catalogue row for `device` ("cpu", "cuda:0"); loads nothing yet."""
        ...
