"""The narrow protocol between a card worker and an interpolator. Adding one is one file beside this one plus one catalogue row.

A module `node_agent.interpolate.<module>` has `interpolate`, as `Interpolate` says. Nothing heavy (torch) is imported at its top level.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from farm.catalogue.interpolators import interpolator
from farm.stages import ClipShape
from node_agent.pipelines.base import Frame, Report
from node_agent.preview import small_jpeg

_PREVIEW_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class InterpolationRequest:
    """What to interpolate: the clip at `source`, which is as `base` says, to the frames of `wanted`, of the same size.

    Frame k of the result shows what the clip shows k / `wanted.fps` seconds from its beginning. Where that is a frame's own time it is
    that frame, unchanged; from the last frame on it is the last one.
    """

    source: Path
    base: ClipShape
    wanted: ClipShape


class Interpolate(Protocol):
    """The function `interpolate` that every interpolator's module has."""

    def __call__(self, request: InterpolationRequest, report: Report) -> Iterator[Frame]:
        """Yields `wanted.frames` frames of `[height, width, 3]`, each as soon as it is there, telling `report` how many.

        A call of `report` may raise `CancelledRenderError`, at least five times a second; it is let pass.

        Raises:
            RenderFailedError: the clip cannot be interpolated.
        """
        ...


def interpolate(request: InterpolationRequest, report: Report) -> Iterator[Frame]:
    """Interpolates with the farm's interpolator, and shows how the clip looks every second."""
    chosen: Interpolate = import_module(f"node_agent.interpolate.{interpolator().module}").interpolate
    shown = float("-inf")
    for frame in chosen(request, report):
        if time.monotonic() - shown >= _PREVIEW_EVERY_S:
            report.preview(small_jpeg(frame))
            shown = time.monotonic()
        yield frame
