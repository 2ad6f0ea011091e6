"""Pictures from strangers: what is refused and in which words, what is normalised, what is kept bit for bit."""

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from farm.errors import BadInputError
from farm.images import MAX_PIXELS, Picture, read_picture

RNG = np.random.default_rng(7)
SMOOTH = Image.fromarray(RNG.integers(0, 256, (6, 8, 3), np.uint8)).resize((96, 64), Image.Resampling.BICUBIC)
"""A colourful 96 x 64 picture without sharp edges, so that JPEG changes it little."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def opened(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data))
    assert Image.MIME[image.format or ""] == picture.media_type
    assert image.size == (picture.width, picture.height)
    assert (image.mode, image.getexif(), getattr(image, "n_frames", 1)) == ("RGB", {}, 1)
    assert not {"icc_profile", "exif", "xmp", "comment", "transparency"} & set(image.info)
    return image


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), dtype=np.int16)


def furthest(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(pixels(one) - pixels(other)).max())


def refused(data: bytes) -> str:
    with pytest.raises(BadInputError) as caught:
        read_picture(data)
    assert caught.value.field == "image"
    assert caught.value.remedy
    return str(caught.value)


def gps() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "at home"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    return exif


# --- kept bit for bit ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("JPEG", {"quality": 90, "restart_marker_rows": 1}),
        ("JPEG", {"quality": 90, "comment": b"secret", "exif": gps(), "xmp": b"<secret/>"}),
        ("WEBP", {"quality": 80}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 80, "exif": gps(), "xmp": b"<secret/>"}),
        ("PNG", {"exif": gps()}),
    ],
)
def test_a_plain_picture_keeps_its_pixels_and_loses_its_metadata(kind: str, options: dict[str, Any]) -> None:
    data = encoded(SMOOTH, kind, **options)
    picture = read_picture(data)
    assert picture.media_type == Image.MIME[kind]
    assert furthest(opened(picture), Image.open(io.BytesIO(data))) == 0
    assert b"secret" not in picture.data
    assert b"at home" not in picture.data
    assert len(picture.data) <= len(data)
    assert read_picture(picture.data) == picture


def test_what_follows_the_end_of_a_jpeg_goes_too() -> None:
    """Phones append depth maps and whole second pictures, with their own place and time."""
    picture = read_picture(encoded(SMOOTH, "JPEG") + encoded(SMOOTH, "JPEG", exif=gps()))
    assert opened(picture)
    assert picture.data == read_picture(encoded(SMOOTH, "JPEG")).data


def test_text_of_a_png_goes_too() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "secret")
    text.add_text("Packed", "secret" * 100, zip=True)
    picture = read_picture(encoded(SMOOTH, "PNG", pnginfo=text))
    assert picture.data == encoded(SMOOTH, "PNG")


def test_the_name_of_the_srgb_profile_is_enough_to_keep_the_data() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, tagged = (encoded(SMOOTH, "JPEG", quality=90, icc_profile=icc) for icc in (None, srgb))
    assert read_picture(tagged).data == read_picture(plain).data


# --- normalised ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_every_exif_rotation_comes_out_upright(kind: str, orientation: int) -> None:
    """Eight pictures that a viewer shows the same way up give the same picture."""
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turn = turns[orientation]
    exif = gps()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0}
    stored = SMOOTH.transpose(turn) if turn is not None else SMOOTH
    picture = read_picture(encoded(stored, kind, exif=exif, **options))
    assert (picture.width, picture.height) == SMOOTH.size
    assert furthest(opened(picture), SMOOTH) <= (12 if kind == "JPEG" else 0)


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    """Pillow's own convert() clips: everything over 255 of 65535 came out white."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    picture = read_picture(encoded(Image.fromarray(ramp), "PNG"))
    assert pixels(opened(picture))[..., 1].ravel().tolist() == list(range(256))


