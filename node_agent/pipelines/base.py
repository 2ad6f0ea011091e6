"""The narrow protocol between a card worker and a model. Adding a model is one file beside this one plus one catalogue row.

A module `node_agent.pipelines.<pipeline>` has `open_model(row, device) -> VideoModel`, and where the model has weights, `LAYOUT`
(see `weights.Layout`). Nothing heavy (torch, diffusers) is imported at the module's top level: a CPU node without torch must be
able to list it. docs/decisions/0010 says what a diffusion model's file holds.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from farm.catalogue.models import ModelRow
from farm.errors import ConfigurationError
from farm.model import MemoryPlan, RenderSettings

Frame = NDArray[np.uint8]
"""One picture of a clip: `[height, width, 3]`, RGB."""


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """What to render. `image` is RGB, upright, of any size: the model crops it to the settings' shape.

    `resume`: a checkpoint that a render of the same settings and picture gave, on whatever card; None begins at the beginning.
    A model that gives no checkpoints takes no notice of it. `peak_gib`: what the render is held to on a GPU (GiB, and a little), where
    that is known better than by the catalogue's law; None leaves it to that.
    """

    settings: RenderSettings
    image: Image.Image
    plan: MemoryPlan
    resume: bytes | None = None
    peak_gib: float | None = None


class Report(Protocol):
    """Where a model says how far it is. Every call may raise `CancelledRenderError`, which the model lets pass."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Times a part of the work ("encode_prompt", "denoise", "decode", ...); the seconds go into the history."""
        ...

    def check(self) -> None:
        """Asked often where nothing is to be said, so that a cancel takes hold there too: before each tensor that is read."""
        ...

    def step(self, done: int, total: int) -> None:
        """Says that `done` of `total` steps are done. Called at least once per step, so that a cancel takes hold.

        A render that goes on from a checkpoint first says which step that is of.
        """
        ...

    def preview(self, jpeg: bytes) -> None:
        """Shows a small picture (JPEG, at most 320 pixels wide) of the clip so far."""
        ...

    def note(self, text: str) -> None:
        """Says something that a person should know of this render, in a sentence; it goes on."""
        ...

    def leaving(self) -> bool:
        """Whether the next `step` ends the render because the card's owner wants it: a checkpoint before that loses nothing."""
        ...

    def checkpoint(self, step: int, state: bytes) -> None:
        """Keeps what the render needs to go on after `step`, here or on another card (`RenderRequest.resume`)."""
        ...


class Unheard:
    """A `Report` to which nobody listens."""

    def part(self, name: str) -> AbstractContextManager[None]:  # noqa: ARG002 - the protocol's
        """See `Report`."""
        return nullcontext()

    def check(self) -> None:
        """See `Report`."""

    def step(self, done: int, total: int) -> None:
        """See `Report`."""

    def preview(self, jpeg: bytes) -> None:
        """See `Report`."""

    def note(self, text: str) -> None:
        """See `Report`."""

    def leaving(self) -> bool:
        """See `Report`; nobody takes the card away."""
        return False

    def checkpoint(self, step: int, state: bytes) -> None:
        """See `Report`."""


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
            BrokenPictureError: the model ran and its picture is black or not a number.
            StaleCheckpointError: `request.resume` is damaged, or of another render; raised before any work.
        """
        ...

    def unload(self) -> None:
        """Gives the memory back."""
        ...

    @property
    def streams_gib(self) -> float:
        """What it holds of the PC's memory now for weights that stream from there, GiB."""
        ...


class OpenModel(Protocol):
    """The function `open_model` that every pipeline module has."""

    def __call__(self, row: ModelRow, device: str) -> VideoModel:
        """Opens the model of a catalogue row for `device` ("cpu", "cuda:0"); loads nothing yet."""
        ...


@contextmanager
def installed_for(row: ModelRow) -> Iterator[None]:
    """Around the imports that only who renders with the model needs.

    Raises:
        ConfigurationError: something of them is not installed here.
    """
    try:
        yield
    except ImportError as error:
        raise ConfigurationError(
            f"{row.title} cannot run on this PC: {error}.",
            'Install what it needs, in the farm\'s directory: pip install ".[gpu]".',
        ) from error
