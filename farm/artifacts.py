"""Files named by the SHA-256 of their bytes: inputs, videos, thumbnails. A file is there whole or not at all.

Bytes go to a temporary file in the same filesystem, are synced, and are renamed into place; the folder is
synced too. So a crash leaves at most a temporary file, which `sweep` removes, and two writers of the same
bytes cannot disturb each other.
"""

import errno
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from farm.errors import FarmError, NotFoundError
from farm.model import Artifact

_NAME = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BLOCK = 1 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class ArtifactStore:
    """The store under `root`: `root/ab/abcdef...`, and `root/incoming` for what is being written."""

    def __init__(self, root: Path) -> None:
        """Opens the store, and makes its folders.

        Raises:
            FarmError: the folder cannot be made or written.
        """
        self.root = root
        self._incoming = root / "incoming"
        with _plain_errors("open the store of pictures and videos", root):
            self._incoming.mkdir(parents=True, exist_ok=True)

    def put(self, data: bytes, media_type: str) -> Artifact:
        """Stores bytes; when it returns they are on the disk. The same bytes are kept once.

        Raises:
            FarmError: the disk is full or refuses.
        """
        return self._store((data,), None, media_type)

    def put_file(self, path: Path, sha256: str, media_type: str) -> Artifact:
        """Stores a copy of a file that must have this hash; the file itself stays where it is.

        Raises:
            FarmError: the file has another hash or cannot be read; the disk is full or refuses. Nothing is
                kept.
        """
        with _plain_errors("read", path), path.open("rb") as file:
            return self.put_stream(file, sha256, media_type)

    def put_stream(self, file: IO[bytes], sha256: str, media_type: str) -> Artifact:
        """Stores what a file gives, which must have this hash.

        Raises:
            FarmError: it has another hash; the disk is full or refuses. Nothing is kept.
        """
        return self._store(iter(lambda: file.read(_BLOCK), b""), sha256, media_type)

    def path(self, sha256: str) -> Path:
        """Where the file of this hash is, or would be.

        Raises:
            NotFoundError: not a hash (so no name from outside can lead out of the store).
        """
        if not _NAME.fullmatch(sha256):
            raise NotFoundError(
                f"No file is called {sha256[:80]!r}.", "Files are named by 64 hexadecimal digits."
            )
        return self.root / sha256[:2] / sha256

    def open(self, sha256: str) -> BinaryIO:
        """Opens a stored file for reading.

        Raises:
            NotFoundError: it is not there.
        """
        try:
            return self.path(sha256).open("rb")
        except FileNotFoundError as error:
            message = f"The file {sha256} is not in the farm's store."
            raise NotFoundError(message, "It was deleted, or the store was restored without it.") from error

    def read(self, sha256: str) -> bytes:
        """The bytes of a stored file.

        Raises:
            NotFoundError: it is not there.
        """
        with self.open(sha256) as file:
            return file.read()

    def exists(self, sha256: str) -> bool:
        """Whether the file of this hash is there."""
        return self.path(sha256).is_file()

    def delete(self, sha256: str) -> None:
        """Removes a file; one that is not there is no fault.

        Raises:
            FarmError: the disk refuses.
        """
        with _plain_errors("delete", self.path(sha256)):
            self.path(sha256).unlink(missing_ok=True)

    def size(self, sha256: str) -> int:
        """Bytes of a stored file; 0 where it is not there."""
        try:
            return self.path(sha256).stat().st_size
        except FileNotFoundError:
            return 0

    def touch(self, sha256: str) -> bool:
        """Keeps a file from `discard` for a while: someone is about to use it. False where it is not there."""
        try:
            os.utime(self.path(sha256))
        except FileNotFoundError:
            return False
        return True

    def discard(self, sha256: str, unused_for_s: float = 3600.0) -> bool:
        """Removes a file that nothing names, unless it was stored or touched lately: then whoever did will name it soon.

        False where it must stay for now. It is moved away before its time is read, so that a touch either comes first and is seen,
        or finds nothing.

        Raises:
            FarmError: the disk refuses.
        """
        path, aside = self.path(sha256), self._incoming / f"discarded-{sha256}"
        with _plain_errors("delete", path):
            try:
                path.replace(aside)
            except FileNotFoundError:
                return True
            if aside.stat().st_mtime > time.time() - unused_for_s:
                aside.replace(path)
                return False
            aside.unlink()
        return True

    def take_back(self) -> None:
        """Puts back what a `discard` that was killed had moved away. For the one process that discards.

        Raises:
            FarmError: the disk refuses.
        """
        with _plain_errors("read", self._incoming):
            for aside in self._incoming.glob("discarded-*"):
                aside.replace(self.path(aside.name.removeprefix("discarded-")))

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """Removes half-written files that are older than this (their writers died); gives how many went."""
        gone = 0
        for left in self._incoming.iterdir():
            try:
                if left.stat().st_mtime < time.time() - older_than_s:
                    left.unlink()
                    gone += 1
            except FileNotFoundError:
                continue  # its writer has just finished
        return gone

    def _store(self, blocks: Iterable[bytes], expected: str | None, media_type: str) -> Artifact:
        digest, size = hashlib.sha256(), 0
        with _plain_errors("store a file in", self.root), self._temporary() as (file, temporary):
            for block in blocks:
                digest.update(block)
                file.write(block)
                size += len(block)
            sha256 = digest.hexdigest()
            if expected is not None and sha256 != expected:
                message = f"A file arrived damaged: its hash is {sha256[:12]}..., not {expected[:12]}..."
                raise FarmError(
                    message, "Send it again; if it happens often, test that PC's memory and network."
                )
            target = self.path(sha256)
            if not (target.is_file() and target.stat().st_size == size and self.touch(sha256)):
                file.flush()
                os.fsync(file.fileno())
                if _make_folder(target.parent):
                    _sync_folder(self.root)
                temporary.replace(target)
                _sync_folder(target.parent)
        return Artifact(sha256=sha256, media_type=media_type, size=size)

    @contextmanager
    def _temporary(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file in `incoming`, which is gone at the end unless it was renamed."""
        handle, name = tempfile.mkstemp(dir=self._incoming)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file, temporary
        finally:
            temporary.unlink(missing_ok=True)


def _make_folder(path: Path) -> bool:
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def _sync_folder(path: Path) -> None:
    """Makes the names in a folder durable; a rename alone may be lost with the power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _plain_errors(action: str, path: Path) -> Iterator[None]:
    """Turns what the disk says into an error for people."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        if error.errno in _FULL:
            remedy = "The disk is full: delete old clips or give the farm a larger disk, then try again."
        else:
            remedy = "Look at the folder's owner and the disk's health, then try again."
        raise FarmError(f"The farm could not {action} {path}: {cause}.", remedy) from error
