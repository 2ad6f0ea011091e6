"""The weights of models as the farm keeps and passes them on: a directory for each model, with a manifest of its files.

A model is on the shelf whole or not at all. It is made in a directory beside (`.NAME.half`), which whoever makes it can go on with
after a break, and which is renamed when everything in it has been checked.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from farm.errors import DiskFullError, WeightsTransferError
from farm.model import Coming

MANIFEST = "manifest.json"
ENDINGS = frozenset({".json", ".txt", ".safetensors"})
"""The kinds of files that a model's weights are made of. None of them can run code."""
KEPT_FREE = 2 * 10**9
"""Bytes of a disk that weights leave to others: a full disk breaks more than a render."""
PIECE = 2**20
"""Bytes that are read, hashed and written at once."""
_NAME = re.compile(r"\w[\w.-]*")

Progress = Callable[[int], None]
"""Hears how many bytes more are there."""


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of a model: its path within the model's directory with `/`, its length, its hash."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model's files. `source` is where the head had them from."""

    name: str
    source: str
    files: tuple[WeightFile, ...]

    @property
    def bytes(self) -> int:
        """All files together."""
        return sum(file.bytes for file in self.files)

    @property
    def digest(self) -> str:
        """The same for the same files, whatever their source."""
        told = sorted((file.path, file.bytes, file.sha256) for file in self.files)
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def manifest_to_json(manifest: Manifest) -> bytes:
    """The manifest as it lies on the disk and goes through the line."""
    return _MANIFEST.dump_json(manifest, indent=1)


def manifest_from_json(text: bytes) -> Manifest:
    """The manifest again, once it is known to name nothing outside the model's directory and nothing that can run code.

    Raises:
        WeightsTransferError: it is damaged, or names such a file.
    """
    try:
        manifest = _MANIFEST.validate_json(text)
    except ValidationError as error:
        raise WeightsTransferError(
            "A model's manifest is damaged.", "Run `farm models pull MODEL` on the head once more."
        ) from error
    check_name(manifest.name)
    for file in manifest.files:
        check_path(file.path)
    return manifest


def check_name(name: str) -> None:
    """Passes a name that can be a directory's.

    Raises:
        WeightsTransferError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise WeightsTransferError(
            f"A model cannot be kept under the name {name[:80]!r}.",
            "Give it a name of letters, digits, dots and dashes.",
        )


def check_path(path: str) -> None:
    """Passes the path of a file that may be part of a model.

    Raises:
        WeightsTransferError: it leads elsewhere, or the file may be a pickle.
    """
    if not all(_NAME.fullmatch(part) for part in path.split("/")):
        raise WeightsTransferError(
            f"A model's file cannot be kept as {path[:200]!r}.", "Look at where the model comes from."
        )
    if Path(path).suffix not in ENDINGS or path == MANIFEST:
        raise WeightsTransferError(
            f"{path} is not taken: weights are safetensors, json and txt files; a pickle can run code.",
            "Get the model's safetensors files.",
        )