def png(colour: int, depth: int, rows: bytes, width: int, height: int, *more: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def test_16_bit_colour_is_scaled_not_clipped() -> None:
    row = b"\0" + struct.pack(">HHH", 0, 32896, 65535) * 16
    picture = read_picture(png(2, 16, row * 16, 16, 16))
    assert set(map(tuple, pixels(opened(picture)).reshape(-1, 3).tolist())) == {(0, 128, 255)}


def test_cmyk_with_adobes_inverted_values() -> None:
    cmyk = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    data = encoded(cmyk, "JPEG", quality=95)
    assert b"Adobe" in data
    picture = read_picture(data)
    assert picture.media_type == "image/jpeg"
    red, green, blue = pixels(opened(picture))[16, 16]
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "PA", "RGBA"])
def test_every_mode_of_a_png_becomes_rgb(mode: str) -> None:
    """Opaque in every mode, and the same as Pillow's own view of it."""
    image = SMOOTH.convert("P").convert("RGBA") if mode == "PA" else SMOOTH.convert(mode)
    picture = read_picture(encoded(image, "PNG"))
    assert picture.media_type == "image/png"
    assert furthest(opened(picture), image.convert("RGB")) == 0


def test_grey_jpeg_stays_a_jpeg() -> None:
    picture = read_picture(encoded(SMOOTH.convert("L"), "JPEG", quality=95))
    assert picture.media_type == "image/jpeg"
    assert furthest(opened(picture), SMOOTH.convert("L")) <= 8


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_transparent_is_laid_on_white(kind: str) -> None:
    values = np.zeros((32, 32, 4), np.uint8)
    values[:, :16] = (200, 0, 0, 255)
    values[:16, 16:] = (0, 0, 0, 0)
    values[16:, 16:] = (0, 0, 0, 128)
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read_picture(encoded(Image.fromarray(values), kind, **options))
    found = pixels(opened(picture))
    assert found[0, 0].tolist() == [200, 0, 0]
    assert found[0, 31].tolist() == [255, 255, 255]
    assert found[31, 31].tolist() == [127, 127, 127]


def test_a_transparent_colour_of_a_palette_or_of_rgb_is_white() -> None:
    palette = encoded(Image.new("P", (16, 16), 0), "PNG", transparency=0)
    colour = encoded(Image.new("RGB", (16, 16), (1, 2, 3)), "PNG", transparency=(1, 2, 3))
    for data in (palette, colour):
        assert pixels(opened(read_picture(data))).min() == 255


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, lossless=True)
    assert Image.open(io.BytesIO(data)).n_frames == 3  # type: ignore[attr-defined]
    assert pixels(opened(read_picture(data)))[16, 16].tolist() == [255, 0, 0]


def wide_gamut() -> bytes:
    """A profile whose red and blue are swapped, so that a conversion cannot be overlooked."""
    icc = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    table = {bytes(icc[at : at + 4]): at for at in range(132, 132 + 12 * icc[131], 12)}
    red, blue = table[b"rXYZ"], table[b"bXYZ"]
    icc[red + 4 : red + 12], icc[blue + 4 : blue + 12] = icc[blue + 4 : blue + 12], icc[red + 4 : red + 12]
    return bytes(icc).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("WEBP", "RGB")]
)
def test_an_embedded_profile_is_converted_to_srgb(kind: str, mode: str) -> None:
    image = Image.new(mode, (32, 32), (255, 0, 0, 255)[: len(mode)])
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read_picture(encoded(image, kind, icc_profile=wide_gamut(), **options))
    red, green, blue = pixels(opened(picture))[16, 16]
    assert blue > 240
    assert max(red, green) < 15


@pytest.mark.parametrize("icc", [b"garbage", b"\0" * 5000, wide_gamut()[:300]])
def test_a_profile_that_cannot_be_read_is_ignored(icc: bytes) -> None:
    picture = read_picture(encoded(SMOOTH, "PNG", icc_profile=icc))
    assert furthest(opened(picture), SMOOTH) == 0


