"""A CPU card's test after it failed: a tiny animatic render whose result is known, from the picture to the decoded clip.

In a process of its own, as a GPU's first computation (`node_agent.selftest`): what made the card fail may end or hang it, and what the
render imports would stay in the worker's memory. The picture is of one colour: whatever the camera does, so is every frame, save for the
mark of a draft in a corner.
"""

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from farm.catalogue.models import builtin_models
from farm.errors import FarmError
from farm.model import MemoryPlan, RenderSettings
from farm.video import verify
from node_agent.apart import run_apart
from node_agent.encode import encode
from node_agent.pipelines.animatic import open_model
from node_agent.pipelines.base import Frame, RenderRequest, Unheard

log = logging.getLogger(__name__)

LIMIT_S = 120.0
"""It takes a second; a disk that hangs takes for ever."""
MODEL = "animatic"
SETTINGS = RenderSettings(MODEL, width=128, height=96, frames=8, steps=1, guidance=1.0, fps=8, seed=1)
COLOUR = (90, 140, 190)
OFF = 2
"""By how much a channel may differ: frames are computed in whole numbers, with a rounding for each layer."""


def render_trouble_apart(name: str) -> str | None:
    """What `render_trouble` says, asked in a process of its own; `name` is the card's."""
    try:
        done = run_apart(__name__, limit_s=LIMIT_S, environment={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    except subprocess.TimeoutExpired:
        return f"{name} did not finish a tiny render within {LIMIT_S:.0f} s. Look at that PC's disk and memory, then restart it."
    if done.returncode == 0:
        return None
    log.error("a tiny render on %s ended with %s:\n%s", name, done.returncode, done.stderr)
    lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
    return f"{name} failed a tiny render: {lines[-1].rstrip('.')}. The worker's log has the rest."


def render_trouble() -> str | None:
    """Why a tiny render on this PC's processor does not give what it must; None if it does."""
    picture = Image.new("RGB", (SETTINGS.width, SETTINGS.height), COLOUR)
    wrong: list[int] = []

    def frames() -> Iterator[Frame]:
        model, report = open_model(builtin_models()[MODEL], "cpu"), Unheard()
        model.load(MemoryPlan(), report)
        for number, frame in enumerate(model.render(RenderRequest(SETTINGS, picture, MemoryPlan()), report)):
            middle = frame[SETTINGS.height // 4 : SETTINGS.height // 2, :].astype(int)
            if np.abs(middle - COLOUR).max() > OFF:
                wrong.append(number)
            yield frame

    try:
        with tempfile.TemporaryDirectory() as directory:
            clip = encode(
                frames(),
                Path(directory) / "clip.mp4",
                fps=SETTINGS.fps,
                width=SETTINGS.width,
                height=SETTINGS.height,
                count=SETTINGS.frames,
                metadata={"model": MODEL},
            )
            verify(
                clip.video,
                width=SETTINGS.width,
                height=SETTINGS.height,
                frames=SETTINGS.frames,
                fps=SETTINGS.fps,
                sha256=clip.video_sha256,
            )
    except (FarmError, OSError) as error:
        return str(error)
    if wrong:
        return f"{len(wrong)} of {SETTINGS.frames} frames have another colour than the picture"
    return None


if __name__ == "__main__":
    trouble = render_trouble()
    if trouble is not None:
        sys.exit(trouble)
