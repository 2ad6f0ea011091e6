"""Encoding and checking clips, with the real ffmpeg: every figure is read back from the file."""

import io
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farm.errors import ConfigurationError, EncodingFailedError, RenderFailedError
from farm.video import ffmpeg_path, is_mp4, read_metadata, verify
from node_agent import encode as encode_module
from node_agent.encode import EncodedClip, encode
from node_agent.pipelines.base import Frame
from tests.pictures import noise, product

WORDS = {"model": "animatic", "prompt": 'a=b; c#\n"ä" \\ \u732b', "seed": 7, "guidance": 7.5, "draft": False}


def moving(width: int, height: int, count: int) -> Iterator[Frame]:
    """A textured field that moves by two pixels a frame, so that no two frames are alike."""
    field = noise(width + 2 * count, height, cell=24, seed=3)
    rgb = np.stack([field, field[::-1], -field], -1) * 100 + 128
    for index in range(count):
        yield np.clip(rgb[:, 2 * index : 2 * index + width], 0, 255).astype(np.uint8)


def make(
    target: Path, *, width: int = 128, height: int = 96, count: int = 10, fps: int = 8, draft: bool = False
) -> EncodedClip:
    metadata = {**WORDS, "draft": draft}
    return encode(
        moving(width, height, count),
        target,
        fps=fps,
        width=width,
        height=height,
        count=count,
        metadata=metadata,
    )


def decoded(path: Path, width: int, height: int) -> np.ndarray:
    raw = subprocess.run(
        [
            ffmpeg_path(),
            "-v",
            "error",
            "-i",
            str(path),
            "-fps_mode",
            "passthrough",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ],
        capture_output=True,
        check=True,
    ).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


def test_both_files_are_on_the_disk_before_they_have_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut the attempt's last word, which is brought to the disk, told of a clip that was not."""
    synced: dict[int, list[str]] = {}
    real = os.fsync

    def fsync(descriptor: int) -> None:
        real(descriptor)
        synced[os.fstat(descriptor).st_ino] = leftovers(tmp_path)

    monkeypatch.setattr(os, "fsync", fsync)
    made = make(tmp_path / "video.mp4", count=2)
    for file in (made.video, made.thumbnail):
        assert file.name not in synced[file.stat().st_ino]


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> EncodedClip:
    return make(tmp_path_factory.mktemp("clip") / "video.mp4", width=256, height=192, count=12)


@pytest.mark.parametrize(
    ("width", "height", "count", "fps"),
    [(64, 64, 1, 8), (72, 104, 2, 24), (1920, 64, 3, 7), (264, 136, 25, 60), (128, 128, 240, 30)],
)
def test_clip_has_exactly_the_size_frames_and_rate(
    tmp_path: Path, width: int, height: int, count: int, fps: int
) -> None:
    made = make(tmp_path / "v.mp4", width=width, height=height, count=count, fps=fps)
    facts = verify(made.video, width=width, height=height, frames=count, fps=fps, sha256=made.video_sha256)
    assert (facts.width, facts.height, facts.frames, facts.fps) == (width, height, count, Fraction(fps))
    assert (facts.codec, facts.pixel_format, facts.faststart) == ("h264", "yuv420p", True)
    assert facts.seconds == pytest.approx(count / fps) == made.seconds
    assert facts.size == made.video_size == made.video.stat().st_size
    assert leftovers(tmp_path) == ["v.jpg", "v.mp4"]


def test_frames_come_back_in_order_and_nearly_unchanged(clip: EncodedClip) -> None:
    given = np.stack(list(moving(256, 192, 12))).astype(float)
    back = decoded(clip.video, 256, 192).astype(float)
    errors = np.sqrt(((back[:, None, ::4, ::4] - given[None, :, ::4, ::4]) ** 2).mean((2, 3, 4)))
    assert errors.argmin(1).tolist() == list(range(12))
    assert errors.diagonal().max() < 6  # of 255: luma is nearly exact, colour has half the resolution


def test_a_clip_between_stages_keeps_all_colours_and_loses_next_to_nothing(tmp_path: Path) -> None:
    given = list(moving(256, 192, 4))
    made = encode(
        iter(given), tmp_path / "v.mp4", fps=8, width=256, height=192, count=4, metadata={}, between_stages=True
    )  # fmt: skip
    verify(made.video, width=256, height=192, frames=4, fps=8, pixel_format="yuv444p")
    with pytest.raises(RenderFailedError, match="its pixel format is yuv444p, not yuv420p"):
        verify(made.video, width=256, height=192, frames=4, fps=8)
    off = decoded(made.video, 256, 192).astype(float) - np.stack(given)
    assert np.sqrt((off**2).mean()) < 1.5  # of 255


