"""What an MP4 says of itself, in the GIF or WebP that is made from it: written beside the frames, and read back. One copy of both.

A GIF has it as a comment before its first frame, a WebP as the description in its EXIF. Frames, times and repeats stay as they are.
Sources: GIF89a specification 24, WebP container specification (RFC 9649), EXIF's tag 0x010E (ImageDescription).
"""

import json
import shutil
import struct
from pathlib import Path

from PIL import ExifTags, Image

from farm.animation import ClipFormat
from farm.video import Metadata, parse_metadata

_LONGEST = 255
"""Bytes in one piece of a GIF's comment."""
_HAS_EXIF = 0x08
"""In the flags of a WebP's VP8X chunk."""


def inscribe(made: Path, kind: ClipFormat, said: Metadata) -> None:
    """Writes into `made`, a GIF or WebP that ffmpeg has just finished, what its clip says of itself; nothing where that says nothing.

    Raises:
        OSError: the disk refuses; the file may be spoilt.
    """
    if not said:
        return
    text = json.dumps(said, sort_keys=True)  # ASCII, which is all that either format promises to keep
    if kind is ClipFormat.GIF:
        _into_gif(made, text.encode())
    else:
        _into_webp(made, text)


def read_inscription(path: Path) -> Metadata | None:
    """What a GIF or WebP says of itself, empty if it says nothing that we understand; None for a file that is neither.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        try:
            with Image.open(file, formats=("GIF", "WEBP")) as image:
                if image.format == "GIF":
                    comment = image.info.get("comment", b"")
                    return parse_metadata(comment.decode(errors="replace"))
                return parse_metadata(str(image.getexif().get(ExifTags.Base.ImageDescription, "")))
        except Exception:  # noqa: BLE001 - a broken file ends in whatever Pillow met in it
            return None


def _into_gif(made: Path, text: bytes) -> None:
    pieces = (text[at : at + _LONGEST] for at in range(0, len(text), _LONGEST))
    comment = b"\x21\xfe" + b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"
    whole = made.with_name(f"{made.name}.inscribed")
    with made.open("rb") as source, whole.open("wb") as target:
        head = source.read(13)
        flags = head[10]
        colours = source.read(3 << (flags & 7) + 1) if flags & 0x80 else b""
        # How often it plays comes first: some readers look for that right behind the colours only.
        repeats = source.read(19)
        if not repeats.startswith(b"\x21\xff\x0bNETSCAPE2.0"):
            source.seek(-len(repeats), 1)
            repeats = b""
        target.write(head + colours + repeats + comment)
        shutil.copyfileobj(source, target, 1 << 20)
    whole.replace(made)


def _into_webp(made: Path, text: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = text
    chunk = _chunk(b"EXIF", exif.tobytes().removeprefix(b"Exif\0\0"))
    with made.open("r+b") as file:
        if file.read(16)[12:] != b"VP8X":
            _extend(made)
        file.seek(0, 2)
        file.write(chunk)
        size = file.tell()
        file.seek(4)
        file.write(struct.pack("<I", size - 8))
        file.seek(20)
        flags = file.read(1)[0]
        file.seek(20)
        file.write(bytes([flags | _HAS_EXIF]))


def _extend(made: Path) -> None:
    """Gives a WebP of a single picture the chunk that one with EXIF begins with."""
    with Image.open(made) as image:
        width, height = image.size
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    data = made.read_bytes()
    with made.open("r+b") as file:
        file.write(data[:12] + _chunk(b"VP8X", canvas) + data[12:])


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
