"""Folders of files that can all be made again: what nobody asked for longest goes first."""

from pathlib import Path


def let_go(folder: Path, pattern: str, newest: Path, most_bytes: int) -> int:
    """Deletes files, those touched longest ago first and never `newest`, until `most_bytes` are left; how many bytes are left."""
    others = sorted(
        ((one.stat(), one) for one in folder.glob(pattern) if one != newest),
        key=lambda each: each[0].st_mtime,
    )
    left = newest.stat().st_size + sum(stat.st_size for stat, _ in others)
    for stat, other in others:
        if left <= most_bytes:
            break
        other.unlink(missing_ok=True)
        left -= stat.st_size
    return left
