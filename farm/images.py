"""From the bytes a person sent to the picture a renderer reads: decoded, upright, 8-bit sRGB, no metadata.

A plain picture keeps its own compressed data: its container is rebuilt from the parts that hold pixels, so
nothing is lost and nothing else (place, camera, thumbnails, trailing files) is kept. Anything else is
normalised and encoded anew: JPEG quality 95 without chroma subsampling where the source was lossy, PNG where
it was not.

What is stored is what was decoded here. Pillow never sees the parts that are thrown away, and never opens a
picture that is over the limits, so its own bomb warnings (global state, not thread-safe) do not come up.
"""

import io
import threading
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageCms

from farm.errors import BadInputError
from farm.image_files import MEDIA_TYPES, BrokenFileError, PictureFile, kind_of, orientation_of, take_apart

MIN_SIDE = 16
MAX_SIDE = 12_000
MAX_PIXELS = {"PNG": 50_000_000, "JPEG": 50_000_000, "WEBP": 25_000_000}
"""Limits of what is decoded: 300 to 450 MiB at the peak, measured; WebP's decoder holds the picture four times over."""

STORED_SIDE = 4096
"""A picture with a longer side is scaled down by a whole number: no model takes more than 1920 pixels."""

_LARGE_PIXELS = 8_000_000
_LARGE = threading.Lock()  # one large picture at a time, so that parallel uploads do not add up to gigabytes

_ACCEPTED = "Send a PNG, JPEG or WebP file."
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    zlib.error,
)
"""All that Pillow's decoders are known to raise on hostile bytes."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture to store: an upright PNG, JPEG or WebP file, 8-bit sRGB, no metadata; sides in pixels."""

    data: bytes
    width: int
    height: int
    media_type: str


def read_picture(data: bytes) -> Picture:
    """Checks and normalises an uploaded picture; what the file is called does not matter.

    Animated pictures give their first frame, transparent ones are laid on white (cut-outs and logos are made
    for paper; black would put dark seams around them), 16-bit ones are scaled to 8, colour profiles are
    converted to sRGB.

    Raises:
        BadInputError: field "image": nothing sent, not a PNG, JPEG or WebP, damaged or cut off, too large or
            too small.
    """
    if not data:
        raise BadInputError("image", "The picture is empty: no bytes arrived.", _ACCEPTED)
    kind = kind_of(data)
    if kind not in MEDIA_TYPES:
        what = f"The file is {kind}" if kind else "The file is not a picture that the farm knows"
        remedy = "Save it as PNG, JPEG or WebP first." if kind else _ACCEPTED
        raise BadInputError("image", f"{what}; the farm takes PNG, JPEG and WebP.", remedy)
    try:
        parts = take_apart(kind, data)
    except BrokenFileError as error:
        raise _broken(kind, str(error)) from error
    _check_size(kind, parts.width, parts.height)
    large = parts.width * parts.height > _LARGE_PIXELS
    with _LARGE if large else nullcontext():
        return _normalised(kind, parts)


def _check_size(kind: str, width: int, height: int) -> None:
    size = f"The picture is {width} x {height} pixels"
    if width < MIN_SIDE or height < MIN_SIDE:
        raise BadInputError(
            "image", f"{size}, which is too small.", f"Send one of at least {MIN_SIDE} x {MIN_SIDE}."
        )
    if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS[kind]:
        limit = f"at most {MAX_SIDE:,} pixels a side and {MAX_PIXELS[kind] // 1_000_000} megapixels"
        raise BadInputError(
            "image", f"{size}, which is too large.", f"Scale it down: {limit}; 1920 a side is plenty."
        )


def _broken(kind: str, detail: str) -> BadInputError:
    message = f"The {kind} picture is damaged or cut off ({detail})."
    return BadInputError("image", message, "Open it on your PC, save it again and send the new file.")


def _normalised(kind: str, parts: PictureFile) -> Picture:
    # `formats` keeps Pillow to the decoder that the content asked for.
    try:
        with Image.open(io.BytesIO(parts.pixels), formats=(kind,)) as image:
            if image.size != (parts.width, parts.height):
                raise _broken(kind, "its header and its data disagree about the size")
            image.load()
            return _stored(kind, parts, image)
    except DECODER_ERRORS as error:
        raise _broken(kind, _plain(error)) from error
    except MemoryError as error:
        raise BadInputError(
            "image", "The picture needs more memory than the head has free.", "Scale it down."
        ) from error


def _plain(error: Exception) -> str:
    text = str(error).strip().rstrip(".")
    return text if text and len(text) < 80 and "\n" not in text else "it cannot be decoded"


def _stored(kind: str, parts: PictureFile, image: Image.Image) -> Picture:
    turn = _UPRIGHT.get(orientation_of(parts.exif or b""))
    profile = parts.icc if parts.icc and not _is_srgb(parts.icc) else None
    longest = max(image.size)
    if parts.plain and image.mode == "RGB" and turn is None and not profile and longest <= STORED_SIDE:
        return Picture(parts.pixels, image.width, image.height, MEDIA_TYPES[kind])
    ready: Image.Image = image
    if longest > STORED_SIDE:
        ready = _eight_bit(ready).reduce(-(-longest // STORED_SIDE))
    ready = _flat_srgb(_eight_bit(ready), profile)
    if turn is not None:
        ready = ready.transpose(turn)
    ready.info.clear()  # Pillow would write comments, profiles and EXIF back from here
    out = io.BytesIO()
    if parts.lossy:
        ready.save(out, "JPEG", quality=95, subsampling=0)
    else:
        ready.save(out, "PNG", compress_level=1)
    return Picture(out.getvalue(), ready.width, ready.height, MEDIA_TYPES["JPEG" if parts.lossy else "PNG"])


@lru_cache(maxsize=64)
def _is_srgb(icc: bytes) -> bool:
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(icc)))
    except (ImageCms.PyCMSError, *DECODER_ERRORS):
        return False
    return "srgb" in name.lower()


def _eight_bit(image: Image.Image) -> Image.Image:
    """The picture with 8 bits a channel: L, LA, RGB, RGBA or CMYK. Pillow would clip 16-bit grey at 255."""
    if image.mode.startswith("I"):
        import numpy as np  # noqa: PLC0415  # rare, and 60 ms for those who never need it

        values = np.asarray(image, dtype=np.float32)
        return Image.fromarray(np.rint(values.clip(0, 65535) / 257).astype(np.uint8))
    if "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return image
    return image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")


def _flat_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if alpha is not None:
        image = image.convert(image.mode[:-1])
    image = _to_srgb(image, profile) if profile else image.convert("RGB")
    if alpha is not None:
        paper = Image.new("RGB", image.size, (255, 255, 255))
        paper.paste(image, mask=alpha)
        return paper
    return image


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Converted by the embedded profile; a profile that cannot be used is ignored, as browsers do."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        changed = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, *DECODER_ERRORS):
        return image.convert("RGB")
    return changed if changed is not None else image.convert("RGB")
