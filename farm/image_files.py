"""PNG, JPEG and WebP files taken apart without decoding: size, pixel parts, colour profile, EXIF block.

Everything here reads lengths that a stranger wrote, so each is checked against the bytes that are there.
Sources: PNG specification (third edition) 5 and 11, ITU T.81 annex B, the WebP container specification (RFC
9649).
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""The kinds that are taken, by Pillow's name for them."""

MAX_PROFILE = 4 << 20
"""Bytes of a colour profile that are read; the largest CMYK profiles in use have about 2 MB."""

MAX_SCANS = 50
"""Passes of a progressive JPEG; encoders write about ten, bombs thousands, each a pass over the picture."""

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (rb"GIF8[79]a", "a GIF"),
    (rb"BM.{4}\0\0\0\0", "a BMP"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "a TIFF (or a camera's raw file)"),
    (rb".{4}ftyp(?:avif|avis)", "an AVIF"),
    (rb".{4}ftyp(?:hei[cxms]|hev[cxms]|mif1|msf1)", "a HEIC (iPhone) picture"),
    (rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ", "a video"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000"),
    (rb"8BPS", "a Photoshop file"),
    (rb"\0\0\x01\0", "an icon (ICO)"),
    (rb"%PDF", "a PDF"),
    (
        rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*|<!DOCTYPE svg[^>]*>\s*)*<svg",
        "an SVG drawing",
    ),
    (rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body)", "a web page"),
    (rb"PK\x03\x04", "a ZIP archive"),
)
_OTHER_PATTERNS = tuple((re.compile(pattern, re.DOTALL | re.IGNORECASE), name) for pattern, name in _OTHERS)


class BrokenFileError(Exception):
    """The file's own structure does not hold together; the text says where, in a few words."""


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file taken apart. `width` and `height` in pixels as the header says.

    `pixels` is a complete file of the same kind without metadata; `plain` says that it may be stored as it is
    if it decodes to 8-bit RGB and needs no turning; `lossy` says how its pixels were compressed.
    """

    width: int
    height: int
    pixels: bytes
    plain: bool
    lossy: bool
    exif: bytes | None = None
    icc: bytes | None = None


def kind_of(data: bytes) -> str | None:
    """What the content is: a key of `MEDIA_TYPES`, or a few words for another known kind, or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    head = data[:1024]
    return next((name for pattern, name in _OTHER_PATTERNS if pattern.match(head)), None)


def take_apart(kind: str, data: bytes) -> PictureFile:
    """Reads the structure of a file of `kind` (a key of `MEDIA_TYPES`).

    Raises:
        BrokenFileError: cut off, or its parts contradict each other.
    """
    try:
        return {"PNG": _png, "JPEG": _jpeg, "WEBP": _webp}[kind](data)
    except (struct.error, IndexError) as error:
        raise BrokenFileError("it ends too early") from error


def orientation_of(exif: bytes) -> int:
    """How the picture must be turned: EXIF tag 274, 1 (upright) to 8; 1 where there is none or it cannot be read.

    Read here because Pillow parses every tag, and prints a warning for each that a stranger has broken.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, _kind, _count, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
            if tag == 274:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yields (name, content, the whole chunk), up to and with IEND."""
    at, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            raise BrokenFileError("it ends too early")
        yield name, data[at + 8 : end - 4], data[at:end]
        at = end


def _png(data: bytes) -> PictureFile:
    kept = [data[:8]]
    names: set[bytes] = set()
    header, exif, icc = b"", None, None
    for name, content, chunk in _png_chunks(data):
        if not names and (name != b"IHDR" or len(content) != 13):
            raise BrokenFileError("it has no header")
        if name == b"IHDR":
            if header:
                raise BrokenFileError("it has two headers")
            header = content
        if name in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            # Pillow leaves the checksums of the pixels unread.
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise BrokenFileError(f"the checksum of its {name.decode()} part is wrong")
            kept.append(chunk)
        elif name == b"eXIf":
            exif = content
        elif name == b"iCCP":
            icc = _inflated(content[content.find(b"\0") + 2 :])
        names.add(name)
    if b"IDAT" not in names:
        raise BrokenFileError("it holds no pixels")
    width, height, depth, colour = struct.unpack_from(">IIBB", header)
    plain = depth == 8 and colour == 2 and b"tRNS" not in names
    return PictureFile(width, height, b"".join(kept), plain, lossy=False, exif=exif, icc=icc)


