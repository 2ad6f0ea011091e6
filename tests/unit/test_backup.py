"""A farm in one file and back: while it is written to, into an empty place, over another farm, and from files that are none."""

import io
import sqlite3
import stat
import tarfile
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from farm.artifacts import ArtifactStore
from farm.auth import Scope, TokenKind, judge
from farm.backup import back_up, restore
from farm.cli.main import app
from farm.errors import ConfigurationError, FarmError, SignInError
from farm.settings import DataDirectory
from farm.single import only_one
from farm.store.engine import open_engine
from farm.store.reader import Reader
from tests.storage import SETTINGS, Storage, open_storage

NOW = 1_800_000_000.0


class Farm:
    """A farm's directory, with its store open."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.data = DataDirectory(root)
        self.store: Storage = open_storage(root)
        self.artifacts = ArtifactStore(self.data.artifacts)

    def submit(self, picture: bytes) -> str:
        return self.store.submit(SETTINGS, self.artifacts.put(picture, "image/png"), NOW).id


@pytest.fixture
def farm(tmp_path: Path):
    made = Farm(tmp_path / "farm")
    yield made
    made.store.close()


def jobs_of(data: DataDirectory) -> dict[str, bytes]:
    """Each job of a farm that does not run, with its picture."""
    engine = open_engine(data.database_url, writes=False)
    store = ArtifactStore(data.artifacts)
    try:
        return {job.id: store.read(job.input_sha256) for job in Reader(engine).jobs(limit=1000).jobs}
    finally:
        engine.dispose()


def test_a_backup_made_while_jobs_come_in_is_of_one_moment(farm: Farm, tmp_path: Path) -> None:
    first = {farm.submit(f"first {number}".encode()): f"first {number}".encode() for number in range(20)}
    stop = threading.Event()
    more: dict[str, bytes] = {}

    def submit_on() -> None:
        while not stop.is_set():
            picture = f"later {len(more)}".encode()
            more[farm.submit(picture)] = picture

    submitting = threading.Thread(target=submit_on)
    submitting.start()
    try:
        done = back_up(farm.data, tmp_path / "backup.tar")
    finally:
        stop.set()
        submitting.join()
    assert done.missing == 0
    assert stat.S_IMODE((tmp_path / "backup.tar").stat().st_mode) == 0o600
    other = DataDirectory(tmp_path / "other")
    assert restore(other, tmp_path / "backup.tar", NOW) is None
    restored = jobs_of(other)
    assert len(restored) == done.files
    assert first.items() <= restored.items()
    assert restored.items() <= (first | more).items()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup.tar", "farm", "other"]


def test_files_of_removed_jobs_stay_out_and_missing_ones_are_counted(farm: Farm, tmp_path: Path) -> None:
    removed, lost = farm.submit(b"removed"), farm.submit(b"lost")
    assert farm.store.writer.give_up_queued(removed, "x", NOW)
    assert farm.store.writer.remove_files([removed], NOW) == [removed]
    farm.artifacts.delete(farm.store.reader.job(lost).input_sha256)
    done = back_up(farm.data, tmp_path / "backup.tar")
    assert (done.files, done.missing) == (0, 1)


def test_restoring_over_a_farm_keeps_its_database_aside_and_its_files(farm: Farm, tmp_path: Path) -> None:
    kept = farm.submit(b"kept")
    back_up(farm.data, tmp_path / "backup.tar")
    later = farm.submit(b"later")
    farm.store.close()
    aside = restore(farm.data, tmp_path / "backup.tar", NOW)
    assert aside is not None
    assert jobs_of(farm.data) == {kept: b"kept"}
    with sqlite3.connect(aside) as connection:
        assert {row[0] for row in connection.execute("SELECT id FROM jobs")} == {kept, later}
    assert len([path for path in farm.data.artifacts.rglob("*") if path.is_file()]) == 2


def test_browsers_sign_in_anew_and_programs_go_on(farm: Farm, tmp_path: Path) -> None:
    farm.store.registry.add_token("browser", TokenKind.SESSION, "x", NOW, scope=Scope.ADMIN)
    farm.store.registry.add_token("program", TokenKind.ADMIN, "x", NOW)
    back_up(farm.data, tmp_path / "backup.tar")
    other = DataDirectory(tmp_path / "other")
    restore(other, tmp_path / "backup.tar", NOW)
    engine = open_engine(other.database_url, writes=False)
    reader, people = Reader(engine), frozenset({TokenKind.SESSION, TokenKind.ADMIN})
    with pytest.raises(SignInError, match="revoked"):
        judge(reader.token("browser"), people, NOW)
    assert judge(reader.token("program"), people, NOW).may(Scope.ADMIN)
    engine.dispose()


def test_a_running_farm_is_not_restored(farm: Farm, tmp_path: Path) -> None:
    job = farm.submit(b"picture")
    back_up(farm.data, tmp_path / "backup.tar")
    with (
        only_one(farm.data.root / "lock", "held", ""),
        pytest.raises(ConfigurationError, match="runs in this directory"),
    ):
        restore(farm.data, tmp_path / "backup.tar", NOW)
    assert jobs_of(farm.data) == {job: b"picture"}


def a_tar(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({}, "no database"),
        ({"farm.sqlite3": b"x" * 5000}, "not a database"),
        ({"artifacts/" + "ab" * 32: b"other bytes"}, "damaged"),
        ({"artifacts/../../evil": b"x"}, "No file is called"),
        ({"/etc/evil": b"x"}, "belongs to no farm"),
    ],
)
def test_what_is_no_backup_changes_nothing(farm: Farm, tmp_path: Path, members: dict, word: str) -> None:
    job = farm.submit(b"picture")
    with pytest.raises(FarmError, match=word):
        restore(farm.data, a_tar(tmp_path / "bad.tar", **members), NOW)
    assert jobs_of(farm.data) == {job: b"picture"}
    assert not list(farm.data.root.glob(".restoring-*"))


def test_a_backup_that_was_cut_off_or_is_of_a_newer_farm_is_refused(farm: Farm, tmp_path: Path) -> None:
    job = farm.submit(b"picture" * 10_000)
    whole = tmp_path / "backup.tar"
    back_up(farm.data, whole)
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with sqlite3.connect(tmp_path / "newer.sqlite3") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    newer = a_tar(tmp_path / "newer.tar", **{"farm.sqlite3": (tmp_path / "newer.sqlite3").read_bytes()})
    picture = tmp_path / "cat.png"  # told in five lines, of which four were of ways to pack
    picture.write_bytes(b"\x89PNG" * 200)
    for bad, word in (
        (cut, "damaged"),
        (picture, "it is no tar file"),
        (newer, "newer farm"),
        (tmp_path / "none.tar", "No such file"),
    ):
        with pytest.raises(FarmError, match=word) as refused:
            restore(farm.data, bad, NOW)
        assert "\n" not in str(refused.value)
    assert jobs_of(farm.data) == {job: b"picture" * 10_000}


def test_the_verbs_do_both(farm: Farm, tmp_path: Path) -> None:
    job = farm.submit(b"picture")
    file, other = tmp_path / "backup.tar", tmp_path / "other"
    done = CliRunner().invoke(app, ["backup", str(file), "--data", str(farm.data.root)])
    assert (done.exit_code, done.exception) == (0, None)
    done = CliRunner().invoke(app, ["restore", str(file), "--data", str(other)])
    assert (done.exit_code, done.exception) == (0, None)
    assert jobs_of(DataDirectory(other)) == {job: b"picture"}
    with pytest.raises(ConfigurationError, match="no farm"):
        CliRunner().invoke(
            app, ["backup", str(file), "--data", str(tmp_path / "nowhere")], catch_exceptions=False
        )
