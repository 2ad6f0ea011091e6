"""Frames to an MP4 that a browser plays, and its thumbnail: streamed through ffmpeg, with one frame held at a time."""

import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import psutil
from PIL import Image

from farm.errors import EncodingFailedError, RenderFailedError
from farm.stages import BETWEEN_PIXELS, FINISHED_PIXELS
from farm.video import Metadata, ffmpeg_path
from node_agent.pipelines.base import Frame

_CRF = 17
"""x264's constant quality; about where people stop seeing a difference from the frames."""

_CRF_BETWEEN = 4
"""For a clip that a later stage works on: with all colours it costs the finished clip 0.1 dB (docs/decisions/0012)."""

_PRESET = "veryfast"
"""On 16 frames of 512x512 "medium" takes half as long again for a file that is 1 % smaller; "ultrafast" is 4 times larger."""

_THUMBNAIL_WIDTH = 320
_IDLE_S = 60.0
"""How long ffmpeg, after the last frame, may do nothing before its file is finished. A busy old PC has a minute's work then."""
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class EncodedClip:
    """A finished clip. Sizes in bytes; `seconds` is its playing time."""

    video: Path
    video_sha256: str
    video_size: int
    thumbnail: Path
    thumbnail_sha256: str
    thumbnail_size: int
    frames: int
    seconds: float


def encode(
    frames: Iterator[Frame],
    target: Path,
    *,
    fps: int,
    width: int,
    height: int,
    count: int,
    metadata: Metadata,
    between_stages: bool = False,
) -> EncodedClip:
    """Writes `frames` (each `[height, width, 3]` RGB) to `target`, and the middle one as a JPEG beside it (`.jpg`).

    H.264, yuv420p in BT.709, index first; `between_stages`: with all colours and nearly without loss. `metadata` goes into the file as
    JSON (`farm.video.read_metadata` gives it back); where it says `draft`, the clip's title is "Draft". Both files appear under their
    names only when all is well, the video last.

    Raises:
        RenderFailedError: there were not `count` frames, or one had another shape or type.
        EncodingFailedError: ffmpeg could not write the file.
        Whatever `frames` raises, after ffmpeg is ended and its file removed.
    """
    partial = target.with_name(f".{target.name}.partial")
    thumbnail = target.with_suffix(".jpg")
    partial_thumbnail = thumbnail.with_name(f".{thumbnail.name}.partial")
    try:
        command = _command(partial, fps, width, height, metadata, between_stages=between_stages)
        middle = _through_ffmpeg(frames, command, target, width, height, count)
        try:
            middle.save(partial_thumbnail, "JPEG", quality=85, optimize=True)
            for file in (partial, partial_thumbnail):
                _onto_the_disk(file)
            partial_thumbnail.replace(thumbnail)
            partial.replace(target)
        except OSError as error:
            raise EncodingFailedError(
                f"Cannot write {target.name}: {error.strerror or error}.", _room(target)
            ) from error
    finally:
        partial.unlink(missing_ok=True)
        partial_thumbnail.unlink(missing_ok=True)
        if isinstance(frames, Generator):
            frames.close()  # a render that is broken off gives its memory back now, not when the error is forgotten
    return EncodedClip(
        video=target,
        video_sha256=_sha256(target),
        video_size=target.stat().st_size,
        thumbnail=thumbnail,
        thumbnail_sha256=_sha256(thumbnail),
        thumbnail_size=thumbnail.stat().st_size,
        frames=count,
        seconds=count / fps,
    )


def _onto_the_disk(file: Path) -> None:
    """Before the attempt's last word is there: after a power cut that would tell of a clip that is not."""
    with file.open("rb") as written:
        os.fsync(written.fileno())


class _FfmpegFault(Exception):  # noqa: N818 - never leaves this module
    """ffmpeg ended with a failure, or did not end."""


def _through_ffmpeg(
    frames: Iterator[Frame], command: list[str | bytes], target: Path, width: int, height: int, count: int
) -> Image.Image:
    """Runs one ffmpeg from the first frame to the finished file; it is gone when this returns or raises."""
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
            )
        except OSError as error:
            raise EncodingFailedError(
                f"ffmpeg cannot be run: {error.strerror or error}.",
                "Install the farm again on that PC with deploy/setup.sh.",
            ) from error
        try:
            middle = _feed(process, frames, width, height, count)
            _finish(process)
        except _FfmpegFault as error:
            _end(process)
            raise _explained(process.returncode, complaints, target) from error
        finally:
            _end(process)
    return middle


