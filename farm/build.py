"""Which farm this is, to the letter: head and nodes run the same code, since they speak to each other in its words."""

import hashlib
from functools import cache
from pathlib import Path

import farm

SHARED = ("farm", "node_agent")
"""The packages that a node runs. What only the head runs may differ: a new dashboard disturbs no node."""


@cache
def build() -> str:
    """This farm's version and the checksum of what its nodes run, as "0.1.0+3f29ac01b7d4"; the same from a checkout and from a wheel.

    Taken once per process, early: a checkout may change under a program that runs.
    """
    return build_of(Path(farm.__file__).parents[1])


def build_of(root: Path) -> str:
    """The build of the farm whose `farm/` and `node_agent/` lie in `root`."""
    digest = hashlib.sha256()
    for name in SHARED:
        for path in sorted((root / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
                digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{farm.__version__}+{digest.hexdigest()[:12]}"
