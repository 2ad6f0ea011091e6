"""What `farm doctor` says of a PC: each finding in a line, with the command that mends it. Pure; `node_agent.checkup` gathers the facts."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from farm.catalogue.rules import build_for_all, driver_is_older, least_driver
from farm.model import CardKind
from farm.wire import CardReport

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)
"""What pyproject.toml allows."""
LEAST_DISK_GIB = 2.0
"""Ray's logs and object store, a checkpoint and a clip: less than this ends in a full disk within a day."""
ROOMY_DISK_GIB = 12.0
"""The fp16 weights of one diffusion model (I2VGen-XL 7 GiB, see models.toml) and the above."""
LEAST_VRAM_GIB = 1.8
"""The least that a measured memory plan takes for I2VGen-XL's standard preset: 1.6 GiB and a little (docs/benchmarks.md)."""
OLDEST_SERVED = (5, 0)
"""A card that does not tell its compute capability gets the build for the oldest: it serves most others too."""

_DRIVER = {
    "ubuntu": "sudo ubuntu-drivers install",
    "debian": "sudo apt-get install nvidia-driver",
    "fedora": "sudo dnf install akmod-nvidia",
    "arch": "sudo pacman -S nvidia",
}
"""What installs NVIDIA's driver, from each distribution's own documentation; Debian's is in non-free, Fedora's in RPM Fusion."""


