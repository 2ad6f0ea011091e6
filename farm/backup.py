"""A farm's database and files in one tar file, made while the farm runs, and a farm made of it again.

Secrets stay out: the tokens' and passwords' hashes are in the database, what they are hashes of is not, and `farm up` makes the head's own
anew. The file holds every prompt and picture, so it is readable by its owner only.
"""

import os
import shutil
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from farm.artifacts import ArtifactStore
from farm.auth import TokenKind
from farm.errors import ConfigurationError, FarmError
from farm.secret_files import ensure_private_directory
from farm.settings import DataDirectory
from farm.single import only_one
from farm.store.engine import migrate, open_engine
from farm.store.registry import Registry

DATABASE = "farm.sqlite3"
FILES = "artifacts/"
_NAMED = """
    SELECT input_sha256 FROM jobs WHERE removed_at IS NULL
    UNION SELECT video_sha256 FROM jobs WHERE removed_at IS NULL AND video_sha256 IS NOT NULL
    UNION SELECT thumbnail_sha256 FROM jobs WHERE removed_at IS NULL AND thumbnail_sha256 IS NOT NULL
    UNION SELECT s.sha256 FROM stage_artifacts s JOIN jobs j ON j.id = s.job_id WHERE j.removed_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What went into a backup: files, those that jobs name and that are not there, and bytes in all."""

    files: int
    missing: int
    size: int


def back_up(data: DataDirectory, file: Path) -> BackedUp:
    """Writes the backup, whole or not at all; the farm goes on meanwhile.

    The database is copied first, by SQLite's own backup, which is of one moment; then the files that this copy names. They never change,
    and what comes later is not in the copy.

    Raises:
        ConfigurationError: there is no farm.
        FarmError: the disk is full or refuses.
    """
    if not data.database.exists():
        raise ConfigurationError(f"There is no farm in {data.root}.", "Name its directory with --data.")
    migrate(data.database_url)
    artifacts = ArtifactStore(data.artifacts)
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".farm-backup-") as folder:  # mode 0700
            copy, made = Path(folder) / DATABASE, Path(folder) / "backup.tar"
            _copy(data.database, copy)
            with closing(sqlite3.connect(copy)) as connection:
                named = sorted(str(row[0]) for row in connection.execute(_NAMED))
            missing = 0
            made.touch(mode=0o600)
            with tarfile.open(made, "w") as tar:
                tar.add(copy, DATABASE)
                for sha256 in named:
                    try:
                        tar.add(artifacts.path(sha256), FILES + sha256)
                    except FileNotFoundError:
                        missing += 1
            with made.open("rb") as written:
                os.fsync(written.fileno())
            size = made.stat().st_size
            made.replace(file)
    except OSError as error:
        raise _refused("write the backup", file, error) from error
    return BackedUp(len(named) - missing, missing, size)


def restore(data: DataDirectory, file: Path, now: float) -> Path | None:
    """Makes the farm what it was at the backup; returns where a database that was there lies now.

    Files are added, each held to its hash; none that is there is lost. Browsers sign in anew.

    Raises:
        ConfigurationError: the farm runs.
        FarmError: the file is no backup, damaged, or of a newer farm. Nothing was changed but files added.
    """
    ensure_private_directory(data.root)
    running = "A farm runs in this directory already (process {pid})."
    with only_one(data.root / "lock", running, "End it first (Ctrl-C, or `kill {pid}`)."):
        try:
            with tempfile.TemporaryDirectory(dir=data.root, prefix=".restoring-") as folder:
                database = Path(folder) / DATABASE
                _unpack(file, database, ArtifactStore(data.artifacts))
                _make_fit(database, now)
                aside = _move_aside(data.database, now)
                database.chmod(0o600)
                database.replace(data.database)
                return aside
        except tarfile.ReadError as error:  # its own words are a line for each way to pack that it tried
            raise FarmError(
                f"{file} is not a farm's backup, or is damaged: it is no tar file, or cut off.",
                "Take another one.",
            ) from error
        except (tarfile.TarError, EOFError, sqlite3.DatabaseError, SQLAlchemyError) as error:
            raise FarmError(
                f"{file} is not a farm's backup, or is damaged: {error}.", "Take another one."
            ) from error
        except CommandError as error:
            raise FarmError(
                f"{file} is of a newer farm than this one.", "Update this farm's program, then restore."
            ) from error
        except OSError as error:
            raise _refused("restore from", file, error) from error


def _copy(database: Path, copy: Path) -> None:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it


def _unpack(file: Path, database: Path, artifacts: ArtifactStore) -> None:
    found = False
    with tarfile.open(file) as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None:
                raise tarfile.TarError(f"{member.name[:80]!r} is no plain file")
            with content:
                if member.name == DATABASE:
                    with database.open("wb") as target:
                        shutil.copyfileobj(content, target)
                    found = True
                elif member.name.startswith(FILES):
                    sha256 = member.name.removeprefix(FILES)
                    artifacts.path(sha256)  # a name that is no hash leads nowhere
                    artifacts.put_stream(content, sha256, "application/octet-stream")
                else:
                    raise tarfile.TarError(f"{member.name[:80]!r} belongs to no farm")
    if not found:
        raise tarfile.TarError("it has no database")


def _make_fit(database: Path, now: float) -> None:
    """Looks whether the database is whole, brings it up to date, and ends the sessions of browsers."""
    with closing(sqlite3.connect(database)) as connection:
        said = connection.execute("PRAGMA quick_check").fetchone()[0]
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    if said != "ok" or known is None:
        raise sqlite3.DatabaseError(said if said != "ok" else "its database is not a farm's")
    url = f"sqlite:///{database}"
    migrate(url)
    engine = open_engine(url, writes=True)
    try:
        Registry(engine).revoke(TokenKind.SESSION, now)
    finally:
        engine.dispose()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "PRAGMA journal_mode=DELETE"
        )  # what the log holds goes into the file that is moved


def _move_aside(database: Path, now: float) -> Path | None:
    """A database that is there keeps its bytes under another name, with its log."""
    if not database.exists():
        return None
    aside = database.with_name(f"{database.name}.before-{int(now)}")
    for end in ("-wal", "-shm", ""):
        part = database.with_name(database.name + end)
        if part.exists():
            part.replace(aside.with_name(aside.name + end))
    return aside


def _refused(action: str, file: Path, error: OSError) -> FarmError:
    return FarmError(
        f"The farm could not {action} {file}: {error.strerror or error}.",
        "Look at the path, its owner and the room on its disk, then try again.",
    )