def _command(
    partial: Path, fps: int, width: int, height: int, metadata: Metadata, *, between_stages: bool
) -> list[str | bytes]:
    pixels, crf = (BETWEEN_PIXELS, _CRF_BETWEEN) if between_stages else (FINISHED_PIXELS, _CRF)
    title = ["-metadata", "title=Draft"] if metadata.get("draft") else []
    # As bytes: Python would write it in the letters of the PC's language, which may not be UTF-8, and a prompt would come back as another.
    comment = f"comment={json.dumps(metadata, ensure_ascii=False, sort_keys=True)}".encode()
    return [
        ffmpeg_path(), "-hide_banner", "-nostats", "-loglevel", "error", "-y", "-xerror",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}", "-framerate", str(fps), "-i", "pipe:0",
        # Each frame that comes in goes out once, at its own time.
        "-fps_mode", "passthrough",
        # Converted as what the file says it is: otherwise players guess the colours by the size of the picture.
        "-vf", f"scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int,format={pixels},"
        "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv",  # options of the encoder would be passed over
        "-c:v", "libx264", "-preset", _PRESET, "-crf", str(crf), "-threads", "2",
        "-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact",
        *title, "-metadata", comment,
        "-f", "mp4", f"file:{partial}",
    ]  # fmt: skip


def _feed(
    process: "subprocess.Popen[bytes]", frames: Iterator[Frame], width: int, height: int, count: int
) -> Image.Image:
    """Hands the frames to ffmpeg; returns the middle one, small."""
    assert process.stdin is not None  # noqa: S101 - opened as a pipe above
    middle: Image.Image | None = None
    given = 0
    for frame in frames:
        if given == count:
            raise RenderFailedError(
                f"The model gave more than the {count} frames that were asked for.", _REPORT
            )
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            shape = "x".join(str(side) for side in frame.shape)
            raise RenderFailedError(
                f"The model gave frame {given + 1} as {shape} {frame.dtype}; {height}x{width}x3 uint8 was asked for.",
                _REPORT,
            )
        try:
            process.stdin.write(np.ascontiguousarray(frame).data)
        except BrokenPipeError as error:
            raise _FfmpegFault from error
        if given == count // 2:
            middle = Image.fromarray(frame)
            middle.thumbnail((_THUMBNAIL_WIDTH, 4 * _THUMBNAIL_WIDTH), Image.Resampling.LANCZOS)
        given += 1
    if given != count or middle is None:
        raise RenderFailedError(f"The model gave {given} of the {count} frames that were asked for.", _REPORT)
    return middle


def _finish(process: "subprocess.Popen[bytes]") -> None:
    assert process.stdin is not None  # noqa: S101 - opened as a pipe above
    try:
        process.stdin.close()
        if _wait_at_work(process) != 0:
            raise _FfmpegFault
    except (BrokenPipeError, subprocess.TimeoutExpired) as error:
        raise _FfmpegFault from error


def _wait_at_work(process: "subprocess.Popen[bytes]") -> int:
    """Its exit code, waited for as long as it computes. Raises TimeoutExpired where it does not."""
    spent, since = 0.0, time.monotonic()
    while True:
        try:
            return process.wait(_LOOK_EVERY_S)
        except subprocess.TimeoutExpired:
            now, times = time.monotonic(), psutil.Process(process.pid).cpu_times()
            if times.user + times.system > spent:
                spent, since = times.user + times.system, now
            elif now - since > _IDLE_S:
                raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends ffmpeg if it still runs, and leaves no pipe behind. Does nothing the second time."""
    if process.returncode is None:
        try:
            process.wait(0 if process.stdin is not None and not process.stdin.closed else 0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # it ended with bytes of ours unread, which the caller says better
            process.stdin.close()


def _explained(code: int | None, complaints: IO[bytes], target: Path) -> EncodingFailedError:
    complaints.seek(0)
    lines = [line.strip() for line in complaints.read().decode(errors="replace").splitlines() if line.strip()]
    # The line with the system's reason is worth more than the ones about closing up after it.
    telling = [
        line
        for line in lines
        if "No space left" in line or "Permission denied" in line or "Read-only" in line
    ]
    last = (telling or lines or [f"it ended with {code} and said nothing"])[-1].rstrip(".")
    return EncodingFailedError(f"ffmpeg could not write {target.name}: {last}.", _room(target))


def _room(target: Path) -> str:
    return f"Check that the disk with {target.parent} has room and that this program may write there."


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


_REPORT = "This is a fault of the model's code on that PC, not of your picture; the log there has more."
