"""Takes a picture apart: the subject on a clear sheet, and the scene with the place behind the subject filled in."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from node_agent.pipelines.animatic.subject import Mask, Subject

Pixels = NDArray[np.uint8]

_FILL_SIDE = 560
"""Larger side in pixels at which the fill is worked out; its places are then looked up in the full picture."""


@dataclass(frozen=True, slots=True)
class Cutout:
    """The subject on its own: `[h, w, 4]`, RGB premultiplied by alpha, and where its top left corner is in the picture."""

    pixels: Pixels
    left: int
    top: int


def cut_out(picture: Pixels, subject: Subject) -> Cutout:
    """The subject with edges that carry its own colours, not those of what was behind it."""
    alpha = subject.alpha
    height, width = alpha.shape
    pad = max(4, round(0.02 * max(height, width)))
    left, top, right, bottom = _bounds(alpha > 0.02, pad)
    part, soft = picture[top:bottom, left:right], alpha[top:bottom, left:right]
    # Where alpha is partial the picture holds a mixture; the pure colour is carried outwards from inside the subject.
    inside = (soft > 0.92).astype(np.float32)
    reach = max(1.2, 0.004 * max(height, width))
    weight = cv2.GaussianBlur(inside, (0, 0), reach)
    pure = (
        cv2.GaussianBlur(part.astype(np.float32) * inside[..., None], (0, 0), reach)
        / np.maximum(weight, 1e-3)[..., None]
    )
    known = np.maximum(inside, (weight < 0.02).astype(np.float32))[..., None]
    colour = part * known + pure * (1 - known)
    pixels = np.dstack([np.clip(colour, 0, 255) * soft[..., None], soft * 255])
    # One clear pixel around, so that nothing is dragged along when the sheet is warped.
    sheet = np.zeros((bottom - top + 2, right - left + 2, 4), np.uint8)
    sheet[1:-1, 1:-1] = np.rint(pixels)
    if bottom == height:
        sheet[-1] = sheet[-2]  # a subject cut by the picture's own border has no edge there
    if top == 0:
        sheet[0] = sheet[1]
    if left == 0:
        sheet[:, 0] = sheet[:, 1]
    if right == width:
        sheet[:, -1] = sheet[:, -2]
    return Cutout(sheet, left - 1, top - 1)


def fill_behind(picture: Pixels, alpha: Mask) -> Pixels:
    """The scene without its subject, `[height, width, 3]`.

    What a move uncovers is a strip along the outline. There the fill mirrors the scene sideways across the outline, which
    keeps its texture; deeper in, where nothing is ever seen, it fades into a smooth spread of the surrounding colours.
    """
    height, width = alpha.shape
    scale = min(1.0, _FILL_SIDE / max(height, width))
    small_size = max(2, round(width * scale)), max(2, round(height * scale))
    # Grown, so that not even the blurred rim of the subject stays behind as a ghost.
    grow = max(2, round(0.007 * max(small_size)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * grow + 1, 2 * grow + 1))
    hole = cv2.dilate(
        (cv2.resize(alpha, small_size, interpolation=cv2.INTER_AREA) > 0.03).astype(np.uint8), kernel
    )
    # A calm outline: a ragged one would tear the texture from row to row.
    hole = (cv2.GaussianBlur(hole.astype(np.float32), (0, 0), 1.0 + 0.3 * grow) > 0.42).astype(np.uint8)
    small = cv2.resize(picture, small_size, interpolation=cv2.INTER_AREA)
    smooth = _spread(small.astype(np.float32), 1.0 - hole.astype(np.float32))
    (from_left, from_right, lean), trust = _mirror(hole.astype(np.uint8))
    left, top, right, bottom = _bounds(
        cv2.resize(hole, (width, height), interpolation=cv2.INTER_LINEAR) > 0, 4
    )
    box = np.s_[top:bottom, left:right]
    zoom_x, zoom_y = width / small_size[0], height / small_size[1]

    def enlarged(field: NDArray[np.float32]) -> NDArray[np.float32]:
        size = (right - left, bottom - top)
        to_small = np.array(
            [[1 / zoom_x, 0, (left + 0.5) / zoom_x - 0.5], [0, 1 / zoom_y, (top + 0.5) / zoom_y - 0.5]]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(field, to_small, size, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(
            np.float32
        )

    y = np.broadcast_to(
        np.arange(top, bottom, dtype=np.float32)[:, None], (bottom - top, right - left)
    ).copy()

    def looked_up(places: NDArray[np.float32]) -> NDArray[np.float32]:
        x = (enlarged(places) + 0.5) * zoom_x - 0.5
        return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101).astype(
            np.float32
        )

    part = enlarged(lean)[..., None]
    mirrored = looked_up(from_left) * part + looked_up(from_right) * (1 - part)
    share = np.clip(enlarged(trust), 0, 1)[..., None]
    fill = mirrored * share + enlarged(smooth) * (1 - share)
    # The seam lies within the grown rim, on true background, and is blended over a few pixels of it.
    near = max(1, round(0.5 * grow * zoom_x))
    tinted = cv2.dilate(
        (alpha[box] > 0.03).astype(np.float32), np.ones((2 * near + 1, 2 * near + 1), np.uint8)
    )
    seam = np.maximum(cv2.GaussianBlur(tinted, (0, 0), 0.5 * near), tinted)[..., None]
    result = picture.copy()
    result[box] = np.rint(np.clip(picture[box] * (1 - seam) + fill * seam, 0, 255))
    return result


def _bounds(mask: NDArray[np.bool_], pad: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is set, padded and kept within."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return (
        max(0, int(columns[0]) - pad),
        max(0, int(rows[0]) - pad),
        min(width, int(columns[-1]) + 1 + pad),
        min(height, int(rows[-1]) + 1 + pad),
    )


def _mirror(hole: NDArray[np.uint8]) -> tuple[list[NDArray[np.float32]], NDArray[np.float32]]:
    """For each pixel of the hole where it lands when mirrored across the hole's sides in its own row.

    Returns `[x from the left side, x from the right side, share of the left one]` and how far both are to be trusted, 0..1.
    Rows, not the nearest outline: level lines (horizon, shelf, mortar) stay level, and upright ones upright.
    """
    rows, columns = hole.shape
    x = np.broadcast_to(np.arange(columns, dtype=np.float32), (rows, columns))
    free = hole == 0
    last = np.maximum.accumulate(np.where(free, x, -np.inf), axis=1)
    first = np.minimum.accumulate(np.where(free, x, np.inf)[:, ::-1], axis=1)[:, ::-1]
    from_left, from_right = x - last, first - x
    row = np.arange(rows)[:, None]
    usable = []
    places: list[NDArray[np.float32]] = []
    for place in (last - from_left, first + from_right):
        inside = (place >= 0) & (place <= columns - 1)
        safe = np.where(inside, place, 0).astype(np.float32)
        places.append(safe)
        usable.append(inside & free[row, safe.astype(np.int32)])
    # A narrow change-over from one side to the other: a wide one would show both at once.
    with np.errstate(invalid="ignore"):
        lean = np.clip(
            (from_right - from_left) / np.maximum(0.2 * (from_left + from_right), 1.0) * 0.5 + 0.5, 0, 1
        )
    share = np.where(usable[0] & usable[1], lean, usable[0].astype(np.float32)).astype(np.float32)
    nearest = np.minimum(np.where(usable[0], from_left, np.inf), np.where(usable[1], from_right, np.inf))
    deep = 0.075 * max(rows, columns)
    trust = np.clip(1.6 - nearest / deep, 0, 1) * (usable[0] | usable[1])
    return [*places, share], cv2.GaussianBlur(trust.astype(np.float32), (0, 0), 1.5)


def _spread(colours: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Known colours (`weight` 1) spread over unknown places (0): averaged down a pyramid, then filled in on the way up.

    The first levels shrink the width only: scenes are made of level bands (ground, horizon, shelves), which should run on
    behind the subject at their own height.
    """
    rows, columns = weight.shape
    if columns > 24:
        size = ((columns + 1) // 2, rows)
    elif rows > 2 or columns > 2:
        size = ((columns + 1) // 2, (rows + 1) // 2)
    else:
        total = max(float(weight.sum()), 1e-6)
        mean = (colours * weight[..., None]).sum((0, 1)) / total
        return np.where(weight[..., None] > 0, colours, mean).astype(np.float32)
    down_weight = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    down = (
        cv2.resize(colours * weight[..., None], size, interpolation=cv2.INTER_AREA)
        / np.maximum(down_weight, 1e-6)[..., None]
    )
    coarse = _spread(down.astype(np.float32), np.minimum(down_weight * 4.0, 1.0).astype(np.float32))
    up = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR)
    spread: NDArray[np.float32] = (colours * weight[..., None] + up * (1 - weight[..., None])).astype(
        np.float32
    )
    return spread
