"""Brings one model from the head to this PC: resumed where it was cut, hashed, whole or not at all."""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from farm.errors import DiskFullError, WeightsTransferError
from farm.weights import (
    KEPT_FREE,
    Manifest,
    Progress,
    Shelf,
    WeightFile,
    check_room,
    manifest_from_json,
    manifest_to_json,
    pieces_of,
    size_of,
    write_whole,
)
from node_agent.head_shelf import HeadShelf, Wanted

_NOTE = ".wanted"
"""In a half-made model: the manifest that it is made after."""
_PART = ".part"
"""Ends the name of a file that is on its way. One without it has been checked against its hash."""

Pace = Callable[[], float | None]
"""How fast weights may come just now: bytes a second, 0 for not at all, None for as fast as they do."""


class PausedError(Exception):
    """The PC has better things to do; what came is kept."""


class DamagedError(WeightsTransferError):
    """A file came with another hash than the manifest's. It was removed, and is fetched anew at the next try."""


class BecameFullError(DiskFullError):
    """The disk, or what this user may have of it, became full while a model came."""


def fetch_model(
    shelf: Shelf,
    line: HeadShelf,
    manifest: Manifest,
    whole: Callable[[Path], None],
    pace: Pace,
    progress: Progress,
    kept_free: int = KEPT_FREE,
) -> None:
    """Brings a model onto the shelf. `progress` hears how many bytes are here by now; `whole` raises for a model that is not complete.

    Raises:
        DiskFullError: there is no room.
        BecameFullError: there was none left on the way; nothing half is left.
        HeadUnreachableError, PausedError: it goes on from there at the next call.
        WeightsTransferError: a file is damaged, is not taken, or cannot be written.
        MissingWeightsError: all files came, and they are not a whole model; they were removed.
    """
    half = shelf.half(manifest.name)
    try:
        here = _begin(half, manifest)
        check_room(half, manifest.bytes - here, manifest.name, kept_free)
        half.mkdir(parents=True, exist_ok=True)
        write_whole(half / _NOTE, manifest_to_json(manifest))
        progress(here)
        for file in manifest.files:
            if not (half / file.path).is_file():
                _fetch_file(half, line, manifest.name, file, pace, progress)
        try:
            whole(half)
        except Exception:
            shutil.rmtree(half, ignore_errors=True)
            raise
        (half / _NOTE).unlink()
        shelf.put(manifest)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            shutil.rmtree(half, ignore_errors=True)  # the space is its owner's
            raise BecameFullError(
                f"The disk of {half} became full while {manifest.name} was fetched; what had come was removed.",
                "Free space there; the PC then fetches it again by itself.",
            ) from error
        raise WeightsTransferError(
            f"{half} cannot be written: {error.strerror or type(error).__name__}.",
            "Look at the disk and the rights of that directory.",
        ) from error


def half_there(shelf: Shelf, name: str) -> int:
    """Bytes of a model that have come so far."""
    return size_of(shelf.half(name))


def _begin(half: Path, manifest: Manifest) -> int:
    """Keeps of an earlier try what belongs to this very manifest, and nothing else; returns the bytes that are here."""
    try:
        before = frozenset(manifest_from_json((half / _NOTE).read_bytes()).files)
    except (OSError, WeightsTransferError):
        before = frozenset()
    keep = {file.path for file in manifest.files if file in before}
    for found in list(half.rglob("*")):
        if found.is_file() and str(found.relative_to(half)).removesuffix(_PART) not in keep:
            found.unlink()
    return size_of(half)


def _fetch_file(
    half: Path, line: HeadShelf, model: str, file: WeightFile, pace: Pace, progress: Progress
) -> None:
    target = half / file.path
    part = target.with_name(target.name + _PART)
    target.parent.mkdir(parents=True, exist_ok=True)
    hashed = hashlib.sha256()
    start = 0
    if part.is_file() and part.stat().st_size < file.bytes:
        for piece in pieces_of(part):
            hashed.update(piece)
            start += len(piece)
    had = size_of(half) - start
    with part.open("ab" if start else "wb") as out:
        came = start
        if file.bytes:
            for piece in line.pieces(Wanted(model, file.path, file.sha256, start)):
                came += len(piece)
                if came > file.bytes:
                    break
                out.write(piece)
                hashed.update(piece)
                progress(had + came)
                _keep_pace(pace, len(piece))
        out.flush()
        os.fsync(out.fileno())  # a file without `.part` must be what was hashed, also after a power cut
    if came == file.bytes and hashed.hexdigest() == file.sha256:
        part.replace(target)
        return
    part.unlink()
    raise DamagedError(
        f"{file.path} of {model} came damaged: its hash is not the one that the head names.",
        "If it happens again and again, run `farm models pull` on the head once more, and test the memory of both PCs.",
    )


def _keep_pace(pace: Pace, size: int) -> None:
    """Waits as long as the piece should have taken.

    Raises:
        PausedError: nothing may come just now.
    """
    allowed = pace()
    if allowed is None:
        return
    if allowed <= 0:
        raise PausedError
    time.sleep(size / allowed)


def drop_half(shelf: Shelf, name: str) -> None:
    """Removes what has come of a model that is wanted no longer."""
    with suppress(OSError):
        shutil.rmtree(shelf.half(name))
