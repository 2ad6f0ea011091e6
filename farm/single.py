"""At most one process per directory, held by a file lock that ends with its process, however it ends."""

import fcntl
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from farm.errors import ConfigurationError


def holder(lock: Path) -> int | None:
    """The process that holds the lock; None if none does."""
    try:
        with lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read().strip() or 0) or None
    except (FileNotFoundError, ValueError):
        pass
    return None


@contextmanager
def only_one(lock: Path, message: str, remedy: str) -> Iterator[None]:
    """Holds the lock for as long as the block runs; `{pid}` in the texts is the other process.

    Raises:
        ConfigurationError: another process holds it, or who runs this may not write there.
    """
    with _opened(lock) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read().strip() or "unknown"
            raise ConfigurationError(message.format(pid=pid), remedy.format(pid=pid)) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _opened(lock: Path) -> IO[str]:
    """The lock's file, made with its directory where there is none; it is the first thing that a program writes there."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        return lock.open("a+")
    except OSError as error:
        user = pwd.getpwuid(os.geteuid()).pw_name
        raise ConfigurationError(
            f"{user} cannot write in {lock.parent}: {error.strerror}.",
            f"Give it to that user (`sudo chown -R {user} {lock.parent}`), or choose another directory.",
        ) from error