class Shelf:
    """The directory of models on a PC: the head's, or a node's own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, name: str) -> Path | None:
        """Where a model lies, whole; None where it is not here, or not ours to read."""
        found = self.root / name
        try:
            return found if _NAME.fullmatch(name) and (found / MANIFEST).is_file() else None
        except OSError:
            return None

    def has_all(self, manifest: Manifest) -> bool:
        """Whether each file is there in its length: a disk that fails, or a person, may have taken one away. Opens none of them."""
        try:
            return all(
                (self.root / manifest.name / file.path).stat().st_size == file.bytes
                for file in manifest.files
            )
        except OSError:
            return False

    def manifest(self, name: str) -> Manifest | None:
        """The manifest of a model that is here; None for one that is not, or whose manifest cannot be read."""
        directory = self.directory(name)
        if directory is None:
            return None
        try:
            return manifest_from_json((directory / MANIFEST).read_bytes())
        except (OSError, WeightsTransferError):
            return None

    def manifests(self) -> list[Manifest]:
        """Those of all models here, by name."""
        try:
            names = sorted(entry.name for entry in self.root.iterdir())
        except OSError:
            return []
        return [found for name in names if (found := self.manifest(name)) is not None]

    def half(self, name: str) -> Path:
        """The directory in which a model is made; nothing is read from it but by whoever makes it."""
        check_name(name)
        return self.root / f".{name}.half"

    def put(self, manifest: Manifest) -> Path:
        """Takes the model that was made in `half` in use, in place of what was here; returns where it lies."""
        half, target = self.half(manifest.name), self.root / manifest.name
        for file in manifest.files:
            _to_disk(half / file.path)
        write_whole(half / MANIFEST, manifest_to_json(manifest))
        self._put_away(target)
        half.rename(target)
        _gone_mark(self.root, manifest.name).unlink(missing_ok=True)
        return target

    def remove(self, name: str) -> int:
        """Removes a model and what was half made of it; returns the bytes that this frees, 0 where there was nothing."""
        check_name(name)
        # Also what a removal that was broken off left: whoever asks once more must not hear that there was nothing.
        freed = sum(size_of(place) for place in (self.root / name, self.half(name), self._aside(name)))
        self._put_away(self.root / name)
        shutil.rmtree(self.half(name), ignore_errors=True)
        return freed

    def mark_removed(self, name: str) -> None:
        """Notes for the nodes that a person wants the model no longer: what is merely missing they keep."""
        mark = _gone_mark(self.root, name)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def removed(self) -> list[str]:
        """What was marked so and has not come back."""
        try:
            return sorted(mark.name for mark in (self.root / ".removed").iterdir())
        except OSError:
            return []

    def _aside(self, name: str) -> Path:
        return self.root / f".{name}.old"

    def _put_away(self, target: Path) -> None:
        """Moves it aside first, so that nobody finds half of it."""
        aside = self._aside(target.name)
        shutil.rmtree(aside, ignore_errors=True)
        if target.exists():
            target.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)


def _gone_mark(root: Path, name: str) -> Path:
    return root / ".removed" / name


def write_whole(path: Path, data: bytes) -> None:
    """Writes a small file, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _to_disk(path: Path) -> None:
    """Waits until a file's bytes are on the disk: after a power cut a whole model must not be found short."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def size_of(directory: Path) -> int:
    """Bytes of all files under a directory; 0 where there is none."""
    total = 0
    for place, _, names in os.walk(directory):
        for name in names:
            try:
                total += Path(place, name).stat().st_size
            except OSError:
                continue  # renamed in this very moment
    return total


def pieces_of(path: Path) -> Iterator[bytes]:
    """A file's bytes in order."""
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """The hash of a file."""
    hashed = hashlib.sha256()
    for piece in pieces_of(path):
        hashed.update(piece)
        if progress is not None:
            progress(len(piece))
    return hashed.hexdigest()


def check_room(directory: Path, needed: int, what: str, kept_free: int = KEPT_FREE) -> None:
    """Passes if the disk takes `needed` bytes more and `kept_free` stay free.

    Raises:
        DiskFullError: it does not; the message says how much is there and how much is needed.
    """
    place = directory
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed + kept_free:
        raise DiskFullError(
            f"The disk of {directory} has {size_text(free)} free; {what} needs {size_text(needed)}, and {size_text(kept_free)} stay free.",
            f"Free {size_text(needed + kept_free - free)} there.",
        )


def coming_text(coming: Coming) -> str:
    """A model on its way in one line: "i2vgen-xl 43 %, 1.9 GB to go", or why it cannot be fetched or used."""
    if coming.trouble is not None:
        return f"{coming.model} cannot be {'used' if coming.damaged else 'fetched'}: {coming.trouble}"
    return f"{coming.model} {coming.percent} %, {size_text(coming.total_bytes - coming.done_bytes)} to go"


def size_text(size: int) -> str:
    """Bytes as people say them: "1.9 GB", "34 MB", "12 kB"."""
    if size >= 10**9:
        return f"{size / 1e9:.1f} GB"
    if size >= 10**6:
        return f"{size / 1e6:.0f} MB"
    return f"{size / 1e3:.0f} kB"
