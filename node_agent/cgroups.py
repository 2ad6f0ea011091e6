"""What a container or a service leaves its programs of the PC's memory: Linux' control groups, of both versions. Without torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_OWN: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")
_NO_LIMIT: Final = 1 << 60
"""The first version writes the largest number that it knows where there is no limit."""


@dataclass(frozen=True, slots=True)
class _Names:
    """The files of one version: the limits, what is in use, and what of that caches files, which the kernel gives up first."""

    limits: tuple[str, ...]
    used: str
    caches: tuple[str, str]


_FIRST: Final = _Names(
    ("memory.limit_in_bytes",), "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")
)
# Above `high` nothing is ended, but all stands nearly still while the kernel looks for memory to take back; pinned memory it cannot.
_SECOND: Final = _Names(("memory.max", "memory.high"), "memory.current", ("inactive_file", "active_file"))


def memory_limit(own: Path = _OWN, root: Path = _ROOT) -> tuple[int, int] | None:
    """What this process' control groups allow it, bytes: in all, and what of that is free; the tightest counts. None without a limit."""
    found = [one for group, names in _groups(own, root) if (one := _limit(group, names)) is not None]
    if not found:
        return None
    return min(limit for limit, _ in found), min(free for _, free in found)


def _groups(own: Path, root: Path) -> Iterator[tuple[Path, _Names]]:
    """This process' groups with all those around them. In a container the paths may be the host's: then its own group is the root."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            base, names = root, _SECOND
        elif "memory" in controllers.split(","):
            base, names = root / "memory", _FIRST
        else:
            continue
        # A process that was moved into a container has a path out of it.
        inner = Path() if ".." in Path(path).parts else Path(path.strip("/"))
        yield from ((base / one, names) for one in (inner, *inner.parents))


def _limit(group: Path, names: _Names) -> tuple[int, int] | None:
    limit = min(_allowed(group / name) for name in names.limits)
    if limit >= _NO_LIMIT:
        return None
    try:
        used = int((group / names.used).read_text(encoding="ascii"))
        rows = (line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        caches = sum(int(row[1]) for row in rows if row[0] in names.caches)
    except (OSError, ValueError, IndexError):  # another kernel's words
        return None
    return limit, max(0, limit - used + caches)


def _allowed(file: Path) -> int:
    try:
        return int(file.read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max", or no such group
        return _NO_LIMIT