@pytest.mark.parametrize("colour", [(200, 30, 40), (20, 160, 60), (30, 60, 220), (255, 255, 255), (0, 0, 0)])
def test_colours_are_kept(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    """A clip once converted as BT.601 and played as BT.709 comes out with greens and reds shifted by ten levels and more."""
    frame = np.full((64, 64, 3), colour, np.uint8)
    encode(iter([frame, frame]), tmp_path / "v.mp4", fps=8, width=64, height=64, count=2, metadata={})
    assert np.abs(decoded(tmp_path / "v.mp4", 64, 64).astype(int) - colour).max() <= 4


def test_the_same_frames_give_the_same_file(tmp_path: Path, clip: EncodedClip) -> None:
    assert make(tmp_path / "again.mp4", width=256, height=192, count=12).video_sha256 == clip.video_sha256


def test_metadata_comes_back_as_it_went_in(clip: EncodedClip) -> None:
    assert read_metadata(clip.video) == WORDS


def test_metadata_comes_back_whatever_letters_the_pc_has(tmp_path: Path) -> None:
    """Under a locale that is not UTF-8 a prompt of other letters ended the render, or came back as another prompt."""
    script = "import sys; from pathlib import Path; from tests.unit.test_encode import make; make(Path(sys.argv[1]), count=2)"
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    target = tmp_path / "video.mp4"
    subprocess.run(
        [sys.executable, "-c", script, str(target)], env={**os.environ, **ascii_only}, check=True, timeout=60
    )
    assert read_metadata(target) == WORDS


def test_only_drafts_are_titled_draft(tmp_path: Path, clip: EncodedClip) -> None:
    def title(path: Path) -> bool:
        told = subprocess.run(
            [ffmpeg_path(), "-i", str(path), "-f", "ffmetadata", "-"], capture_output=True, check=True
        ).stdout
        return b"title=Draft" in told

    draft = make(tmp_path / "draft.mp4", draft=True)
    assert title(draft.video)
    assert read_metadata(draft.video)["draft"] is True
    assert not title(clip.video)


def test_metadata_of_other_files_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "other.mp4"
    for content in (b"", b"not a video", b"\0\0\0\x08moov" * 3, b"\0\0\0\x10moov\0\0\0\x00udta"):
        path.write_bytes(content)
        assert read_metadata(path) == {}


@pytest.mark.parametrize(
    "words",
    [
        "a sign says [error] and [fatal]",
        "[h264 @ 0x1] [error] missing picture",
        "Stream #0:0: Video: mpeg4 (Simple), yuv444p, 1x1",
        "[info]   Stream #0:0(und): Video: mpeg4 (Simple), yuv444p",
    ],
)
def test_a_prompt_in_the_words_of_ffmpeg_is_no_fault_of_the_clip(tmp_path: Path, words: str) -> None:
    """A prompt with "[error]" in it once made every such clip "damaged": ffmpeg prints the metadata among its messages."""
    made = encode(
        moving(64, 64, 3), tmp_path / "v.mp4", fps=8, width=64, height=64, count=3, metadata={"prompt": words}
    )
    facts = verify(made.video, width=64, height=64, frames=3, fps=8)
    assert (facts.codec, facts.pixel_format) == ("h264", "yuv420p")


@pytest.mark.parametrize("comment", ["[" * 100_000, '{"seed": ' + "1" * 5000 + "}", "[1, 2]", '"text"', "{"])
def test_a_comment_made_to_break_the_reader_counts_as_none(
    tmp_path: Path, clip: EncodedClip, comment: str
) -> None:
    """Nesting without end and a number of 5,000 digits once came out as RecursionError and ValueError."""
    path = remade(
        clip, tmp_path / "v.mp4", "-c", "copy", "-map_metadata", "-1", "-metadata", f"comment={comment}"
    )
    assert comment.encode() in path.read_bytes()
    assert read_metadata(path) == {}


def test_a_huge_index_is_not_read_into_memory(tmp_path: Path) -> None:
    """A file whose index claims gigabytes was read whole."""
    path = tmp_path / "v.mp4"
    with path.open("wb") as file:
        file.write((1).to_bytes(4, "big") + b"moov" + (8 << 30).to_bytes(8, "big"))
        file.truncate(8 << 30)  # a hole: takes no room
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_metadata(path) == {}
    assert not is_mp4(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_the_colours_are_named_in_the_file(clip: EncodedClip) -> None:
    """Primaries and transfer were given to the encoder in a way that it passes over: the file said "unknown"."""
    told = subprocess.run(
        [ffmpeg_path(), "-hide_banner", "-i", str(clip.video), "-f", "null", "-"],
        capture_output=True,
        check=True,
    ).stderr
    assert b"yuv420p(tv, bt709, progressive)" in told


_ENCODES_FULL_HD = """
import resource, sys
from pathlib import Path
import numpy as np
from node_agent.encode import encode

def frames():
    tile = np.random.default_rng(1).integers(0, 255, (1080, 1920 + 120, 3), np.uint8) // 8 + 100
    for index in range(120):
        yield np.ascontiguousarray(tile[:, index : index + 1920])

def peak_mib(whose):
    return resource.getrusage(whose).ru_maxrss / 1024

next(frames())
before = peak_mib(resource.RUSAGE_SELF)
given = frames() if sys.argv[2] == "streamed" else iter(list(frames()))
encode(given, Path(sys.argv[1]), fps=24, width=1920, height=1080, count=120, metadata={})
print(peak_mib(resource.RUSAGE_SELF) - before, peak_mib(resource.RUSAGE_CHILDREN))
"""


def test_120_frames_of_full_hd_are_never_in_memory_together(tmp_path: Path) -> None:
    """As a list they are 712 MiB. One frame is 6 MiB; a process of its own, since a peak never goes down again."""
    done = subprocess.run(
        [sys.executable, "-c", _ENCODES_FULL_HD, str(tmp_path / "v.mp4"), "streamed"],
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=150,
        check=True,
    )
    grown, of_ffmpeg = map(float, done.stdout.split())
    assert grown < 64
    assert (
        of_ffmpeg < 600
    )  # x264's look-ahead of some dozen frames; all of them, at 3 MiB, would come to more
    verify(tmp_path / "v.mp4", width=1920, height=1080, frames=120, fps=24)


def test_thumbnail_is_the_middle_frame(tmp_path: Path) -> None:
    frames = [np.full((400, 800, 3), (index * 20, 90, 200 - index * 20), np.uint8) for index in range(9)]
    made = encode(iter(frames), tmp_path / "v.mp4", fps=8, width=800, height=400, count=9, metadata={})
    with Image.open(made.thumbnail) as picture:
        assert (picture.format, picture.size) == ("JPEG", (320, 160))
        assert np.abs(np.asarray(picture).astype(int) - (80, 90, 120)).max() <= 4


def test_frames_are_taken_as_they_come(tmp_path: Path) -> None:
    """The clip used to be the place where all frames of a long render met in memory."""
    alive = 0
    most = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            if self.base is None:
                alive -= 1

    def frames() -> Iterator[Frame]:
        nonlocal alive, most
        for _ in range(30):
            frame = np.zeros((64, 64, 3), np.uint8).copy().view(Counted).copy()
            alive += 1
            most = max(most, alive)
            yield frame

    encode(frames(), tmp_path / "v.mp4", fps=8, width=64, height=64, count=30, metadata={})
    assert 1 <= most <= 4


class RenderBrokeError(Exception):
    """What a model might raise."""


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_failing_render_leaves_no_file_and_no_ffmpeg(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda *args, **named: started.append(popen(*args, **named)) or started[-1]
    )

    def frames() -> Iterator[Frame]:
        yield from moving(64, 64, after)
        raise RenderBrokeError

    with pytest.raises(RenderBrokeError):
        encode(frames(), tmp_path / "v.mp4", fps=8, width=64, height=64, count=8, metadata={})
    assert leftovers(tmp_path) == []
    assert [process.returncode is not None for process in started] == [True]


def test_a_system_error_of_the_render_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    """A model that misses a file raises FileNotFoundError, which was once reported as a full disk."""

    def frames() -> Iterator[Frame]:
        yield from moving(64, 64, 1)
        raise FileNotFoundError("weights.bin")

    with pytest.raises(FileNotFoundError, match=r"weights\.bin"):
        encode(frames(), tmp_path / "v.mp4", fps=8, width=64, height=64, count=8, metadata={})
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([np.zeros((64, 64, 3), np.uint8)] * 2, "2 of the 3 frames"),
        ([np.zeros((64, 64, 3), np.uint8)] * 4, "more than the 3 frames"),
        ([], "0 of the 3 frames"),
        ([np.zeros((64, 72, 3), np.uint8)] * 3, "frame 1 as 64x72x3 uint8"),
        ([np.zeros((64, 64), np.uint8)] * 3, "frame 1 as 64x64 uint8"),
        ([np.zeros((64, 64, 3), np.float32)] * 3, "float32"),
    ],
)
def test_wrong_frames_are_refused(tmp_path: Path, frames: list[Frame], says: str) -> None:
    with pytest.raises(RenderFailedError, match=says):
        encode(iter(frames), tmp_path / "v.mp4", fps=8, width=64, height=64, count=3, metadata={})
    assert leftovers(tmp_path) == []