def test_a_very_large_picture_is_stored_smaller() -> None:
    picture = read_picture(encoded(Image.new("RGB", (9000, 100), (10, 200, 30)), "PNG"))
    assert (picture.width, picture.height) == (3000, 34)
    assert pixels(opened(picture))[10, 10].tolist() == [10, 200, 30]


# --- refused ------------------------------------------------------------------------------------------------------


def test_nothing() -> None:
    assert refused(b"") == "The picture is empty: no bytes arrived. Send a PNG, JPEG or WebP file."


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (encoded(SMOOTH, "GIF"), "a GIF"),
        (encoded(SMOOTH, "BMP"), "a BMP"),
        (encoded(SMOOTH, "TIFF"), "a TIFF (or a camera's raw file)"),
        (encoded(SMOOTH, "ICO"), "an icon (ICO)"),
        (encoded(SMOOTH, "PDF"), "a PDF"),
        (encoded(SMOOTH, "JPEG2000"), "a JPEG 2000"),
        (b'<?xml version="1.0"?>\n<!-- x -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "a HEIC (iPhone) picture"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avif", "an AVIF"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0", "a video"),
        (b"<!DOCTYPE html><html>", "a web page"),
    ],
)
def test_another_kind_of_file_is_named(data: bytes, what: str) -> None:
    expected = f"The file is {what}; the farm takes PNG, JPEG and WebP. Save it as PNG, JPEG or WebP first."
    assert refused(data) == expected


@pytest.mark.parametrize("data", [b"hello", b"\0" * 1000, b"RIFF\0\0\0\0WAVE", b"\x89PNG", b"\xff\xd8"])
def test_what_is_no_picture_at_all(data: bytes) -> None:
    assert refused(data).startswith("The file is not a picture that the farm knows; the farm takes PNG,")


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": gps()}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@pytest.mark.parametrize("kept", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_truncated_picture(kind: str, options: dict[str, Any], kept: float) -> None:
    data = encoded(SMOOTH, kind, **options)
    text = refused(data[: max(16, int(len(data) * kept))])
    assert text.startswith(f"The {kind} picture is damaged or cut off (it ends too early).")
    assert text.endswith("Open it on your PC, save it again and send the new file.")


def test_a_jpeg_that_lost_only_its_last_byte() -> None:
    assert "it ends too early" in refused(encoded(SMOOTH, "JPEG")[:-1])


def test_a_png_whose_pixels_were_changed_on_the_way() -> None:
    """Pillow does not look at the checksum of the pixels."""
    data = bytearray(encoded(SMOOTH, "PNG", compress_level=0))
    data[len(data) // 2] ^= 1
    assert "the checksum of its IDAT part is wrong" in refused(bytes(data))


def test_a_png_whose_pixels_end_too_early_although_its_parts_are_whole() -> None:
    whole = zlib.compress(RNG.bytes(16 * 49))
    data = png(2, 8, b"", 16, 16)
    start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
    assert "damaged or cut off" in refused(data[:start] + chunk(b"IDAT", whole[:400]) + data[end:])


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (12_001, 16), (16, 2**31 - 1), (8000, 6251)])
def test_a_png_bomb_is_refused_from_its_header(width: int, height: int) -> None:
    text = refused(png(2, 8, b"", width, height))
    assert text.startswith(
        f"The picture is {width} x {height} pixels, which is too large. Scale it down: at most"
    )
    assert "12,000 pixels a side and 50 megapixels" in text


def test_a_jpeg_and_a_webp_bomb_are_refused_from_their_headers() -> None:
    jpeg = encoded(SMOOTH, "JPEG").replace(struct.pack(">HH", 64, 96), struct.pack(">HH", 60_000, 60_000), 1)
    assert "60000 x 60000 pixels, which is too large" in refused(jpeg)
    webp = bytearray(encoded(SMOOTH, "WEBP"))
    at = webp.index(b"\x9d\x01\x2a") + 3
    webp[at : at + 4] = struct.pack("<HH", 16_000, 16_000)
    assert "16000 x 16000 pixels, which is too large" in refused(bytes(webp))


