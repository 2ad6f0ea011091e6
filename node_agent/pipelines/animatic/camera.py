"""Where a camera looks from at each moment of a move, and what that does to a flat layer at some distance.

Image coordinates are pixels from the middle of the frame, divided by the unit sqrt(width * height), so that a move looks
alike in every shape. A layer is a plane with the disparity (1 / distance) `near + slope * v`: 1 is the subject, 0 infinitely
far. A plane seen by a moved camera is a homography, so straight lines in a layer stay straight in every frame.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from farm.motion import CameraMove

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Plane:
    """Where a layer lies: disparity `near` at the middle of the frame, changing by `slope` per unit downwards."""

    near: float
    slope: float = 0.0


SUBJECT = 1.0
"""Disparity of a subject's upper end; nothing is nearer."""

BACKDROP = Plane(0.40, 0.28)
"""The background: farther at the top, nearer at the bottom, as ground is. Chosen by eye: a steeper slope leans houses visibly
in a pan, a flatter one lets feet slide over the ground."""

_STEP = 0.10
"""How much nearer than the ground below it a subject's foot is: enough to part the two, too little to see it slide."""

_LEAN = 0.32
"""The most that a subject's disparity changes per unit, for the same reason as the backdrop's slope."""


def subject_plane(top: float, bottom: float, certainty: float, *, standing: bool) -> Plane:
    """The subject: a cut-out that stands on the ground, from `top` to `bottom` in units.

    One that the picture's lower border cuts (`standing` false) has no foot and is upright. `certainty` (0..1) of its
    outline: a doubtful one shows less when the layers move less differently.
    """
    head = BACKDROP.near + BACKDROP.slope * top
    head += (SUBJECT - head) * (0.5 + 0.5 * certainty)
    if not standing:
        return Plane(head)
    foot = min(head, BACKDROP.near + BACKDROP.slope * bottom + _STEP)
    slope = -min(_LEAN, (head - foot) / max(bottom - top, 0.1))
    # The foot is kept, the head gives way.
    return Plane(foot - slope * bottom, slope)


@dataclass(frozen=True, slots=True)
class Pose:
    """A camera: moved by `x` (right), `y` (down), `z` (ahead), turned by `turn_x`, `turn_y`, zoomed by `zoom`.

    A turn moves near and far alike and is given in units of the picture.
    """

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    turn_x: float = 0.0
    turn_y: float = 0.0
    zoom: float = 1.0


def eased(t: float) -> float:
    """Slow, fast, slow: 0..1 to 0..1, with no speed at either end."""
    return t * t * (3.0 - 2.0 * t)


def moment(index: int, frames: int) -> float:
    """How far the move is in frame `index` of `frames`, 0..1, eased; a clip of one frame shows its beginning."""
    return eased(index / (frames - 1)) if frames > 1 else 0.0


def pose_at(move: CameraMove, t: float, *, focus: float) -> Pose:
    """The camera at `t` (0..1, already eased). `focus` is the disparity that an orbit turns around, 0 if there is no subject.

    At strength 1 a pan carries a subject (disparity 0.85) by about 0.10 and the background by 0.065 of the frame; a move ahead
    enlarges them by 1.16 and 1.07. By eye: enough to feel the depth in a clip of two seconds, and a crop of at most a tenth.
    """
    s = move.strength
    swing = 1.0 - 2.0 * t
    """From 1 to -1: moves that are alike both ways lie around the unmoved picture, which costs the least margin."""
    if move.motion == "zoom-in":
        return Pose(z=0.07 * s * t, zoom=1.0 + 0.11 * s * t)
    if move.motion == "zoom-out":
        return Pose(z=0.07 * s * (1 - t), zoom=1.0 + 0.11 * s * (1 - t))
    if move.motion == "forward":
        return Pose(z=0.16 * s * t)
    if move.motion in ("pan-left", "pan-right"):
        way = swing if move.motion == "pan-left" else -swing
        return Pose(x=0.036 * s * way, turn_x=0.018 * s * way)
    if move.motion in ("pan-up", "pan-down"):
        way = swing if move.motion == "pan-up" else -swing
        return Pose(y=0.036 * s * way, turn_y=0.016 * s * way)
    way = -swing if move.mirrored else swing
    x = 0.062 * s * way
    # Turning back by what the subject moved keeps it in its place, so that the world turns around it.
    return Pose(x=x, turn_x=-focus * x, z=0.05 * s * math.sin(math.pi * t))


def view(plane: Plane, pose: Pose) -> Matrix:
    """The homography that takes a point of `plane` in the unmoved picture to its place in the frame, in units."""
    a, b = plane.near, plane.slope
    moved = np.array(
        [
            [1.0, -b * pose.x, -a * pose.x],
            [0.0, 1.0 - b * pose.y, -a * pose.y],
            [0.0, -b * pose.z, 1.0 - a * pose.z],
        ]
    )
    lens = np.array(
        [[pose.zoom, 0, -pose.zoom * pose.turn_x], [0, pose.zoom, -pose.zoom * pose.turn_y], [0, 0, 1.0]]
    )
    matrix: Matrix = lens @ moved
    return matrix


@dataclass(frozen=True, slots=True)
class Margins:
    """How much of the unmoved picture a move needs, in units from the middle of the frame."""

    half_width: float
    half_height: float


def margins(
    move: CameraMove, planes: tuple[Plane, ...], frames: int, width: int, height: int, *, focus: float
) -> Margins:
    """The part of the picture that is seen in any frame of the move: no border can show if the picture covers it."""
    unit = math.sqrt(width * height)
    u, v = width / unit / 2, height / unit / 2
    corners = np.array([[-u, u, u, -u], [-v, -v, v, v], [1, 1, 1, 1]])
    most_u, most_v = u, v
    for index in range(frames):
        pose = pose_at(move, moment(index, frames), focus=focus)
        for plane in planes:
            seen = np.linalg.inv(view(plane, pose)) @ corners
            most_u = max(most_u, float(np.abs(seen[0] / seen[2]).max()))
            most_v = max(most_v, float(np.abs(seen[1] / seen[2]).max()))
    return Margins(most_u, most_v)