def test_a_render_that_is_broken_off_gives_its_memory_back_at_once(tmp_path: Path) -> None:
    """The error held the render alive, with all that it had on the card, while the model was being unloaded after it."""
    ended: list[str] = []

    def frames() -> Iterator[Frame]:
        try:
            yield from moving(64, 64, 5)
        finally:
            ended.append("render")

    with pytest.raises(RenderFailedError, match="more than the 3 frames") as caught:
        encode(frames(), tmp_path / "v.mp4", fps=8, width=64, height=64, count=3, metadata={})
    assert ended == ["render"]
    assert caught.value.__traceback__ is not None  # which still refers to the frames


def test_an_older_clip_survives_a_failed_one(tmp_path: Path) -> None:
    before = make(tmp_path / "v.mp4")
    with pytest.raises(RenderFailedError):
        encode(iter([]), tmp_path / "v.mp4", fps=8, width=64, height=64, count=3, metadata={})
    facts = verify(before.video, width=128, height=96, frames=10, fps=8, sha256=before.video_sha256)
    assert facts.frames == 10


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / ".v.mp4.partial").symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(EncodingFailedError) as caught:
        make(tmp_path / "v.mp4", width=256, height=256, count=60)
    assert "No space left on device" in caught.value.message
    assert "room" in caught.value.remedy
    assert leftovers(tmp_path) == []
    assert Path("/dev/full").is_char_device()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncodingFailedError, match="No such file or directory"):
        make(tmp_path / "gone" / "v.mp4")


