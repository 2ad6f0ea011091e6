"""Reads finished clips: checks that one is what was asked for by decoding all of it, and what it says about itself."""

import hashlib
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import imageio_ffmpeg

from farm.errors import ConfigurationError, RenderFailedError

Metadata = dict[str, Any]
"""What a clip says about itself: JSON values by name."""

_TIMEOUT_S = 120.0
"""Decoding the largest clip that the farm makes (240 frames of 1920x1080) takes about 5 s on a slow core."""

_REDO = "The attempt's result is not used; the job can be tried again."

# ffmpeg prints the clip's own words (title, comment) too, behind their names: only what stands where ffmpeg's own words stand counts.
_STREAM = re.compile(r"^\[info\] +Stream #0:\d+[^ ]*: Video: (\w+)[^,\n]*, (\w+)", re.MULTILINE)
_FAULT = re.compile(r"^(?:\[[^\]\n]* @ [^\]\n]*\] )*\[(?:error|fatal)\] (.*)", re.MULTILINE)

_COMMENT_BOXES = ("moov", "udta", "meta", "ilst", "\u00a9cmt", "data")
_MOST_BOXES = 64
"""Boxes at the top of a file that are looked at; a clip of the farm has four. A hostile file could have millions."""
_MOST_INDEX = 16 << 20
"""Bytes of the index (`moov`) that are read for the metadata; a clip of 240 frames has some 10 KB."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a decoded clip is. `seconds` is its playing time; `faststart`: a browser can play it before it has it all."""

    width: int
    height: int
    frames: int
    fps: Fraction
    codec: str
    pixel_format: str
    seconds: float
    size: int
    faststart: bool


@cache
def ffmpeg_path() -> str:
    """The ffmpeg that came with imageio-ffmpeg.

    Raises:
        ConfigurationError: there is none for this kind of PC.
    """
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise ConfigurationError(
            "No ffmpeg can be run on this PC.",
            "Install ffmpeg with the system's packages, or set IMAGEIO_FFMPEG_EXE to its path.",
        ) from error


def verify(
    path: Path,
    *,
    width: int,
    height: int,
    frames: int,
    fps: int,
    pixel_format: str = "yuv420p",
    sha256: str | None = None,
) -> VideoFacts:
    """Decodes the whole clip at `path` and checks it: H.264, the pixel format, the size, each frame there once and at its time.

    Damage inside a picture can decode without a complaint, only looking wrong; `sha256`, the hash that the maker gave, finds
    that too. One ffmpeg process, no frame is kept.

    Raises:
        RenderFailedError: it is not such a clip; the message says in what.
    """
    if not path.is_file():
        raise RenderFailedError(f"The clip {path.name} is not there.", _REDO)
    if sha256 is not None:
        with path.open("rb") as source:
            found = hashlib.file_digest(source, "sha256").hexdigest()
        if found != sha256:
            raise RenderFailedError(
                f"The clip {path.name} was changed on its way: its SHA-256 is {found}, not {sha256}.", _REDO
            )
    order = [kind for kind, _, _ in _boxes(path)]
    if "moov" not in order or "mdat" not in order:
        raise RenderFailedError(f"The clip {path.name} is not a complete MP4 file.", _REDO)
    facts = _decode(path, faststart=order.index("moov") < order.index("mdat"))
    wrong = [
        f"{what} is {got}, not {asked}"
        for what, got, asked in (
            ("its codec", facts.codec, "h264"),
            ("its pixel format", facts.pixel_format, pixel_format),
            ("its size", f"{facts.width}x{facts.height}", f"{width}x{height}"),
            ("its number of frames", facts.frames, frames),
            ("its frame rate", facts.fps, fps),
        )
        if got != asked
    ]
    if not facts.faststart:
        wrong.append("its index is at the end, so that a browser cannot begin to play it")
    if wrong:
        raise RenderFailedError(f"The clip {path.name} is not what was asked for: {'; '.join(wrong)}.", _REDO)
    return facts


def read_metadata(path: Path) -> Metadata:
    """What the clip's maker wrote into it (model, settings, seed, draft); empty if it says nothing that we understand.

    Raises:
        OSError: the file cannot be read.
    """
    return parse_metadata(_comment(path))


