"""GIF and WebP made with the real ffmpeg: every figure is read back from the file, with another reader (Pillow)."""

import asyncio
import errno
import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageFilter, ImageSequence

from dashboard.animations import MOST_WAITING, Animation, Animations
from farm.again import describe, read_recipe
from farm.animation import ClipFormat, format_of
from farm.errors import BadInputError, FarmError
from farm.video import Metadata
from node_agent.encode import encode
from node_agent.pipelines.base import Frame
from tests.pictures import street
from tests.storage import SETTINGS

SIDE = 96


def frames(count: int, side: int = SIDE) -> Iterator[Frame]:
    """A street seen through a window that moves by two pixels a frame."""
    field = np.asarray(street(side + 2 * count, side).image.convert("RGB"))
    for index in range(count):
        yield np.ascontiguousarray(field[:, 2 * index : 2 * index + side])


def clip(
    path: Path, count: int = 12, fps: int = 8, side: int = SIDE, metadata: Metadata | None = None
) -> Path:
    shape = {"width": side, "height": side, "count": count}
    return encode(frames(count, side), path, fps=fps, **shape, metadata=metadata or {}).video


def make(folder: Path, source: Path, kind: ClipFormat, *, fps: int = 8, loop: int = 0) -> Animation:
    return asyncio.run(Animations(folder).of(source, "c" * 64, kind, fps=fps, loop=loop))


def read(path: Path) -> tuple[np.ndarray, list[int]]:
    """Frames, and how long each is shown in milliseconds."""
    with Image.open(path) as image:
        shown = [
            (np.asarray(frame.convert("RGB")), int(frame.info["duration"]))
            for frame in ImageSequence.Iterator(image)
        ]
    return np.stack([pixels for pixels, _ in shown]), [took for _, took in shown]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.mark.parametrize("kind", [ClipFormat.GIF, ClipFormat.WEBP])
def test_all_frames_come_out_in_order_and_in_their_colours(
    tmp_path: Path, source: Path, kind: ClipFormat
) -> None:
    """A WebP once came out too red: BT.709's colours were taken for BT.601's. Both were a level or two too dark in the green."""
    made = make(tmp_path, source, kind)
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    got, _ = read(made.path)
    given = np.stack(list(frames(12)))
    assert got.shape == given.shape
    errors = ((got[:, None].astype(float) - given[None]) ** 2).mean((2, 3, 4))
    assert errors.argmin(1).tolist() == list(range(12))

    def seen(picture: np.ndarray) -> np.ndarray:  # from where dots of a dither melt together
        return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(3))).astype(float)

    apart = np.stack([seen(one) - seen(other) for one, other in zip(got, given, strict=True)])
    assert np.abs(apart.mean((0, 1, 2))).max() < 0.8
    assert np.sqrt((apart**2).mean()) < 4


@pytest.mark.parametrize("colour", [(200, 30, 40), (20, 160, 60), (30, 60, 220), (255, 255, 255), (0, 0, 0)])
@pytest.mark.parametrize("kind", [ClipFormat.GIF, ClipFormat.WEBP])
def test_plain_colours_are_kept(tmp_path: Path, kind: ClipFormat, colour: tuple[int, int, int]) -> None:
    frame = np.full((64, 64, 3), colour, np.uint8)
    made = encode(iter([frame, frame]), tmp_path / "v.mp4", fps=8, width=64, height=64, count=2, metadata={})
    got, _ = read(make(tmp_path / "cache", made.video, kind).path)
    assert np.abs(got.astype(int) - colour).max() <= 5


@pytest.mark.parametrize("fps", [1, 7, 8, 24, 25, 30, 50])
def test_a_gif_shows_each_frame_at_its_time(tmp_path: Path, fps: int) -> None:
    """In hundredths of a second, rounded per frame and never summing up: 24 fps is 4, 4, 5, 4, 4, 4, ..."""
    _, delays = read(
        make(tmp_path / "cache", clip(tmp_path / "v.mp4", 25, fps), ClipFormat.GIF, fps=fps).path
    )
    assert len(delays) == 25
    shown_at = np.cumsum([0, *delays])
    assert np.abs(shown_at - np.arange(26) * 1000 / fps).max() <= 10
    assert min(delays) >= 20  # browsers play a delay of one hundredth as ten


def test_a_gif_of_60_fps_keeps_its_length_at_50_frames_a_second(tmp_path: Path) -> None:
    source = clip(tmp_path / "v.mp4", 60, 60)
    _, delays = read(make(tmp_path / "cache", source, ClipFormat.GIF, fps=60).path)
    assert set(delays) == {20}
    assert sum(delays) == pytest.approx(1000, abs=20)