def test_a_missing_ffmpeg_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-ffmpeg"))
    ffmpeg_path.cache_clear()
    try:
        with pytest.raises(EncodingFailedError, match="ffmpeg cannot be run"):
            make(tmp_path / "v.mp4")
        (tmp_path / "v.mp4").write_bytes(b"\0\0\0\x08moov\0\0\0\x08mdat")
        with pytest.raises(ConfigurationError, match="ffmpeg cannot be run"):
            verify(tmp_path / "v.mp4", width=64, height=64, frames=1, fps=8)
    finally:
        ffmpeg_path.cache_clear()


# --- what verify notices ---


def check(path: Path, clip: EncodedClip, **other: int) -> None:
    verify(path, **{"width": 256, "height": 192, "frames": 12, "fps": 8, **other})


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"width": 264}, "size is 256x192, not 264x192"),
        ({"height": 200}, "not 256x200"),
        ({"frames": 13}, "number of frames is 12, not 13"),
        ({"frames": 11}, "number of frames is 12, not 11"),
        ({"fps": 24}, "frame rate is 8, not 24"),
    ],
)
def test_verify_names_what_differs(clip: EncodedClip, other: dict[str, int], says: str) -> None:
    with pytest.raises(RenderFailedError, match=says):
        check(clip.video, clip, **other)


def test_every_truncation_is_noticed(tmp_path: Path, clip: EncodedClip) -> None:
    data = clip.video.read_bytes()
    path = tmp_path / "cut.mp4"
    cuts = [0, 1, 7, 20, 200, *np.linspace(300, len(data) - 1, 25).astype(int), len(data) - 2, len(data) - 1]
    for cut in cuts:
        path.write_bytes(data[:cut])
        with pytest.raises(RenderFailedError):
            check(path, clip)