def parse_metadata(text: str) -> Metadata:
    """What a clip's own words say; empty if they are not ours."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # ValueError also for a number of more than 4,300 digits
        return {}
    return found if isinstance(found, dict) else {}


def is_mp4(path: Path) -> bool:
    """Whether the file is built as a complete MP4; nothing is decoded.

    Raises:
        OSError: the file cannot be read.
    """
    return {"moov", "mdat"} <= {kind for kind, _, _ in _boxes(path)}


def _decode(path: Path, *, faststart: bool) -> VideoFacts:
    command = [
        ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info",
        # Any damage ends it. One thread: for short clips starting more takes longer than it saves.
        "-xerror", "-err_detect", "explode", "-threads", "1", "-filter_threads", "1",
        "-f", "mov", "-protocol_whitelist", "file", "-i", str(path.absolute()),
        # Every decoded frame is one line (its time, length and checksum); none is doubled or dropped to keep a rate.
        "-map", "0", "-fps_mode", "passthrough", "-enc_time_base", "demux", "-f", "framecrc", "-",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RenderFailedError(
            f"The clip {path.name} did not decode within {_TIMEOUT_S:.0f} s.", _REDO
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"ffmpeg cannot be run: {error}.",
            "Install the farm again with deploy/setup.sh, or set IMAGEIO_FFMPEG_EXE to an ffmpeg.",
        ) from error
    said = done.stderr.decode(errors="replace")
    fault = _FAULT.search(said)
    if done.returncode != 0 or fault:
        reason = fault[1].rsplit("] ", 1)[-1] if fault else f"ffmpeg ended with {done.returncode}"
        raise RenderFailedError(f"The clip {path.name} is damaged: {reason}.", _REDO)
    return _facts(path, done.stdout.decode(), said, faststart=faststart)


def _facts(path: Path, listing: str, said: str, *, faststart: bool) -> VideoFacts:
    """What ffmpeg's frame listing and its description of the streams say.

    The listing is `#tb 0: 1/8`, `#dimensions 0: 512x512`, then a line per frame: stream, dts, pts, duration, size, checksum.
    """
    head = {}
    rows = []
    for line in listing.splitlines():
        if line.startswith("#"):
            key, _, value = line[1:].partition(":")
            head[key.strip()] = value.strip()
        elif line.strip():
            rows.append([int(part, 0) for part in line.split(",")[:5]])
    stream = _STREAM.search(said)
    if stream is None or "dimensions 0" not in head or not rows:
        raise RenderFailedError(f"The clip {path.name} has no pictures.", _REDO)
    if any(row[0] != 0 for row in rows):
        raise RenderFailedError(f"The clip {path.name} has more than one track.", _REDO)
    base = Fraction(head["tb 0"])
    times = [row[2] for row in rows]
    steps = {later - earlier for earlier, later in pairwise(times)} or {rows[0][3]}
    if len(steps) != 1 or min(steps) <= 0 or times[0] != 0:
        raise RenderFailedError(f"The frames of the clip {path.name} are not evenly spaced in time.", _REDO)
    step = base * steps.pop()
    width, height = (int(side) for side in head["dimensions 0"].split("x"))
    return VideoFacts(
        width=width,
        height=height,
        frames=len(rows),
        fps=1 / step,
        codec=stream[1],
        pixel_format=stream[2],
        seconds=float(step * len(rows)),
        size=path.stat().st_size,
        faststart=faststart,
    )


def _boxes(path: Path) -> Iterator[tuple[str, int, int]]:
    """The boxes at the top of an MP4 file: name, where the content begins, where it ends. Stops at the first impossible one."""
    return islice(_all_boxes(path), _MOST_BOXES)


def _all_boxes(path: Path) -> Iterator[tuple[str, int, int]]:
    end = path.stat().st_size
    with path.open("rb") as source:
        at = 0
        while at + 8 <= end:
            source.seek(at)
            head = source.read(16)
            size, kind, begin = int.from_bytes(head[:4], "big"), head[4:8].decode("latin-1"), at + 8
            if size == 1:
                size, begin = int.from_bytes(head[8:16], "big"), at + 16
            elif size == 0:
                size = end - at
            if size < begin - at or at + size > end:
                return
            yield kind, begin, at + size
            at += size


def _comment(path: Path) -> str:
    """The text of the comment tag (`moov.udta.meta.ilst.(c)cmt.data`), or nothing."""
    data = b""
    for kind, begin, end in _boxes(path):
        if kind == "moov" and end - begin <= _MOST_INDEX:
            with path.open("rb") as source:
                source.seek(begin)
                data = source.read(end - begin)
    for name in _COMMENT_BOXES[1:]:
        data = _child(data, name)
        if name == "meta":
            data = data[4:]  # version and flags
    return data[8:].decode(errors="replace")  # type and locale


def _child(data: bytes, name: str) -> bytes:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return b""
        if data[at + 4 : at + 8].decode("latin-1") == name:
            return data[at + 8 : at + size]
        at += size
    return b""
