"""Gathers what `farm doctor` judges: this PC's cards, versions, ports, disk and network, and the head where there is one."""

import platform
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import httpx

from farm import ports
from farm.build import build
from farm.catalogue.models import load_models
from farm.daemons import RayPorts
from farm.doctor import Facts, HeadFacts, TorchFacts
from farm.errors import ConfigurationError
from farm.model import CardKind
from farm.settings import DataDirectory, FarmSettings
from farm.single import holder
from farm.tls import CA_FILE, trust
from farm.video import ffmpeg_path
from farm.wire import CardReport
from node_agent import probe
from node_agent.head_line import head_url
from node_agent.identity import default_home, has_identity
from node_agent.join import Membership
from node_agent.look import readings
from node_agent.selftest import card_trouble_apart
from node_agent.spill import can_spill

_CALL_S = 5.0
_NVIDIA, _DISPLAY = "0x10de", "0x03"
GIB = 1024**3


def gather(
    home: Path, first_port: int, head: str | None = None, *, devices: Path = Path("/sys/bus/pci/devices")
) -> Facts:
    """The facts of this PC. `home` is the node's; `head` the one to compare with, else the one that the node has joined.

    Raises:
        ConfigurationError: `head` is no address.
    """
    member = Membership.load(home)
    url = head_url(head) if head else member.head if member is not None else None
    at_work = _is_at_work(home)
    cards = tuple(_tested(card, at_work=at_work) for card in probe.cards("this-pc", load_models(None)))
    if not at_work:  # what its own worker holds is no other program's
        cards = _with_others(cards)
    version, trouble = _ffmpeg()
    return Facts(
        python=platform.python_version(),
        ray=_version("ray"),
        pip=f"{sys.executable} -m pip install",
        system=_system(),
        cards=cards,
        home=str(home),
        disk_free_gib=shutil.disk_usage(_existing(home)).free / GIB,
        undriven=_nvidia_devices(devices),
        torch=_torch(),
        ffmpeg=version,
        ffmpeg_trouble=trouble,
        ports=free_block(first_port),
        at_work=at_work,
        wsl_network=_wsl_network(),
        member_of=member.farm_id if member is not None else "",
        head=_ask_head(url, FarmSettings().ca or home / CA_FILE) if url else None,
        build=build(),
    )


def home_here() -> Path:
    """Where this PC's node keeps its files: as `farm join` has it, on the head with the head's own."""
    own, head = default_home(), _head().node_home
    try:
        return head if has_identity(head) and not has_identity(own) else own
    except PermissionError:  # another user's
        return own


def free_block(first_port: int) -> tuple[int, int] | None:
    """The first block of Ray's ports from there on that nothing listens on, as its first and last; None if there is none."""
    for base in range(first_port, 65536 - RayPorts.SIZE, RayPorts.SIZE):
        block = RayPorts(base)
        if all(ports.is_free(port) for port in block.listened()):
            return block.base, block.last
    return None


def _head() -> DataDirectory:
    """What the head keeps, where this PC is one."""
    return DataDirectory(FarmSettings().data.expanduser().absolute())


def _is_at_work(home: Path) -> bool:
    """Whether this PC's node runs: the one of that home, or the head's own, which the head's lock is for."""
    head = _head()
    try:
        return holder(home / "lock") is not None or (
            has_identity(head.node_home) and holder(head.root / "lock") is not None
        )
    except PermissionError:  # another user's
        return False


def _tested(card: CardReport, *, at_work: bool) -> CardReport:
    """The card after a first computation on it; not while the node works there, whose own worker has tested it."""
    if card.kind is not CardKind.CUDA or card.trouble is not None or at_work:
        return card
    return replace(card, trouble=card_trouble_apart(card.name, card.driver, card.compute_capability, card.id))


def _with_others(cards: tuple[CardReport, ...]) -> tuple[CardReport, ...]:
    """The cards with what programs hold of each; the driver's own share, up to a quarter of a gigabyte, aside."""
    looked = readings(whole=False)
    found = []
    for card in cards:
        used = looked[card.id].vitals.memory_used_gib if card.id in looked else None
        found.append(replace(card, others_gib=used if used is not None and used > 0.25 else None))
    return tuple(found)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> TorchFacts | None:
    version = _version("torch")
    if version is None:
        return None
    tag = version.partition("+")[2]
    cuda = f"{tag[2:-1]}.{tag[-1]}" if tag.startswith("cu") and tag[2:].isdigit() else None
    return TorchFacts(version, cuda, diffusers=_version("diffusers") is not None)


def _ffmpeg() -> tuple[str | None, str]:
    """The version of ffmpeg, or why it does not run."""
    try:
        done = subprocess.run(
            [ffmpeg_path(), "-version"], capture_output=True, text=True, check=True, timeout=30
        )
    except (ConfigurationError, OSError, subprocess.SubprocessError) as error:
        return None, str(error)
    words = done.stdout.split()
    return (words[2] if len(words) > 2 else "of an unknown version"), ""


def _system() -> str:
    """The distribution's id, or what it is like ("ubuntu", "debian", "fedora", "arch"); empty where nothing says."""
    try:
        told = platform.freedesktop_os_release()
    except OSError:
        return ""
    known = ("ubuntu", "debian", "fedora", "arch")
    names = [told.get("ID", ""), *told.get("ID_LIKE", "").split()]
    return next((name for name in names if name in known), names[0])


def _nvidia_devices(devices: Path) -> tuple[str, ...]:
    """The bus ids of NVIDIA's display devices, as the kernel lists them, with a driver or without."""
    found = []
    for device in sorted(devices.glob("*")):
        try:
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()
        except OSError:
            continue
        if vendor == _NVIDIA and kind.startswith(_DISPLAY):
            found.append(device.name)
    return tuple(found)


def _wsl_network() -> str | None:
    """WSL's networking mode in its own word; None on a Linux of its own."""
    if not can_spill():
        return None
    try:
        done = subprocess.run(
            ["wslinfo", "--networking-mode"],  # noqa: S607 - WSL puts it on the path
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def _ask_head(url: str, ca: Path) -> HeadFacts:
    try:
        answer = httpx.get(f"{url}/join/farm", timeout=_CALL_S, trust_env=False, verify=trust(url, ca))
        answer.raise_for_status()
        told = answer.json()
        return HeadFacts(
            url=url,
            farm_id=str(told["farm_id"]),
            ray=str(told["ray_version"]),
            python=str(told["python_version"]),
            line=str(told["line"]),
            build=str(told["farm_version"]),
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return HeadFacts(url, silent=str(error) or type(error).__name__)
    except (ValueError, KeyError, TypeError):
        return HeadFacts(url, silent="what answers there is no farm's head")


def _existing(path: Path) -> Path:
    """The path or the first above it that is there, and may be looked at."""
    while True:
        with suppress(PermissionError):
            if path.exists():
                return path
        path = path.parent
