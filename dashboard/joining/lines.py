"""The line that people paste on a PC that is to join, and the scripts behind it. Pure.

The line holds the script's checksum, the script those of the wheel and the locks, and the locks those of every package: what is
installed is what this head meant, although the farm's network is not encrypted. Only torch comes unlocked, from PyTorch's own index.
"""

import hashlib
import platform
import re
import shlex
from functools import cache
from importlib import resources

from dashboard.joining.package import Package

_PLAIN_URL = re.compile(r"https?://[A-Za-z0-9.\-:\[\]_]+")


def linux_script(package: Package, farm_id: str, ca: str = "") -> bytes:
    """`install.sh` with this head's own versions and checksums in it, and with the farm's authority (PEM) where it has TLS."""
    return _filled(
        "install.sh",
        FARM_ID=farm_id,
        CA=ca.strip(),
        PYTHON=".".join(platform.python_version_tuple()[:2]),
        WHEEL=package.name,
        WHEEL_SHA256=package.wheel_sha256,
        HEAD_LOCK_SHA256=package.lock_sha256("head.txt"),
        GPU_LOCK_SHA256=package.lock_sha256("gpu.txt"),
    )


def windows_script(linux: bytes) -> bytes:
    """`install.ps1`, which runs the line for Linux inside WSL: it holds the checksum of that script."""
    return _filled("install.ps1", LINUX_SHA256=_sha256(linux))


def linux_line(script: bytes, head: str, code: str = "") -> str:
    """The line for a Linux shell. Without a code it brings the versions of a PC that is a node already up to the head's.

    It has no double quotes, so that PowerShell can hand it to WSL as it is.
    """
    url = shlex.quote(head)
    return (
        f"f=$(mktemp /tmp/farm-join.XXXXXX) && curl {_curl(head)} --noproxy '*' {url}/join/install.sh -o $f"
        f" && echo {_sha256(script)}'  '$f | sha256sum -c --quiet - && sh $f {url}{' ' + shlex.quote(code) if code else ''}"
    )


def windows_line(script: bytes, head: str, code: str) -> str:
    """The line for PowerShell on Windows."""
    get = f"Invoke-WebRequest -UseBasicParsing '{head}/join/install.ps1' -OutFile $f"
    if head.startswith("https:"):
        get = f"curl.exe {_curl(head)} '{head}/join/install.ps1' -o $f"
    return (
        f"$f = Join-Path $env:TEMP 'farm-join.ps1'; {get}; "
        f"if ((Get-FileHash $f).Hash -ne '{_sha256(script)}') {{ throw 'This is not the script that the farm made.' }}; "
        f"powershell -NoProfile -ExecutionPolicy Bypass -File $f -Head '{head}' -Code '{code}'"
    )


def _curl(head: str) -> str:
    """How the script is fetched: from a head with TLS without asking who that is, for the PC cannot know it yet.

    The script is held to the line's checksum anyway, and brings the farm's authority, by which all else is fetched and said.
    """
    return "-fsSk" if head.startswith("https:") else "-fsS"


def is_plain(url: str) -> bool:
    """Whether an address has nothing in it that a shell could take for more than an address: a browser's Host header is not ours."""
    return _PLAIN_URL.fullmatch(url) is not None


def _filled(name: str, **values: str) -> bytes:
    text = _template(name)
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.encode()


@cache
def _template(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text()


def _sha256(script: bytes) -> str:
    return hashlib.sha256(script).hexdigest()
