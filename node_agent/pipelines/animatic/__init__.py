"""`animatic`: an honest draft of a clip. A camera moves over the picture and its subject; nothing is invented.

The picture is taken apart into subject and scene (`subject`, `layers`), each of which the camera (`camera`) sees as a plane at
its own distance; every frame is marked as a draft (`mark`). No weights, no torch.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from farm.catalogue.models import ModelRow
from farm.model import MemoryPlan
from farm.motion import CameraMove, choose_move
from node_agent.pipelines.animatic.camera import (
    BACKDROP,
    SUBJECT,
    Plane,
    margins,
    moment,
    pose_at,
    subject_plane,
    view,
)
from node_agent.pipelines.animatic.layers import Cutout, cut_out, fill_behind
from node_agent.pipelines.animatic.mark import Mark, draft_mark
from node_agent.pipelines.animatic.subject import find_subject
from node_agent.pipelines.base import Frame, RenderRequest, Report
from node_agent.preview import small_jpeg

_THREADS = 2
"""OpenCV's threads: a node's other cards need the rest of its cores, and the result is the same with any number."""

_PREVIEW_EVERY = 4
"""Frames from one preview to the next."""


def open_model(row: ModelRow, device: str) -> "Animatic":
    """The model, for any device: it always works on the CPU."""
    return Animatic(row, device)


class Animatic:
    """Implements `VideoModel`."""

    def __init__(self, row: ModelRow, device: str) -> None:
        self._row = row
        self._device = device

    def load(self, plan: MemoryPlan, report: Report) -> None:
        """There is nothing to bring in."""

    def unload(self) -> None:
        """There is nothing to give back."""

    @property
    def streams_gib(self) -> float:
        """Nothing streams."""
        return 0.0

    def render(self, request: RenderRequest, report: Report) -> Iterator[Frame]:
        """Yields the frames, `[height, width, 3]`, one at a time. Steps are frames."""
        settings = request.settings
        cv2.setNumThreads(_THREADS)
        report.step(0, settings.frames)
        with report.part("depth"):
            stage = _set_up(request)
        for index in range(settings.frames):
            with report.part("render"):
                frame = stage.frame(index)
            report.step(index + 1, settings.frames)
            if index % _PREVIEW_EVERY == 0:
                report.preview(small_jpeg(frame))
            yield frame


@dataclass(frozen=True, slots=True)
class _Stage:
    """A picture that is ready to be filmed. `scene` holds `middle` (x, y in its pixels) at the middle of the frame."""

    move: CameraMove
    frames: int
    width: int
    height: int
    scene: NDArray[np.uint8]
    middle: tuple[float, float]
    cutout: Cutout | None
    plane: Plane
    focus: float
    mark: Mark

    def frame(self, index: int) -> Frame:
        """Frame `index` of the clip."""
        pose = pose_at(self.move, moment(index, self.frames), focus=self.focus)
        size = (self.width, self.height)
        onto = self._pixels(view(BACKDROP, pose), 0, 0)
        frame: Frame = cv2.warpPerspective(
            self.scene, onto, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        ).astype(np.uint8, copy=False)
        if self.cutout is not None:
            self._lay_on(
                frame, self.cutout, self._pixels(view(self.plane, pose), self.cutout.left, self.cutout.top)
            )
        self.mark.put_on(frame)
        return frame

    def _pixels(self, units: NDArray[np.float64], left: int, top: int) -> NDArray[np.float64]:
        """A homography in units as one from a layer's pixels to the frame's; the layer lies at `left`, `top` of the scene."""
        unit = math.sqrt(self.width * self.height)
        x, y = self.middle
        into = np.array([[1 / unit, 0, (left - x) / unit], [0, 1 / unit, (top - y) / unit], [0, 0, 1]])
        out = np.array([[unit, 0, (self.width - 1) / 2], [0, unit, (self.height - 1) / 2], [0, 0, 1]])
        matrix: NDArray[np.float64] = out @ units @ into
        return matrix

    def _lay_on(self, frame: Frame, cutout: Cutout, onto: NDArray[np.float64]) -> None:
        """Draws the subject over `frame`, touching only the part of it that the subject reaches."""
        rows, columns = cutout.pixels.shape[:2]
        corners = onto @ np.array([[0, columns, columns, 0], [0, 0, rows, rows], [1, 1, 1, 1]], float)
        xs, ys = corners[0] / corners[2], corners[1] / corners[2]
        left, top = max(0, math.floor(xs.min()) - 1), max(0, math.floor(ys.min()) - 1)
        right, bottom = min(self.width, math.ceil(xs.max()) + 1), min(self.height, math.ceil(ys.max()) + 1)
        if right <= left or bottom <= top:
            return
        local = np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], float) @ onto
        sheet = cv2.warpPerspective(
            cutout.pixels,
            local,
            (right - left, bottom - top),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_CONSTANT,
        )
        through = cv2.merge([255 - sheet[..., 3]] * 3)
        part = frame[top:bottom, left:right]
        behind = cv2.multiply(part, through, scale=1 / 255)
        part[...] = cv2.add(behind, np.ascontiguousarray(sheet[..., :3]))


def _set_up(request: RenderRequest) -> _Stage:
    """Chooses the move, cuts the part of the picture that it will see, and takes that apart."""
    settings = request.settings
    move = choose_move(settings.motion, settings.strength, settings.prompt, settings.seed)
    width, height, frames = settings.width, settings.height, settings.frames
    still = move.strength == 0.0
    # Whether there is a subject shows only in the cut picture, so the margin is the larger of the two cases.
    need = [
        margins(move, (BACKDROP,), frames, width, height, focus=0.0),
        margins(move, (BACKDROP, Plane(SUBJECT)), frames, width, height, focus=SUBJECT),
    ]
    half_width = max(each.half_width for each in need)
    half_height = max(each.half_height for each in need)
    scene, middle = _take(request.image, width, height, half_width, half_height)
    subject = None if still else find_subject(scene)
    plain = _Stage(
        move, frames, width, height, scene, middle, None, BACKDROP, 0.0, draft_mark(width, height, None)
    )
    if subject is None:
        return plain
    unit = math.sqrt(width * height)
    rows = np.flatnonzero((subject.alpha > 0.5).any(1))
    first, last = (rows[0] - middle[1]) / unit, (rows[-1] - middle[1]) / unit
    plane = subject_plane(first, last, subject.certainty, standing=bool(rows[-1] < len(scene) - 3))
    left, top = round(middle[0] - width / 2), round(middle[1] - height / 2)
    seen = subject.alpha[max(0, top) : top + height, max(0, left) : left + width]
    return replace(
        plain,
        scene=fill_behind(scene, subject.alpha),
        cutout=cut_out(scene, subject),
        plane=plane,
        focus=plane.near + plane.slope * (first + last) / 2,
        mark=draft_mark(width, height, seen),
    )


def _take(
    image: Image.Image, width: int, height: int, half_width: float, half_height: float
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """The middle of `image` at the frame's scale, at least `half_width` x `half_height` units to each side.

    Where the picture has more to show than the frame (a wide picture, a square frame) the margin is taken from there and
    nothing is cropped. Returns `[h, w, 3]` and where in it the middle of the frame is.
    """
    unit = math.sqrt(width * height)
    # Two pixels more than the geometry needs: the cubic filter reaches that far.
    need_x, need_y = half_width * unit + 2, half_height * unit + 2
    scale = max(2 * need_x / image.width, 2 * need_y / image.height)
    if half_width * unit <= width / 2 + 1e-6 and half_height * unit <= height / 2 + 1e-6:
        need_x, need_y = width / 2, height / 2
        scale = max(width / image.width, height / image.height)
    out_width, out_height = math.ceil(2 * need_x), math.ceil(2 * need_y)
    part_width, part_height = min(image.width, out_width / scale), min(image.height, out_height / scale)
    left, top = (image.width - part_width) / 2, (image.height - part_height) / 2
    box = (left, top, left + part_width, top + part_height)
    taken = image.convert("RGB").resize(
        (out_width, out_height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0
    )
    return np.asarray(taken), ((out_width - 1) / 2, (out_height - 1) / 2)