@pytest.mark.parametrize("fps", [7, 24, 60])
def test_a_webp_shows_each_frame_at_its_time(tmp_path: Path, fps: int) -> None:
    _, delays = read(
        make(tmp_path / "cache", clip(tmp_path / "v.mp4", 24, fps), ClipFormat.WEBP, fps=fps).path
    )
    assert len(delays) == 24
    assert (
        np.abs(np.cumsum([0, *delays]) - np.arange(25) * 1000 / fps).max() < 2
    )  # rounded down, and the last once more


@pytest.mark.parametrize("kind", [ClipFormat.GIF, ClipFormat.WEBP])
@pytest.mark.parametrize("loop", [0, 1, 2, 9, 65_535])
def test_it_plays_as_often_as_asked(tmp_path: Path, source: Path, kind: ClipFormat, loop: int) -> None:
    """GIF says how often it is repeated after the first time, and nothing at all for once; WebP how often it plays."""
    path = make(tmp_path, source, kind, loop=loop).path
    data = path.read_bytes()
    if kind is ClipFormat.WEBP:
        assert int.from_bytes(data[data.index(b"ANIM") + 12 :][:2], "little") == loop
    elif loop == 1:
        assert b"NETSCAPE2.0" not in data
    else:
        repeats = int.from_bytes(data[data.index(b"NETSCAPE2.0") + 13 :][:2], "little")
        assert repeats == max(0, loop - 1)


def test_a_clip_of_one_frame(tmp_path: Path) -> None:
    source = clip(tmp_path / "v.mp4", 1)
    for kind in (ClipFormat.GIF, ClipFormat.WEBP):
        with Image.open(make(tmp_path / "cache", source, kind).path) as image:
            assert image.size == (SIDE, SIDE)


@pytest.mark.parametrize("kind", [ClipFormat.GIF, ClipFormat.WEBP])
@pytest.mark.parametrize("count", [1, 5])
def test_it_says_how_it_was_made_and_is_the_same_animation(
    tmp_path: Path, kind: ClipFormat, count: int
) -> None:
    """Only the MP4 had model, settings and seed in it: a GIF or WebP could not be made again."""
    said = describe(replace(SETTINGS, prompt='"\u732b" ' * 60), input_sha256="ab" * 32, draft=True)
    source = clip(tmp_path / "v.mp4", count, metadata=said)
    made = make(tmp_path / "cache", source, kind, loop=3)
    assert made.sha256 == hashlib.sha256(made.path.read_bytes()).hexdigest()
    assert read_recipe(made.path) == read_recipe(source)
    bare = make(tmp_path / "other", clip(tmp_path / "bare.mp4", count), kind, loop=3).path
    assert [part.tolist() for part in map(np.asarray, read(made.path))] == [
        part.tolist() for part in map(np.asarray, read(bare))
    ]
    with Image.open(made.path) as image, Image.open(bare) as without:
        assert image.info.get("loop") == without.info.get("loop")
    with pytest.raises(BadInputError, match="does not say how it was made") as caught:
        read_recipe(bare)
    assert "the clip's MP4" in caught.value.remedy


@pytest.mark.parametrize("kind", [ClipFormat.GIF, ClipFormat.WEBP])
def test_half_of_one_is_no_clip(tmp_path: Path, source: Path, kind: ClipFormat) -> None:
    half = tmp_path / f"half.{kind}"
    half.write_bytes(make(tmp_path / "cache", source, kind).path.read_bytes()[:20])
    with pytest.raises(BadInputError, match="is not a complete MP4, GIF or WebP"):
        read_recipe(half)


def test_it_is_made_once_and_then_kept(tmp_path: Path, source: Path) -> None:
    async def ask() -> list[Animation]:
        animations = Animations(tmp_path)
        return await asyncio.gather(
            *(animations.of(source, "c" * 64, ClipFormat.GIF, fps=8, loop=0) for _ in range(3))
        )

    first, *others = asyncio.run(ask())
    written = first.path.stat().st_ctime_ns, first.path.stat().st_ino
    assert others == [first, first]
    again = make(tmp_path, tmp_path / "no such clip", ClipFormat.GIF)  # nothing is made, so nothing is missed
    assert (again, again.path.stat().st_ino) == (first, written[1])
    assert make(tmp_path, source, ClipFormat.GIF, loop=1) != first
    assert len(list(tmp_path.iterdir())) == 2


def test_those_not_asked_for_longest_go_first(tmp_path: Path, source: Path) -> None:
    size = make(tmp_path / "one", source, ClipFormat.GIF).path.stat().st_size

    async def ask() -> None:
        animations = Animations(tmp_path / "cache", kept_bytes=int(2.5 * size))
        made = [await animations.of(source, f"{n}" * 64, ClipFormat.GIF, fps=8, loop=0) for n in range(2)]
        for age, each in enumerate(made):
            os.utime(each.path, (1000 - age, 1000 - age))
        await animations.of(source, "0" * 64, ClipFormat.GIF, fps=8, loop=0)  # asked for: the newest now
        await animations.of(source, "2" * 64, ClipFormat.GIF, fps=8, loop=0)

    asyncio.run(ask())
    assert sorted(path.name[0] for path in (tmp_path / "cache").iterdir()) == ["0", "2"]


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]


