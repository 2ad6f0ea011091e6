"""GIFs and WebPs of finished clips: made when they are asked for, one at a time, by ffmpeg, and kept for a while."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from dashboard.cached import let_go
from farm.animation import RECIPE, ClipFormat, commands
from farm.errors import ConfigurationError, FarmError
from farm.inscription import inscribe
from farm.video import read_metadata

LIMIT_S = 180.0
"""For one file. The largest clip (240 frames of 1920x1080) takes about 70 s on one core of 2017."""
MOST_WAITING = 4
"""Requests that wait for their turn; with the limit above the last of them waits a quarter of an hour at the worst."""
MOST_BYTES = 256 << 20
"""Of one file. 240 frames of 1920x1080 make a GIF of some 60 MB; only noise comes to more than this."""
KEPT_BYTES = 512 << 20
"""What is kept; those that nobody asked for longest go first. A GIF of 24 frames of 512x512 has 1.5 MB."""


@dataclass(frozen=True, slots=True)
class Animation:
    """A file that is there, and the SHA-256 of its bytes."""

    path: Path
    sha256: str


class Animations:
    """The files in `folder`: `<SHA-256 of the clip>-<loop>-r<recipe>.<own SHA-256>.<format>`. All can be made again."""

    def __init__(
        self,
        folder: Path,
        limit_s: float = LIMIT_S,
        kept_bytes: int = KEPT_BYTES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._folder = folder
        self._limit_s = limit_s
        self._most_bytes = most_bytes
        self._kept_bytes = kept_bytes
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("making-*"):  # of a process that was killed
            shutil.rmtree(left, ignore_errors=True)

    async def of(self, clip: Path, clip_sha256: str, kind: ClipFormat, *, fps: int, loop: int) -> Animation:
        """The GIF or WebP of a stored clip that plays `loop` times, 0 for ever; see `farm.animation.commands`.

        Raises:
            FarmError: it could not be made, or too many wait already.
        """
        name = f"{clip_sha256}-{loop}-r{RECIPE}"
        found = await to_thread.run_sync(self._found, name, kind)
        if found is not None:
            return found
        if self._waiting > MOST_WAITING:
            raise FarmError(
                f"The farm makes another {kind.upper()} or WebP just now, and {MOST_WAITING} more wait.",
                "Ask again in a minute; the MP4 is there at once.",
            )
        self._waiting += 1
        try:
            async with self._turn:
                found = await to_thread.run_sync(
                    self._found, name, kind
                )  # whoever was before may have made it
                return found or await self._make(clip, name, kind, fps, loop)
        finally:
            self._waiting -= 1

    async def _make(self, clip: Path, name: str, kind: ClipFormat, fps: int, loop: int) -> Animation:
        work: Path | None = None
        try:
            work = Path(tempfile.mkdtemp(prefix="making-", dir=self._folder))
            made = work / f"made.{kind}"
            async with asyncio.timeout(self._limit_s):
                for command in commands(
                    clip, made, work / "palette.png", kind, fps=fps, loop=loop, most_bytes=self._most_bytes
                ):
                    await _run(command, kind)
            if made.stat().st_size >= self._most_bytes:
                raise FarmError(
                    f"The {kind.upper()} would be larger than {self._most_bytes >> 20} MiB.",
                    "Take the MP4, or render the clip smaller or shorter.",
                )
            await to_thread.run_sync(_inscribe, made, kind, clip)
            return await to_thread.run_sync(self._keep, made, name, kind)
        except TimeoutError as error:
            raise FarmError(
                f"The {kind.upper()} was not made within {self._limit_s:g} s.",
                "Take the MP4, or render the clip smaller or shorter.",
            ) from error
        except OSError as error:
            raise FarmError(
                f"The {kind.upper()} could not be stored in {self._folder}: {error.strerror or error}.",
                "Take the MP4, and check that the head's disk has room and lets the farm write there.",
            ) from error
        finally:
            if work is not None:
                shutil.rmtree(work, ignore_errors=True)

    def _found(self, name: str, kind: ClipFormat) -> Animation | None:
        for path in self._folder.glob(f"{name}.*.{kind}"):
            try:
                os.utime(path)  # asked for just now
            except FileNotFoundError:
                continue
            return Animation(path, path.name.split(".")[1])
        return None

    def _keep(self, made: Path, name: str, kind: ClipFormat) -> Animation:
        with made.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        path = made.replace(self._folder / f"{name}.{sha256}.{kind}")
        let_go(self._folder, "*.*.*", path, self._kept_bytes)
        return Animation(path, sha256)


def _inscribe(made: Path, kind: ClipFormat, clip: Path) -> None:
    inscribe(made, kind, read_metadata(clip))


async def _run(command: list[str], kind: ClipFormat) -> None:
    """Runs ffmpeg; it is gone when this returns or raises, also when the web process is told to stop."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise ConfigurationError(
            f"ffmpeg cannot be run on the head: {error.strerror or error}.",
            "Install the farm again with deploy/setup.sh.",
        ) from error
    try:
        _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines() or [f"it ended with {process.returncode}"]
        raise FarmError(
            f"ffmpeg could not make the {kind.upper()}: {lines[-1].rstrip('.')}.",
            "Take the MP4; if that does not play either, submit the picture again. Check that the head's disk has room.",
        )
