"""At most one process per directory, held by a file lock that ends with its process, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
        ConfigurationError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as file:
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
