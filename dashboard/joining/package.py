"""The farm's own package, as a wheel of what runs here, and the lock files that go with it.

The wheel is put together from the files that this head runs: a node must have the same, whether the head was installed from a
checkout or from such a wheel itself. A build backend would need the checkout, its tools and seconds, and gives other bytes each time;
this is the same to the byte for the same files, so its checksum can stand in the line that people paste.
"""

import base64
import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import farm
from farm.errors import FarmError

PACKAGES = ("farm", "scheduler", "node_agent", "dashboard")
LOCKS = ("head.txt", "gpu.txt")
_NAME = "old-gpu-farm"
_MODULE = "old_gpu_farm"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first day that a zip can name
_LOCKS_INSIDE = "dashboard/joining/lock"


@dataclass(frozen=True, slots=True)
class Package:
    """The wheel's file name and bytes, and each lock file's bytes by its name."""

    name: str
    wheel: bytes
    locks: dict[str, bytes]

    @property
    def wheel_sha256(self) -> str:
        """The wheel's checksum, hexadecimal."""
        return hashlib.sha256(self.wheel).hexdigest()

    def lock_sha256(self, name: str) -> str:
        """A lock file's checksum, hexadecimal."""
        return hashlib.sha256(self.locks[name]).hexdigest()


@cache
def package() -> Package:
    """This head's own package, made once: what is served stays what the checksums in the lines say, also when a checkout changes.

    Raises:
        FarmError: the lock files or the package's metadata are not here.
    """
    return make_package(Path(farm.__file__).parents[1])


def make_package(root: Path) -> Package:
    """The package of the farm whose `farm/`, `scheduler/`, ... lie in `root`. Raises as `package` does."""
    locks = _read_locks(root)
    try:
        about = metadata.distribution(_NAME)
    except metadata.PackageNotFoundError as error:
        raise FarmError(
            "This head cannot make its own package: the farm is not installed in its environment.",
            "Install it there with `sh deploy/setup.sh head`.",
        ) from error
    described = about.read_text("METADATA") or ""
    entries = about.read_text("entry_points.txt") or ""
    info = f"{_MODULE}-{about.version}.dist-info"
    files = dict(_files(root))
    files |= {f"{_LOCKS_INSIDE}/{name}": content for name, content in locks.items()}
    files |= {
        f"{info}/METADATA": described.encode(),
        f"{info}/entry_points.txt": entries.encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: old-gpu-farm\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    return Package(f"{_MODULE}-{about.version}-py3-none-any.whl", _zip(files), locks)


def _read_locks(root: Path) -> dict[str, bytes]:
    for place in (root / "deploy" / "lock", root / _LOCKS_INSIDE):
        if all((place / name).is_file() for name in LOCKS):
            return {name: (place / name).read_bytes() for name in LOCKS}
    raise FarmError(
        "This head has no lock files for the PCs that join.",
        "Run the head from a checkout (`sh deploy/setup.sh head`), or from the wheel that another head serves.",
    )


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for name in PACKAGES:
        for path in sorted((root / name).rglob("*")):
            inside = path.relative_to(root).as_posix()
            hidden = "__pycache__" in path.parts or inside.startswith(_LOCKS_INSIDE)
            if path.is_file() and not hidden and path.suffix != ".pyc":
                yield inside, path.read_bytes()


def _record(files: dict[str, bytes], itself: str) -> bytes:
    """The list that a wheel holds of its files, with their hashes."""
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}")
    return "\n".join([*lines, f"{itself},,", ""]).encode()


def _zip(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return held.getvalue()
