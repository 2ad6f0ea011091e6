"""The small picture by which a person sees what a running attempt has made so far."""

import io

from PIL import Image

from node_agent.pipelines.base import Frame

_WIDTH = 320


def small_jpeg(frame: Frame) -> bytes:
    """A JPEG of `frame`, at most 320 pixels wide."""
    picture = Image.fromarray(frame)
    picture.thumbnail((_WIDTH, _WIDTH * 4), Image.Resampling.BILINEAR, reducing_gap=2.0)
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=80)
    return held.getvalue()