def flip_a_bit(data: bytearray, at: int, random: np.random.Generator) -> None:
    data[at] ^= 1 << int(random.integers(8))


def lose_a_block(data: bytearray, at: int, random: np.random.Generator) -> None:
    data[at : at + 512] = bytes(512)


@pytest.mark.parametrize(("harm", "least"), [(flip_a_bit, 25), (lose_a_block, 18)])
def test_damage_is_noticed(tmp_path: Path, clip: EncodedClip, harm: Callable[..., None], least: int) -> None:
    """Always by the hash, and most of it by decoding alone: H.264 has no checksum, so some damage only looks wrong."""
    whole = clip.video.read_bytes()
    path = tmp_path / "harmed.mp4"
    random = np.random.default_rng(4)
    noticed = 0
    for at in random.integers(whole.index(b"mdat") + 8, len(whole) - 512, 40):
        data = bytearray(whole)
        harm(data, int(at), random)
        path.write_bytes(data)
        with pytest.raises(RenderFailedError, match="changed on its way"):
            verify(path, width=256, height=192, frames=12, fps=8, sha256=clip.video_sha256)
        try:
            check(path, clip)
        except RenderFailedError:
            noticed += 1
    assert noticed >= least


def test_other_files_are_refused(tmp_path: Path, clip: EncodedClip) -> None:
    held = io.BytesIO()
    product(64, 64).image.save(held, "PNG")
    path = tmp_path / "other.mp4"
    for content in (b"", b"\0" * 4000, b"<html>", held.getvalue(), b"\xff" * 4000):
        path.write_bytes(content)
        with pytest.raises(RenderFailedError, match="not a complete MP4"):
            check(path, clip)
    with pytest.raises(RenderFailedError, match="not there"):
        check(tmp_path / "none.mp4", clip)


def remade(clip: EncodedClip, path: Path, *options: str) -> Path:
    subprocess.run(
        [ffmpeg_path(), "-v", "error", "-y", "-i", str(clip.video), *options, str(path)], check=True
    )
    return path


def test_verify_refuses_what_browsers_cannot_play_well(tmp_path: Path, clip: EncodedClip) -> None:
    cases = [
        (("-c", "copy", "-movflags", "-faststart"), "index is at the end"),
        (("-c:v", "libx264", "-pix_fmt", "yuv444p", "-movflags", "+faststart"), "pixel format is yuv444p"),
        (("-c:v", "mpeg4", "-movflags", "+faststart"), "codec is mpeg4"),
        (
            (
                "-vf",
                r"select=not(eq(n\,5))",
                "-fps_mode",
                "passthrough",
                "-c:v",
                "libx264",
                "-movflags",
                "+faststart",
            ),
            "evenly spaced",
        ),
        (
            (
                "-f",
                "lavfi",
                "-i",
                "sine=d=1",
                "-map",
                "0",
                "-map",
                "1",
                "-c:v",
                "copy",
                "-movflags",
                "+faststart",
            ),
            "more than one track",
        ),
    ]
    for options, says in cases:
        with pytest.raises(RenderFailedError, match=says):
            check(remade(clip, tmp_path / "v.mp4", *options), clip)


def test_index_comes_before_the_pictures(clip: EncodedClip) -> None:
    data = clip.video.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(
    ("last", "fault"),
    [("while time.process_time() < 1.5: pass", None), ("time.sleep(60)", "it ended with -9")],
)
def test_an_ffmpeg_that_is_still_at_work_is_waited_for_and_one_that_hangs_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str, fault: str | None
) -> None:
    """On an old PC that was busy the last frames took more than a minute: the finished render was thrown away for "a disk without room"."""
    program = tmp_path / "ffmpeg"
    file = "open(sys.argv[-1].removeprefix('file:'), 'wb').write(b'clip')"
    program.write_text(f"#!{sys.executable}\nimport sys, time\nsys.stdin.buffer.read()\n{last}\n{file}\n")
    program.chmod(0o755)
    monkeypatch.setattr(encode_module, "ffmpeg_path", lambda: str(program))
    monkeypatch.setattr(encode_module, "_IDLE_S", 0.6)
    monkeypatch.setattr(encode_module, "_LOOK_EVERY_S", 0.2)
    if fault is None:
        assert make(tmp_path / "clip.mp4").video_size == len(b"clip")
    else:
        with pytest.raises(EncodingFailedError, match=fault):
            make(tmp_path / "clip.mp4")