def test_a_second_header_cannot_smuggle_in_another_size() -> None:
    small = encoded(SMOOTH, "PNG")
    huge = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    assert "it has two headers" in refused(small[:33] + huge + small[33:])


def test_text_and_profile_bombs_in_a_png_are_not_unpacked() -> None:
    """100 MB of zeros in 100 kB; the picture itself is fine."""
    bomb = zlib.compress(bytes(100_000_000), 9)
    small = encoded(SMOOTH, "PNG")
    chunks = chunk(b"zTXt", b"Comment\0\0" + bomb) + chunk(b"iCCP", b"icc\0\0" + bomb)
    picture = read_picture(small[:33] + chunks + small[33:])
    assert furthest(opened(picture), SMOOTH) == 0
    assert len(picture.data) <= len(small)


def test_a_jpeg_of_a_thousand_passes() -> None:
    data = encoded(SMOOTH, "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    assert "more than 50 passes" in refused(data[:scan] + data[scan:-2] * 1000 + data[-2:])


@pytest.mark.parametrize("size", [(15, 400), (400, 15), (1, 1)])
def test_too_small(size: tuple[int, int]) -> None:
    text = refused(encoded(Image.new("RGB", size), "PNG"))
    expected = (
        f"The picture is {size[0]} x {size[1]} pixels, which is too small. Send one of at least 16 x 16."
    )
    assert text == expected


MEMORY_PROBE = """
import io, re, sys
from pathlib import Path
from farm.images import read_picture

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

data = sys.stdin.buffer.read()
before = peak()
read_picture(data)
print(peak() - before)
"""


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGBA"), ("WEBP", "RGB")])
def test_the_largest_picture_takes_a_few_hundred_mib(kind: str, mode: str) -> None:
    side = int(MAX_PIXELS[kind] ** 0.5)
    data = encoded(Image.new(mode, (side, side), (90, 120, 200, 255)[: len(mode)]), kind, **({"method": 0}))
    # The process's own high-water mark: getrusage would count what its parent held when it forked.
    run = subprocess.run([sys.executable, "-c", MEMORY_PROBE], input=data, capture_output=True, check=True)
    print(kind, mode, int(run.stdout), "MiB")
    assert 150 < int(run.stdout) < 550


def test_many_threads_at_once_change_no_global_state() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    inputs = [encoded(SMOOTH.convert(mode), "PNG") for mode in ("RGB", "RGBA", "L", "P")] * 8
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(read_picture, inputs))
    assert results == [read_picture(data) for data in inputs]
    assert limit == Image.MAX_IMAGE_PIXELS


SEEDS = [encoded(SMOOTH.resize((24, 16)), kind, **options) for kind, options in KINDS] + [
    encoded(SMOOTH.resize((24, 16)).convert("RGBA"), "PNG", icc_profile=wide_gamut(), exif=gps()),
    encoded(SMOOTH.resize((24, 16)).convert("CMYK"), "JPEG", icc_profile=wide_gamut(), exif=gps()),
]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=6),
    st.integers(0),
)
def test_damaged_bytes_give_a_sound_picture_or_a_clear_refusal(
    data: bytes, changes: list[tuple[int, int]], cut: int
) -> None:
    broken = bytearray(data)
    for at, value in changes:
        broken[at % len(broken)] = value
    if cut % 3 == 0:
        del broken[cut % len(broken) :]
    try:
        picture = read_picture(bytes(broken))
    except BadInputError as error:
        refusal = error
    else:
        assert opened(picture).size == (picture.width, picture.height)
        return
    assert refusal.field == "image"
    assert refusal.remedy