class Level(StrEnum):
    """How bad a finding is: only what is wrong makes `farm doctor` exit 1."""

    GOOD = "good"
    HINT = "hint"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what it is about, what was found, and the command that mends it (empty where all is well)."""

    about: str
    level: Level
    says: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class TorchFacts:
    """The torch that is installed; `cuda` is the CUDA it was built for ("12.6"), None for a build without or one that does not say."""

    version: str
    cuda: str | None
    diffusers: bool


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """The head that was named, or that this PC joined. `silent` is why it did not answer; then the rest is empty.

    `line` is the command that installs the head's own versions on this PC, `build` which farm it runs (`farm.build`).
    """

    url: str
    silent: str = ""
    farm_id: str = ""
    ray: str = ""
    python: str = ""
    line: str = ""
    build: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is looked at. `pip` is the command that installs into the farm's environment, `system` the distribution's id.

    `undriven` are the bus ids of NVIDIA cards that NVML does not show. `ports` is the first and last port that Ray would use, None where
    no block is free; `at_work` says that this PC's node runs and holds them. `ffmpeg` is its version, `ffmpeg_trouble` why there is
    none. `wsl_network` is WSL's networking mode, None on a Linux of its own. `build` is which farm this PC runs.
    """

    python: str
    ray: str | None
    pip: str
    system: str
    cards: tuple[CardReport, ...]
    home: str
    disk_free_gib: float
    undriven: tuple[str, ...] = ()
    torch: TorchFacts | None = None
    ffmpeg: str | None = None
    ffmpeg_trouble: str = ""
    ports: tuple[int, int] | None = None
    at_work: bool = False
    wsl_network: str | None = None
    member_of: str = ""
    head: HeadFacts | None = None
    build: str = ""


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Every finding, in the order in which a person would mend them."""
    return (
        *_python(facts),
        *_ray(facts),
        *_build(facts),
        *_head(facts),
        *_cards(facts),
        *_torch(facts),
        *_ports(facts),
        *_disk(facts),
        *_ffmpeg(facts),
        *_network(facts),
    )


def _python(facts: Facts) -> Iterator[Finding]:
    ours = _minor(facts.python)
    head = facts.head
    if not OLDEST_PYTHON <= ours <= NEWEST_PYTHON:
        says = f"The farm needs Python 3.11 to 3.13, this is {facts.python}."
        yield Finding("python", Level.WRONG, says, _line(head) or python_command(facts.system, "3.11"))
    elif head is not None and head.python and _minor(head.python) != ours:
        says = f"This PC has Python {facts.python}, the head has {head.python}: Ray needs the same second number."
        wanted = ".".join(str(part) for part in _minor(head.python))
        yield Finding("python", Level.WRONG, says, _line(head) or python_command(facts.system, wanted))
    else:
        yield Finding("python", Level.GOOD, f"Python {facts.python}.")


def _ray(facts: Facts) -> Iterator[Finding]:
    head = facts.head
    wanted = head.ray if head is not None else ""
    if facts.ray is None:
        package = f"ray=={wanted}" if wanted else "ray"
        yield Finding("ray", Level.WRONG, "Ray is not installed.", f'{facts.pip} "{package}"')
    elif wanted and facts.ray != wanted:
        says = f"This PC has Ray {facts.ray}, the head has {wanted}: all PCs of a farm run the same one."
        yield Finding("ray", Level.WRONG, says, f'{facts.pip} "ray=={wanted}"')
    else:
        yield Finding("ray", Level.GOOD, f"Ray {facts.ray}.")


def _build(facts: Facts) -> Iterator[Finding]:
    head = facts.head
    if head is not None and head.build and head.build != facts.build:
        says = f"This PC has the farm {facts.build}, the head has {head.build}: all PCs of a farm run the same one."
        yield Finding("farm", Level.WRONG, says, head.line)


def _head(facts: Facts) -> Iterator[Finding]:
    head = facts.head
    if head is None:
        return
    if head.silent:
        says = f"The head at {head.url} does not answer: {head.silent.rstrip('.')}. It must be started so that other PCs reach it."
        yield Finding("head", Level.WRONG, says, "farm up --host 0.0.0.0  (on the head)")
    elif facts.member_of and head.farm_id != facts.member_of:
        says = f"This PC is a node of another farm than the one at {head.url}; it can be in one."
        yield Finding("head", Level.WRONG, says, "farm leave")
    else:
        yield Finding("head", Level.GOOD, f"The head at {head.url} answers.")


def _cards(facts: Facts) -> Iterator[Finding]:
    for notice in dict.fromkeys(card.notice for card in facts.cards if card.notice):
        yield Finding("card", Level.WRONG, notice, _command_in(notice, facts))
    gpus = [card for card in facts.cards if card.kind is CardKind.CUDA]
    noticed = any(card.notice for card in facts.cards)
    if facts.undriven and not gpus and not noticed:
        says = f"There is an NVIDIA card ({', '.join(facts.undriven)}), and no driver that shows it."
        yield Finding("driver", Level.WRONG, says, _driver_command(facts))
    elif not gpus and not noticed:
        yield Finding(
            "card", Level.GOOD, "No NVIDIA card: this PC's CPU makes drafts and works on finished clips."
        )
    told_of_driver = False
    for card in gpus:
        for finding in _gpu(card, facts):
            if finding.about == "driver":  # a PC has one, however many cards
                if told_of_driver:
                    continue
                told_of_driver = True
            yield finding


def _gpu(card: CardReport, facts: Facts) -> Iterator[Finding]:
    least = least_driver(facts.torch.cuda) if facts.torch is not None and facts.torch.cuda else None
    if least is not None and card.driver is not None and driver_is_older(card.driver, least):
        says = (
            card.trouble or f"Driver {card.driver} is too old for {card.name}: torch needs {least} or newer."
        )
        yield Finding("driver", Level.WRONG, says, _command_in(says, facts, _driver_command(facts)))
    elif card.trouble:
        yield Finding("card", Level.WRONG, card.trouble, _command_in(card.trouble, facts))
    elif card.usable_gib is not None and card.usable_gib < LEAST_VRAM_GIB:
        says = f"{card.name} has {card.usable_gib:g} GiB for the farm: too little for diffusion, enough to work on finished clips."
        yield Finding("card", Level.HINT, says)
    elif card.others_gib and card.usable_gib is not None and card.others_gib > card.usable_gib / 2:
        says = f"Other programs hold {card.others_gib:g} of {card.usable_gib:g} GiB of {card.name} now; the farm takes what is left."
        yield Finding("card", Level.HINT, says, "nvidia-smi")
    else:
        yield Finding("card", Level.GOOD, f"{_described(card)}.")


def _described(card: CardReport) -> str:
    parts = [card.name]
    if card.usable_gib is not None:
        parts.append(f"{card.usable_gib:g} GiB for the farm")
    if card.compute_capability is not None:
        parts.append(f"sm_{card.compute_capability[0]}{card.compute_capability[1]}")
    if card.driver is not None:
        parts.append(f"driver {card.driver}")
    return ", ".join(parts)


def _torch(facts: Facts) -> Iterator[Finding]:
    gpus = [card for card in facts.cards if card.kind is CardKind.CUDA]
    torch = facts.torch
    if torch is None and gpus:
        build = build_for_all([card.compute_capability or OLDEST_SERVED for card in gpus])
        says = f"torch is not installed, so {gpus[0].name} can make drafts only."
        yield Finding(
            "torch", Level.WRONG, says, build.command.replace("pip install", facts.pip, 1) if build else ""
        )
    elif torch is None:
        yield Finding("torch", Level.GOOD, "No torch, and no card that needs it.")
    elif gpus and not torch.diffusers:
        says = f"torch {torch.version} is there, diffusers is not: no diffusion model can run."
        yield Finding("torch", Level.WRONG, says, f"{facts.pip} diffusers transformers accelerate")
    else:
        yield Finding("torch", Level.GOOD, f"torch {torch.version}.")


def _ports(facts: Facts) -> Iterator[Finding]:
    if facts.at_work:
        yield Finding("ports", Level.GOOD, "This PC's node runs and holds its ports.")
    elif facts.ports is None:
        says = "No 120 ports in a row are free for Ray."
        yield Finding("ports", Level.WRONG, says, "ss -ltnp  (then: farm join ... --ray-port FIRST)")
    else:
        first, last = facts.ports
        says = f"Ports {first} to {last} are free for Ray; a firewall here must let the head reach them."
        yield Finding("ports", Level.GOOD, says)


def _disk(facts: Facts) -> Iterator[Finding]:
    free = f"{facts.disk_free_gib:.1f} GiB free at {facts.home}"
    elsewhere = "farm join ... --home DIRECTORY-ON-ANOTHER-DISK  (on the head: farm up --data DIRECTORY-ON-ANOTHER-DISK)"
    gpu = any(card.kind is CardKind.CUDA for card in facts.cards)
    if facts.disk_free_gib < LEAST_DISK_GIB:
        yield Finding("disk", Level.WRONG, f"Only {free}; the farm needs {LEAST_DISK_GIB:g}.", elsewhere)
    elif gpu and facts.disk_free_gib < ROOMY_DISK_GIB:
        yield Finding(
            "disk", Level.HINT, f"{free}: the weights of a diffusion model take about 8.", elsewhere
        )
    else:
        yield Finding("disk", Level.GOOD, f"{free}.")


def _ffmpeg(facts: Facts) -> Iterator[Finding]:
    if facts.ffmpeg is None:
        says = f"ffmpeg does not run: {facts.ffmpeg_trouble.rstrip('.')}."
        yield Finding("ffmpeg", Level.WRONG, says, f"{facts.pip} --force-reinstall imageio-ffmpeg")
    else:
        yield Finding("ffmpeg", Level.GOOD, f"ffmpeg {facts.ffmpeg}.")


def _network(facts: Facts) -> Iterator[Finding]:
    if facts.wsl_network is None:
        return
    if facts.wsl_network == "mirrored":
        yield Finding("network", Level.GOOD, "WSL mirrors Windows' network.")
        return
    says = (
        f"WSL's network is {facts.wsl_network!r}, so the head cannot reach this PC. Write `networkingMode=mirrored` under `[wsl2]` "
        "into .wslconfig in your Windows home (docs/windows.md), then restart WSL."
    )
    yield Finding("network", Level.WRONG, says, "wsl.exe --shutdown")


def python_command(system: str, version: str) -> str:
    """What installs a Python of this minor version ("3.11") on a distribution."""
    commands = {
        "ubuntu": f"sudo apt-get install python{version} python{version}-venv",
        "debian": f"sudo apt-get install python{version} python{version}-venv",
        "fedora": f"sudo dnf install python{version}",
        "arch": f"uv python install {version}",
    }
    return commands.get(system, f"uv python install {version}")


def _driver_command(facts: Facts) -> str:
    if facts.wsl_network is not None:
        return "winget install Nvidia.GeForceExperience  (in Windows: WSL uses Windows' driver)"
    return _DRIVER.get(facts.system, "your distribution's package of the NVIDIA driver")


def _command_in(says: str, facts: Facts, otherwise: str = "sudo reboot") -> str:
    """The command that a message about a card names last, in backticks; those that name none ask for a restart of the PC.

    Any pip would install for whatever Python comes first on the path: the farm's is named instead.
    """
    found: list[str] = re.findall(r"`([^`]+)`", says)
    return found[-1].replace("pip install", facts.pip, 1) if found else otherwise


def _line(head: HeadFacts | None) -> str:
    return head.line if head is not None else ""


def _minor(version: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0, 0)
