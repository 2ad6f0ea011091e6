"""Brings a model's weights to the head, once: from Hugging Face or from a directory, checked, whole or not at all.

What came so far is kept over a break and gone on with at the next call. Which files a model needs and whether they are complete is
told by the node's part of the farm, which knows the models; `Checks` carries that here.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.catalogue.models import ModelRow
from farm.errors import DiskFullError, FarmError, WeightsTransferError
from farm.stamp import stamp_of
from farm.weights import (
    KEPT_FREE,
    Manifest,
    Progress,
    Shelf,
    WeightFile,
    check_path,
    check_room,
    pieces_of,
    sha256_of,
    size_of,
    size_text,
)

INDEX = "model_index.json"
_HUB_NOTES = ".cache"
"""Where huggingface_hub keeps what it knows of a download within the directory that it downloads into."""


@dataclass(frozen=True, slots=True)
class Checks:
    """What is known of models.

    `wanted(index, names, where)` chooses a checkpoint's files; `whole(directory, row)` raises for one that is not complete.
    """

    wanted: Callable[[Mapping[str, Any], Collection[str], str], tuple[str, ...]]
    whole: Callable[[Path, ModelRow], None]


@dataclass(frozen=True, slots=True)
class Watcher:
    """Hears how a pull goes: `total(bytes)` once it is known, then `more(bytes)` as they come."""

    total: Progress
    more: Progress


def pull_from_directory(
    row: ModelRow, source: Path, shelf: Shelf, checks: Checks, watcher: Watcher, kept_free: int = KEPT_FREE
) -> Manifest:
    """Copies a model's files from a directory on this PC and takes them in use.

    Raises:
        MissingWeightsError: the directory holds no whole checkpoint of this model without pickles.
        DiskFullError: the disk has no room.
        WeightsTransferError: a file cannot be read or written.
    """
    checks.whole(source, row)
    index = json.loads((source / INDEX).read_text(encoding="utf-8"))
    # Only where the model's parts are: what lies beside them, as a disk's lost+found, may not be ours to read.
    parts = [place for place in source.iterdir() if place.name in index and place.is_dir()]
    names = {f"{part.name}/{file.name}" for part in parts for file in part.iterdir()}
    paths = _checked(checks.wanted(index, names, str(source)))
    half = shelf.half(row.name)
    with _told(f"The weights of {row.name} could not be copied from {source}", half):
        sizes = {path: (source / path).stat().st_size for path in paths}
        watcher.total(sum(sizes.values()))
        kept = {path for path in paths if _same(source / path, half / path)}
        check_room(half, sum(sizes[path] for path in paths if path not in kept), row.name, kept_free)
        _clear(half, frozenset(kept))
        files = []
        for path in paths:
            digest = (
                sha256_of(half / path, watcher.more)
                if path in kept
                else _copy(source / path, half / path, watcher.more)
            )
            files.append(WeightFile(path, sizes[path], digest))
        return _take_in(row, str(source), tuple(files), shelf, checks)


def pull_from_hub(
    row: ModelRow, shelf: Shelf, checks: Checks, watcher: Watcher, token: str = "", kept_free: int = KEPT_FREE
) -> Manifest:
    """Downloads a model's files with Hugging Face's own library and takes them in use.

    Raises:
        MissingWeightsError: the repository has no whole checkpoint of this model without pickles.
        DiskFullError: the disk has no room.
        WeightsTransferError: Hugging Face does not answer, does not know or does not give the model, or a file is not what it should be.
    """
    # Not at the top: it takes half a second, and only this needs it.
    from huggingface_hub import HfApi, hf_hub_download  # noqa: PLC0415

    # Without a token of the farm's the library takes the one of `hf auth login`, where there is one.
    half, known = shelf.half(row.name), token or None
    counter = _Counter(watcher.more)
    with _told(f"The weights of {row.name} could not be downloaded from {row.source}", half):
        info = HfApi().model_info(row.source, files_metadata=True, token=known)
        there = {file.rfilename: file for file in info.siblings or ()}
        half.mkdir(parents=True, exist_ok=True)

        def fetch(path: str) -> Path:
            return Path(
                hf_hub_download(
                    row.source,
                    path,
                    revision=info.sha,
                    local_dir=half,
                    token=known,
                    tqdm_class=counter.bar_class(),
                )
            )

        index = json.loads(fetch(INDEX).read_text(encoding="utf-8"))
        paths = _checked(checks.wanted(index, there.keys(), row.source))
        sizes = {path: (there[path].size or 0) if path in there else 0 for path in paths}
        watcher.total(sum(sizes.values()))
        _clear(half, frozenset((*paths, *_hub_files(half))))
        check_room(half, max(0, sum(sizes.values()) - size_of(half)), row.name, kept_free)
        files = []
        for path in paths:
            counter.told = 0
            found = fetch(path)
            size, digest = found.stat().st_size, sha256_of(found)
            lfs = there[path].lfs if path in there else None
            if lfs is not None and lfs.sha256 != digest:
                found.unlink()
                raise WeightsTransferError(
                    f"{path} of {row.source} was changed on its way: its hash is not the one that Hugging Face names.",
                    f"Run `farm models pull {row.name}` again; it fetches that file anew.",
                )
            watcher.more(size - counter.told)  # what was here, or came in a way that tells nothing
            files.append(WeightFile(path, size, digest))
        return _take_in(row, row.source, tuple(files), shelf, checks)


class _Counter:
    """Hears of a download through the bars that huggingface_hub would draw."""

    def __init__(self, more: Progress) -> None:
        self._more = more
        self.told = 0

    def bar_class(self) -> Any:
        """A class of bars that draw nothing and count."""
        from tqdm import tqdm  # type: ignore[import-untyped]  # noqa: PLC0415 - comes with huggingface_hub, has no types

        counter = self

        class Bar(tqdm):  # type: ignore[misc]  # has no types
            def __init__(self, *arguments: Any, **options: Any) -> None:
                options.pop("name", None)
                super().__init__(*arguments, **(options | {"disable": True}))
                counter.count(int(options.get("initial") or 0))

            def update(self, n: float | None = 1) -> bool | None:
                counter.count(int(n or 0))
                return None

        return Bar

    def count(self, size: int) -> None:
        """So many bytes more."""
        self.told += size
        self._more(size)


def _checked(paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        check_path(path)
    return paths


def _take_in(
    row: ModelRow, source: str, files: tuple[WeightFile, ...], shelf: Shelf, checks: Checks
) -> Manifest:
    half = shelf.half(row.name)
    checks.whole(half, row)
    shutil.rmtree(half / _HUB_NOTES, ignore_errors=True)
    manifest = Manifest(row.name, source, files)
    shelf.put(manifest)
    return manifest


def _same(source: Path, copy: Path) -> bool:
    """Whether a copy of an earlier call can stay: it has the length and the time of what it was copied from."""
    stamp = stamp_of(copy)
    return stamp is not None and stamp == stamp_of(source)


def _copy(source: Path, target: Path, progress: Progress) -> str:
    """Copies a file, with its time once it is complete; returns its hash."""
    target.parent.mkdir(parents=True, exist_ok=True)
    hashed, stamp = hashlib.sha256(), source.stat()
    with target.open("wb") as file:
        for piece in pieces_of(source):
            file.write(piece)
            hashed.update(piece)
            progress(len(piece))
        file.flush()
        os.fsync(file.fileno())
    os.utime(target, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return hashed.hexdigest()


def _hub_files(half: Path) -> list[str]:
    notes = half / _HUB_NOTES
    return [str(file.relative_to(half)) for file in notes.rglob("*") if file.is_file()]


def _clear(half: Path, keep: frozenset[str]) -> None:
    """Removes what an earlier call left of other files: a model has nothing that its manifest does not name."""
    for file in list(half.rglob("*")):
        if file.is_file() and str(file.relative_to(half)) not in keep:
            file.unlink()


@contextmanager
def _told(what: str, half: Path) -> Iterator[None]:
    """What libraries and the disk raise becomes a sentence and a remedy."""
    try:
        yield
    except FarmError:
        raise
    except Exception as error:
        if _is_full(error):
            raise DiskFullError(
                f"{what}: the disk of {half} is full. {size_text(size_of(half))} are there and kept.",
                "Free space there and run the command again: it goes on where it stopped. `farm models rm MODEL` gives the space back.",
            ) from error
        message, remedy = _meaning(error)
        raise WeightsTransferError(f"{what}: {message}", remedy) from error


_FULL = (errno.ENOSPC, errno.EDQUOT)


def _is_full(error: Exception) -> bool:
    """Whether the disk is full, or what this user may have of it."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    # huggingface_hub's faster way (hf_xet, in Rust) has errors of its own, which end with the system's in Rust's words.
    return any(f"(os error {number})" in str(error) for number in _FULL)


