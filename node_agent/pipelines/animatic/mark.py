"""The word DRAFT in a corner of every frame: plain to see at 128 pixels, modest at 1920, and not on the subject."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from node_agent.pipelines.base import Frame

_WORD = "DRAFT"


@dataclass(frozen=True, slots=True)
class Mark:
    """A small label and where it goes: `ink` premultiplied `[h, w, 3]`, `through` `[h, w, 1]` what shines through, 0..1."""

    left: int
    top: int
    ink: NDArray[np.float32]
    through: NDArray[np.float32]

    def put_on(self, frame: Frame) -> None:
        """Draws the label into `frame`."""
        height, width = self.through.shape[:2]
        part = frame[self.top : self.top + height, self.left : self.left + width]
        part[...] = np.rint(self.ink + part * self.through)


def draft_mark(width: int, height: int, subject: NDArray[np.float32] | None) -> Mark:
    """The label for frames of `width` x `height`, in the corner where there is least of `subject` (0..1, any size)."""
    side = min(width, height)
    size = max(9, min(round(0.042 * side), 40))
    font = ImageFont.load_default(size)
    scale = 3
    large = ImageFont.load_default(size * scale)
    gap = size * 0.12
    advance = [font.getlength(letter) + gap for letter in _WORD]
    pad_x, pad_y = size * 0.5, size * 0.32
    label_width = min(width, round(sum(advance) - gap + 2 * pad_x))
    label_height = min(height, round(size * 0.78 + 2 * pad_y))
    label = Image.new("RGBA", (label_width * scale, label_height * scale))
    draw = ImageDraw.Draw(label)
    box = (0, 0, label_width * scale - 1, label_height * scale - 1)
    draw.rounded_rectangle(box, radius=label_height * scale * 0.28, fill=(18, 20, 24, 175))
    x = pad_x
    for letter, step in zip(_WORD, advance, strict=True):
        # Small letters need bolder strokes to stay white once they are reduced.
        bold = 1 if size <= 14 else 0
        at = (x * scale, label_height * scale / 2)
        draw.text(at, letter, font=large, fill=(255, 255, 255, 245), anchor="lm", stroke_width=bold)
        x += step
    small = np.asarray(
        label.convert("RGBa").resize((label_width, label_height), Image.Resampling.BOX), np.float32
    )
    inset = max(2, round(0.022 * side))
    left_edge, right_edge = min(inset, width - label_width), max(0, width - label_width - inset)
    top_edge, bottom_edge = min(inset, height - label_height), max(0, height - label_height - inset)
    # In this order where the subject leaves them equally free.
    corners = [
        (right_edge, bottom_edge),
        (left_edge, bottom_edge),
        (right_edge, top_edge),
        (left_edge, top_edge),
    ]

    def covered(corner: tuple[int, int]) -> float:
        if subject is None:
            return 0.0
        rows, columns = subject.shape
        top, left = corner[1] * rows // height, corner[0] * columns // width
        bottom = max(top + 1, (corner[1] + label_height) * rows // height)
        right = max(left + 1, (corner[0] + label_width) * columns // width)
        return round(float(subject[top:bottom, left:right].mean()), 2)

    left, top = min(corners, key=covered)
    return Mark(left, top, small[..., :3].copy(), 1.0 - small[..., 3:] / 255.0)
