"""How a finished clip becomes an animated GIF or WebP: the ffmpeg commands, with nothing run here.

No command holds more than a few frames, so that a long clip needs no more memory than a short one. docs/decisions has why it is done so.
"""

from enum import StrEnum
from pathlib import Path

from farm.errors import BadInputError
from farm.video import ffmpeg_path

MOST_LOOPS = 65_535
"""Both formats count in 16 bits."""
RECIPE = 2
"""Goes up when what comes out changes: files made by an older recipe are then made anew."""

_GIF_MOST_FPS = 50
"""GIF counts in hundredths of a second, and browsers play a delay of one hundredth as ten: two are the shortest that works."""
_TO_RGB = "scale=flags=accurate_rnd+full_chroma_int"
"""The quicker conversion that ffmpeg chooses by itself is off by a level or two."""
_WEBP_QUALITY = 90
"""A quarter of the GIF's size; at 85 blocks can be seen in dark skies, at libwebp's usual 75 everywhere."""


class ClipFormat(StrEnum):
    """What a clip can be had as. MP4 is what is rendered; the others are made from it on demand."""

    MP4 = "mp4"
    GIF = "gif"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        """As in a Content-Type header."""
        return f"{'video' if self is ClipFormat.MP4 else 'image'}/{self}"


def format_of(path: Path) -> ClipFormat:
    """The format that a file's ending asks for; MP4 where it has none.

    Raises:
        BadInputError: field "output": it asks for another.
    """
    ending = path.suffix.lower().removeprefix(".")
    if not ending:
        return ClipFormat.MP4
    try:
        return ClipFormat(ending)
    except ValueError as error:
        raise BadInputError(
            "output",
            f"A clip cannot be saved as .{ending}.",
            "Name a file that ends in .mp4, .gif or .webp.",
        ) from error


def commands(
    source: Path, target: Path, palette: Path, kind: ClipFormat, *, fps: int, loop: int, most_bytes: int
) -> list[list[str]]:
    """What to run, one after the other, to make `target` (GIF or WebP) from the MP4 `source`.

    `fps` is the clip's. Its frames keep their times, to the hundredth of a second in a GIF (24 fps: delays of 4 and 5, the sum right)
    and to the thousandth in a WebP; of a clip above 50 fps a GIF has 50 in each second. `loop` is how often it plays, 0 for ever.
    `palette` is where a GIF's colours are written in between. A file that would have more than `most_bytes` is broken off just above.
    """
    if kind is ClipFormat.WEBP:
        # Given RGB, libwebp makes its own BT.601 colours of it; the clip's BT.709 would be taken for those and come out too red.
        encoder = ["-vf", f"{_TO_RGB},format=bgra", "-c:v", "libwebp_anim", "-quality", str(_WEBP_QUALITY)]
        return [[*_read(source), *encoder, *_write(target, kind, loop, most_bytes)]]
    ready = (f"fps={_GIF_MOST_FPS}," if fps > _GIF_MOST_FPS else "") + f"{_TO_RGB},format=bgra"
    # Twice over the clip: in one command ffmpeg would hold all frames until the palette is known.
    colours = [
        *_read(source),
        "-vf",
        f"{ready},palettegen",
        "-frames:v",
        "1",
        "-update",
        "1",
        f"file:{palette}",
    ]
    drawn = f"[0:v]{ready}[clip];[clip][1:v]paletteuse=dither=floyd_steinberg:diff_mode=rectangle"
    repeats = {0: 0, 1: -1}.get(loop, loop - 1)  # GIF counts what comes after the first time, -1 for nothing
    pictures = [*_read(source), "-i", f"file:{palette}", "-lavfi", drawn, "-c:v", "gif"]
    return [colours, [*pictures, *_write(target, kind, repeats, most_bytes)]]


def _read(source: Path) -> list[str]:
    return [
        ffmpeg_path(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-y", "-xerror",
        "-threads", "1", "-filter_threads", "1", "-filter_complex_threads", "1",
        "-protocol_whitelist", "file", "-f", "mov", "-i", f"file:{source.absolute()}",
    ]  # fmt: skip


def _write(target: Path, kind: ClipFormat, loop: int, most_bytes: int) -> list[str]:
    return [
        "-fps_mode",
        "passthrough",
        "-loop",
        str(loop),
        "-fs",
        str(most_bytes),
        "-f",
        str(kind),
        f"file:{target}",
    ]