_AGAIN = "Run the command again: it goes on where it stopped."


def _meaning(error: Exception) -> tuple[str, str]:
    """What a failed download means, and what to do."""
    from huggingface_hub import errors  # noqa: PLC0415

    known: tuple[tuple[type[Exception], str, str], ...] = (
        (
            errors.GatedRepoError,
            "its licence must be accepted first.",
            "Accept it on the model's page at huggingface.co, make a token there (Settings, Access Tokens), and give it with "
            "--hf-token-file FILE or in FARM_HF_TOKEN. The head keeps it for the next time.",
        ),
        (
            errors.RepositoryNotFoundError,
            "Hugging Face has no such repository, shows it to its members only, or does not know the token.",
            "Correct the model's `source`, or give a token with --hf-token-file FILE.",
        ),
        (errors.HFValidationError, "its `source` is no repository.", "Give a directory with --from DIR."),
        (
            errors.RemoteEntryNotFoundError,
            "the repository lacks a file of the model.",
            "Correct the model's `source`.",
        ),
        (json.JSONDecodeError, f"its {INDEX} is damaged.", "Look at where the model comes from."),
    )
    for kind, message, remedy in known:
        if isinstance(error, kind):
            return message, remedy
    if isinstance(error, errors.HfHubHTTPError):
        return f"Hugging Face answers {error.response.status_code}.", _AGAIN
    return (
        f"the connection or the disk failed ({type(error).__name__}).",
        f"{_AGAIN} Without a way to huggingface.co, give a directory with --from DIR.",
    )
