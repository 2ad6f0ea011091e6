"""A disk of one MiB, to be full."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT TESTED: a full disk needs root, to mount a small one"
)


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mounts it at `place`, which is made."""
    libc = ctypes.CDLL(None, use_errno=True)
    place.mkdir()
    if libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, b"size=1m") != 0:
        pytest.skip(f"NOT TESTED: a full disk, since mount says: {os.strerror(ctypes.get_errno())}")
    try:
        yield place
    finally:
        assert libc.umount2(str(place).encode(), 2) == 0


def fill(place: Path) -> Path:
    """Takes all the room that is left there, with a file that is returned."""
    ballast = place / "ballast"
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (place / "more").write_bytes(b"more")
    (place / "more").unlink()
    return ballast
