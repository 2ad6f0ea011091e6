"""Motion-compensated interpolation by ffmpeg (`minterpolate`, mode `mci`), on the PC's processor.

The motion of each block between two frames is estimated both ways, and the new frame is put together of blocks moved along a part of it.
Against in-between frames that were really rendered it is 7 dB nearer than cross-fading (docs/decisions/0012).
"""

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import IO

import numpy as np

from farm.errors import RenderFailedError
from farm.video import ffmpeg_path
from node_agent.interpolate.base import InterpolationRequest
from node_agent.pipelines.base import Frame, Report

_FILTER = (
    # No search for cuts: a clip that grows out of one picture has none, and fast motion taken for one would be left to stutter.
    "minterpolate=fps={fps}:mi_mode=mci:mc_mode=aobmc:me_mode=bidir:mb_size=8:scd=none"
)
_AFTER_THE_LAST = 3
"""How often the last frame is repeated, so that the filter gets to the end of the clip: it looks a frame ahead of each pair."""

_LOOK_EVERY_S = 0.1
"""How often a cancel is looked for while ffmpeg works on a frame."""
_TELL_EVERY_S = 0.2
"""How often progress is told: a large clip has 1,920 frames, and each word is a line on the disk."""
_READ = 1 << 20
_END_S = 10.0
"""How long ffmpeg may take to end by itself once it has said all."""


def interpolate(request: InterpolationRequest, report: Report) -> Iterator[Frame]:
    """As `node_agent.interpolate.base.Interpolate`."""
    wanted = request.wanted
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            _command(request), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints
        )
        try:
            report.step(0, wanted.frames)
            told = time.monotonic()
            for done in range(1, wanted.frames + 1):
                data = _frame(process, 3 * wanted.width * wanted.height, report)
                # At the end its own word counts too: damage at the end of the clip may be found when the frames are out already.
                if data is None or (done == wanted.frames and process.wait(_END_S) != 0):
                    raise _explained(done - 1, request, process.wait(_END_S), complaints)
                if done == wanted.frames or time.monotonic() - told >= _TELL_EVERY_S:
                    report.step(done, wanted.frames)
                    told = time.monotonic()
                yield np.frombuffer(data, np.uint8).reshape(wanted.height, wanted.width, 3)
        finally:
            process.kill()  # it has given all that was wanted, or nobody wants more
            process.wait()
            assert process.stdout is not None  # noqa: S101 - opened as a pipe above
            process.stdout.close()


def _command(request: InterpolationRequest) -> list[str]:
    wanted = request.wanted
    filters = (
        f"tpad=stop_mode=clone:stop={_AFTER_THE_LAST}",
        _FILTER.format(fps=wanted.fps),
        "scale=in_color_matrix=bt709:in_range=tv:out_range=pc:flags=accurate_rnd+full_chroma_int",
        "format=rgb24",
    )
    return [
        ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-xerror",
        "-err_detect", "explode", "-threads", "1", "-filter_threads", "2", "-protocol_whitelist", "file",
        "-f", "mov", "-i", f"file:{request.source}",
        "-vf", ",".join(filters), "-frames:v", str(wanted.frames), "-fps_mode", "passthrough",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1",
    ]  # fmt: skip


def _frame(process: "subprocess.Popen[bytes]", size: int, report: Report) -> bytearray | None:
    """The next `size` bytes; None where ffmpeg ends before. Looks for a cancel while it waits, and times the wait."""
    assert process.stdout is not None  # noqa: S101 - opened as a pipe above
    pipe = process.stdout.fileno()
    data = bytearray()
    while len(data) < size:
        with report.part("interpolate"):
            if not select.select([pipe], [], [], _LOOK_EVERY_S)[0]:
                continue
            more = os.read(pipe, min(_READ, size - len(data)))
        if not more:
            return None
        data += more
    return data


def _explained(
    given: int, request: InterpolationRequest, code: int, complaints: IO[bytes]
) -> RenderFailedError:
    complaints.seek(0)
    lines = [line.strip() for line in complaints.read().decode(errors="replace").splitlines() if line.strip()]
    last = lines[-1].rstrip(".") if lines else f"it ended with {code} and said nothing"
    return RenderFailedError(
        f"ffmpeg interpolated {given} of the {request.wanted.frames} frames that were asked for: {last}.",
        "The stage can be tried again; the clip that it works on is kept.",
    )
