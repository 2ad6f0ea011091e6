"""Files that hold a secret: made once, readable by their owner alone, never half written."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path


def ensure_private_directory(path: Path) -> None:
    """Makes a directory that only its owner may enter."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)


def write_secret(path: Path, text: str) -> None:
    """Replaces the file, mode 0600 from its first byte on."""
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def keep_secret(path: Path, make: Callable[[], str]) -> str:
    """The secret in the file, which is made where there is none."""
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text().strip()
        if found:
            path.chmod(0o600)
            return found
    text = make()
    write_secret(path, text)
    return text
