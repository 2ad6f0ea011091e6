"""Small JPEGs of the pictures that were sent, for jobs that have no clip yet: made when they are asked for, and kept for a while."""

import io
import os
import tempfile
import threading
from pathlib import Path

from anyio import CapacityLimiter, to_thread
from PIL import Image

from dashboard.cached import let_go
from farm.errors import FarmError
from farm.images import DECODER_ERRORS

RECIPE = 1
"""Counts up with each change of what is made, so that none is taken for another."""
SIDE = 320
"""Pixels of the longer side, as of a clip's own still."""
THREADS = 2
"""Made at once. A stored picture of 4096x4096 takes 5 MiB at the peak as a JPEG, 72 as a PNG, 262 as a WebP, measured."""
KEPT_BYTES = 256 << 20
"""What is kept, some 10,000 of a photo; when there is more, those that nobody asked for longest go first."""


class Stills:
    """The files in `folder`: `<SHA-256 of the picture>-r<recipe>.jpg`. All can be made again."""

    def __init__(self, folder: Path, kept_bytes: int = KEPT_BYTES) -> None:
        self._folder = folder
        self._kept_bytes = kept_bytes
        self._kept: int | None = None
        self._keeping = threading.Lock()
        self._turns = CapacityLimiter(THREADS)
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("making-*"):  # of a process that was killed
            left.unlink(missing_ok=True)

    @staticmethod
    def name(picture_sha256: str) -> str:
        """What the still of this picture is called; it never changes."""
        return f"{picture_sha256}-r{RECIPE}"

    async def of(self, picture: Path, picture_sha256: str) -> bytes:
        """The still of a stored picture: a JPEG of 10 to 30 KB.

        Raises:
            FarmError: the picture cannot be read or the still not kept.
        """
        path = self._folder / f"{self.name(picture_sha256)}.jpg"
        if (found := await to_thread.run_sync(_found, path)) is not None:
            return found
        return await to_thread.run_sync(self._make, picture, path, limiter=self._turns)

    def _make(self, picture: Path, path: Path) -> bytes:
        if found := _found(path):  # whoever was before may have made it
            return found
        try:
            made = small(picture)
        except DECODER_ERRORS as error:
            raise FarmError(
                "The picture that was sent cannot be read any more.",
                "Look at the disk's health; restore the picture from a backup or submit it again.",
            ) from error
        try:
            self._keep(made, path)
        except OSError as error:
            raise FarmError(
                f"The farm could not keep a small picture in its cache: {error.strerror or error}.",
                "Check that the head's disk has room and that the farm may write there.",
            ) from error
        return made

    def _keep(self, made: bytes, path: Path) -> None:
        with tempfile.NamedTemporaryFile(prefix="making-", dir=self._folder, delete=False) as file:
            file.write(made)
        Path(file.name).replace(path)
        with self._keeping:
            if self._kept is None:
                self._kept = sum(one.stat().st_size for one in self._folder.glob("*.jpg"))
            else:
                self._kept += len(made)
            if self._kept > self._kept_bytes:
                # To three quarters, so that the folder is not looked through for each new one.
                self._kept = let_go(self._folder, "*.jpg", path, self._kept_bytes * 3 // 4)


def _found(path: Path) -> bytes | None:
    """None too for an empty file: after a power cut a name may be there without its bytes, for they are not synced."""
    try:
        os.utime(path)  # asked for just now
        return path.read_bytes() or None
    except FileNotFoundError:
        return None


def small(picture: Path) -> bytes:
    """A stored picture as a JPEG of at most `SIDE` pixels a side; it is upright and sRGB already, see `farm.images`."""
    with Image.open(picture, formats=("JPEG", "PNG", "WEBP")) as image:
        image.draft("RGB", (SIDE, SIDE))  # of a JPEG no more is decoded than that takes
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.convert("RGB").save(out, "JPEG", quality=85, optimize=True)
    return out.getvalue()
