"""The store of files: content-addressed, whole or absent, clear when the disk refuses."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farm.artifacts import ArtifactStore
from farm.errors import FarmError, NotFoundError
from farm.model import Artifact
from tests.small_disk import needs_root, small_disk

BYTES = b"a picture, or so" * 1000
NAME = hashlib.sha256(BYTES).hexdigest()


def files_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "files")


def test_put_names_the_file_by_its_hash_and_reads_it_back(store: ArtifactStore) -> None:
    assert store.put(BYTES, "image/png") == Artifact(NAME, "image/png", len(BYTES))
    assert files_of(store.root) == [f"{NAME[:2]}/{NAME}"]
    assert store.path(NAME) == store.root / NAME[:2] / NAME
    assert store.exists(NAME)
    assert store.read(NAME) == BYTES
    with store.open(NAME) as file:
        assert file.read(9) == b"a picture"


def test_the_same_bytes_are_kept_once_and_not_written_again(store: ArtifactStore) -> None:
    store.put(BYTES, "image/png")
    before = store.path(NAME).stat()
    store.put(BYTES, "image/png")
    after = store.path(NAME).stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns >= before.st_mtime_ns  # only its time is new, for `discard`
    assert files_of(store.root) == [f"{NAME[:2]}/{NAME}"]


def test_a_file_cut_short_by_a_dying_disk_is_written_again(store: ArtifactStore) -> None:
    store.put(BYTES, "image/png")
    store.path(NAME).write_bytes(BYTES[:10])
    store.put(BYTES, "image/png")
    assert store.read(NAME) == BYTES


def test_parallel_puts_of_the_same_and_of_other_bytes(store: ArtifactStore) -> None:
    contents = [bytes([number]) * 300_000 for number in range(4)] * 12
    with ThreadPoolExecutor(12) as pool:
        stored = list(pool.map(lambda data: store.put(data, "x/y"), contents))
    assert len(files_of(store.root)) == 4
    assert all(store.read(artifact.sha256) == data for artifact, data in zip(stored, contents, strict=True))


def test_a_reader_never_sees_half_a_file(store: ArtifactStore) -> None:
    """While a writer is at work the name is absent or whole, never short."""
    data = os.urandom(3_000_000)
    name, seen = hashlib.sha256(data).hexdigest(), []

    def watch() -> None:
        while not store.exists(name):
            pass
        seen.append(len(store.read(name)))

    with ThreadPoolExecutor(2) as pool:
        watching = pool.submit(watch)
        store.put(data, "x/y")
        watching.result(timeout=30)
    assert seen == [len(data)]


def test_put_file_copies_and_checks_the_hash(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "result.mp4"
    source.write_bytes(BYTES)
    assert store.put_file(source, NAME, "video/mp4") == Artifact(NAME, "video/mp4", len(BYTES))
    assert store.read(NAME) == source.read_bytes() == BYTES


def test_a_wrong_hash_is_refused_and_nothing_is_kept(store: ArtifactStore, tmp_path: Path) -> None:
    source = tmp_path / "result.mp4"
    source.write_bytes(BYTES + b"!")
    with pytest.raises(FarmError, match=r"arrived damaged: its hash is .*, not " + NAME[:12]):
        store.put_file(source, NAME, "video/mp4")
    assert files_of(store.root) == []


def test_a_missing_source_is_an_error_for_people(store: ArtifactStore, tmp_path: Path) -> None:
    with pytest.raises(FarmError, match=r"could not read .*gone.mp4: No such file"):
        store.put_file(tmp_path / "gone.mp4", NAME, "video/mp4")


@pytest.mark.parametrize("name", ["../../etc/passwd", "", NAME[:-1], NAME.upper(), NAME + "\n", "٣" * 64])
def test_only_a_hash_is_a_name(store: ArtifactStore, name: str) -> None:
    for call in (store.path, store.read, store.exists, store.delete):
        with pytest.raises(NotFoundError):
            call(name)


def test_what_is_not_there(store: ArtifactStore) -> None:
    assert not store.exists(NAME)
    store.delete(NAME)
    with pytest.raises(NotFoundError, match=f"The file {NAME} is not in the farm's store"):
        store.read(NAME)


def test_delete(store: ArtifactStore) -> None:
    store.put(BYTES, "image/png")
    store.delete(NAME)
    assert not store.exists(NAME)
    store.put(BYTES, "image/png")
    assert store.read(NAME) == BYTES


def test_sweep_takes_only_old_leftovers(store: ArtifactStore) -> None:
    store.put(BYTES, "image/png")
    old, new = store.root / "incoming" / "old", store.root / "incoming" / "new"
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert store.sweep() == 1
    assert files_of(store.root) == sorted([f"{NAME[:2]}/{NAME}", "incoming/new"])


@needs_root
def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with small_disk(tmp_path / "small") as small:
        store = ArtifactStore(small / "files")
        kept = store.put(b"kept" * 1000, "x/y")
        with pytest.raises(FarmError, match="No space left on device") as caught:
            store.put(os.urandom(3_000_000), "x/y")
        assert caught.value.remedy.startswith("The disk is full: delete old clips")
        assert files_of(store.root) == [f"{kept.sha256[:2]}/{kept.sha256}"]
        assert store.put(b"room again" * 1000, "x/y").size == 10_000


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FarmError, match="could not open the store of pictures and videos"):
        ArtifactStore(tmp_path / "file" / "files")