def _inflated(data: bytes) -> bytes | None:
    """A packed profile, or None if it is damaged or over the limit: never more than the limit is unpacked."""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(data, MAX_PROFILE)
    except zlib.error:
        return None
    return profile if unpacker.eof else None


_JPEG_MARKER = re.compile(
    rb"\xff[^\x00\xd0-\xd7\xff]"
)  # inside a scan FF 00 is a value and FF D0..D7 are restarts
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields (marker, content, whole segment), up to the end marker; a scan's segment has its pixels."""
    at = 2
    while True:
        start = data.find(b"\xff", at)
        while 0 <= start < len(data) - 1 and data[start + 1] == 0xFF:
            start += 1  # any number of FF may pad a marker
        if start < 0 or start + 1 >= len(data):
            raise BrokenFileError("it ends too early")
        marker = data[start + 1]
        if marker == 0xD9:
            return
        at = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
        content = data[start + 4 : at]
        if marker == 0xDA:
            after = _JPEG_MARKER.search(data, at)
            at = after.start() if after else len(data)
        if at >= len(data):
            raise BrokenFileError("it ends too early")
        yield marker, content, data[start:at]


def _jpeg(data: bytes) -> PictureFile:
    kept, scans = [data[:2]], 0
    size: tuple[int, int] | None = None
    exif: bytes | None = None
    profile: dict[int, bytes] = {}
    for marker, content, segment in _jpeg_segments(data):
        if marker in _SOF:
            if size is not None:
                raise BrokenFileError("it has two headers")
            height, width = struct.unpack_from(">HH", content, 1)
            size = (width, height)
        elif marker == 0xDA:
            scans += 1
            if scans > MAX_SCANS:
                raise BrokenFileError(f"it has more than {MAX_SCANS} passes")
        elif marker == 0xE1 and content.startswith(b"Exif\0"):
            exif = exif or content
        elif marker == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
            profile[content[12]] = content[14:]
        if _jpeg_keeps(marker, content):
            kept.append(segment)
    if size is None or scans == 0:
        raise BrokenFileError("it holds no pixels")
    icc = b"".join(profile[number] for number in sorted(profile))[:MAX_PROFILE] or None
    return PictureFile(*size, b"".join(kept) + b"\xff\xd9", plain=True, lossy=True, exif=exif, icc=icc)


def _jpeg_keeps(marker: int, content: bytes) -> bool:
    if marker == 0xE0:
        return content.startswith(b"JFIF\0")
    if marker == 0xEE:
        return content.startswith(b"Adobe")  # says how the colours were turned
    return not (0xE1 <= marker <= 0xEF or marker == 0xFE)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    end = 8 + struct.unpack_from("<I", data, 4)[0]
    if end > len(data):
        raise BrokenFileError("it ends too early")
    at = 12
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        if at + 8 + length > end:
            raise BrokenFileError("it ends too early")
        yield name, data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _webp(data: bytes) -> PictureFile:
    chunks: dict[bytes, bytes] = {}
    for name, content in _webp_chunks(data):
        chunks.setdefault(name, content)
    if b"ANMF" in chunks:
        canvas = chunks.get(b"VP8X", b"")
        size = 1 + int.from_bytes(canvas[4:7], "little"), 1 + int.from_bytes(canvas[7:10], "little")
        lossy, plain, pixels = b"VP8L" not in chunks[b"ANMF"][16:], False, data
    elif b"VP8L" in chunks:
        (bits,) = struct.unpack_from("<I", chunks[b"VP8L"], 1)
        size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        lossy, plain, pixels = False, not bits >> 28 & 1, _webp_of(b"VP8L", chunks[b"VP8L"])
    elif b"VP8 " in chunks:
        width, height = struct.unpack_from("<HH", chunks[b"VP8 "], 6)
        size, lossy, plain = (width & 0x3FFF, height & 0x3FFF), True, b"ALPH" not in chunks
        pixels = _webp_of(b"VP8 ", chunks[b"VP8 "]) if plain else data
    else:
        raise BrokenFileError("it holds no pixels")
    return PictureFile(*size, pixels, plain, lossy, exif=chunks.get(b"EXIF"), icc=chunks.get(b"ICCP"))


def _webp_of(name: bytes, content: bytes) -> bytes:
    body = b"WEBP" + name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body