def test_one_that_takes_too_long_is_ended_and_leaves_nothing(tmp_path: Path) -> None:
    source = clip(tmp_path / "v.mp4", 60, side=512)

    async def ask() -> None:
        await Animations(tmp_path / "cache", limit_s=0.05).of(
            source, "c" * 64, ClipFormat.WEBP, fps=8, loop=0
        )

    with pytest.raises(FarmError, match=r"was not made within 0\.05 s"):
        asyncio.run(ask())
    assert list((tmp_path / "cache").iterdir()) == []
    assert children() == []


def test_a_stop_of_the_web_process_ends_ffmpeg(tmp_path: Path) -> None:
    source = clip(tmp_path / "v.mp4", 60, side=512)

    async def ask() -> None:
        task = asyncio.create_task(
            Animations(tmp_path / "cache").of(source, "c" * 64, ClipFormat.WEBP, fps=8, loop=0)
        )
        async with asyncio.timeout(10):
            while not children():
                await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert children() == []

    asyncio.run(ask())
    assert list((tmp_path / "cache").iterdir()) == []


def test_only_so_many_wait(tmp_path: Path) -> None:
    source = clip(tmp_path / "v.mp4", 24, side=256)

    async def ask() -> list[Animation | BaseException]:
        animations = Animations(tmp_path / "cache")
        wanted = (
            animations.of(source, f"{n:064d}", ClipFormat.GIF, fps=8, loop=0) for n in range(MOST_WAITING + 3)
        )
        return await asyncio.gather(*wanted, return_exceptions=True)

    came = asyncio.run(ask())
    refused = [one for one in came if isinstance(one, FarmError)]
    assert len(refused) == 2
    assert "4 more wait" in refused[0].message
    assert sum(isinstance(one, Animation) for one in came) == MOST_WAITING + 1


@pytest.mark.parametrize("kind", [ClipFormat.GIF, ClipFormat.WEBP])
def test_one_that_grows_too_large_is_refused_and_not_kept_in_part(
    tmp_path: Path, source: Path, kind: ClipFormat
) -> None:
    size = make(tmp_path / "whole", source, kind).path.stat().st_size

    async def ask() -> None:
        animations = Animations(tmp_path / "cache", most_bytes=size // 2)
        await animations.of(source, "c" * 64, kind, fps=8, loop=0)

    with pytest.raises(FarmError, match=f"The {kind.upper()} would be larger than"):
        asyncio.run(ask())
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_is_no_clip_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "v.mp4"
    source.write_bytes(b"not a clip")
    with pytest.raises(FarmError, match="ffmpeg could not make the GIF") as caught:
        make(tmp_path / "cache", source, ClipFormat.GIF)
    assert "Take the MP4" in caught.value.remedy
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: a full disk needs root, to mount a small one")
@pytest.mark.parametrize(
    ("most", "said"), [("nr_inodes=1", "could not be stored in"), ("size=8k", "could not make")]
)
def test_a_full_disk_of_the_head_is_said(tmp_path: Path, source: Path, most: str, said: str) -> None:
    """No room for even a folder to work in ended in a bare OSError, a fault of the farm's to whoever asked."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", most, "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"NOT TESTED: a full disk, since mount says: {mounted.stderr}")
    try:
        with pytest.raises(FarmError, match=f"The GIF {said}|ffmpeg {said} the GIF") as caught:
            make(small, source, ClipFormat.GIF)
        assert "No space left on device" in caught.value.message
        assert "disk has room" in caught.value.remedy
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_file_that_cannot_be_kept_is_said(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(Animations, "_keep", full)
    with pytest.raises(FarmError, match=r"could not be stored in .*: Disk quota exceeded"):
        make(tmp_path / "cache", source, ClipFormat.GIF)
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "making-x").mkdir()
    (tmp_path / "making-x" / "made.gif").write_bytes(b"half")
    Animations(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.gif", "gif"), ("a.b.WebP", "webp"), ("a.MP4", "mp4"), ("clip", "mp4"), (".gif", "mp4")],
)
def test_the_ending_says_the_format(name: str, kind: str) -> None:
    assert format_of(Path(name)) == kind


def test_other_endings_are_refused() -> None:
    with pytest.raises(BadInputError, match=r"saved as \.avi") as caught:
        format_of(Path("clip.avi"))
    assert ".mp4, .gif or .webp" in caught.value.remedy
