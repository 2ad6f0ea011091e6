"""What old cards can and cannot do, as data with sources: `rules.toml`, and what follows from it. Pure, without torch.

Each generation of cards lacks something that newer ones have, and torch either does not say so (bfloat16 is emulated, half precision is
there and slow, or there and wrong) or says it in words that help nobody ("no kernel image is available").
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Literal

from pydantic import TypeAdapter

Capability = tuple[int, int]
"""A compute capability: (7, 5) is Turing, "sm_75" in torch's words."""

Precision = Literal["fp16", "fp32"]


@dataclass(frozen=True, slots=True)
class PrecisionRule:
    """Cards below a capability, or of one (and with a name like `name`), compute in `compute`."""

    compute: Precision
    reason: str
    source: str
    below: Capability | None = None
    capability: Capability | None = None
    name: str | None = None

    def matches(self, capability: Capability, name: str) -> bool:
        """Whether the rule speaks of this card; `name` without its maker's words."""
        if self.below is not None and capability >= self.below:
            return False
        if self.capability is not None and capability != self.capability:
            return False
        return self.name is None or re.search(self.name, name, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Bf16Rule:
    """The first capability with bfloat16 in hardware."""

    since: Capability
    source: str


@dataclass(frozen=True, slots=True)
class Generation:
    """A family of chips; `last_driver` is the last driver branch that knows it, None while new ones do."""

    name: str
    since: Capability
    last_driver: int | None = None


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """One of PyTorch's builds: which capabilities it serves, from and to, and the index that has it."""

    torch: str
    cuda: tuple[int, int]
    serves: tuple[Capability, Capability]
    index: str
    source: str

    @property
    def pip_arguments(self) -> str:
        """What pip is to install. The build is named: to pip any other of the version, if it is there, would do."""
        return f"torch=={self.torch}+cu{self.cuda[0]}{self.cuda[1]} --index-url {self.index}"

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install {self.pip_arguments}"


@dataclass(frozen=True, slots=True)
class DriverRule:
    """The least driver for a major version of CUDA, on Linux."""

    cuda: int
    least: str
    source: str


@dataclass(frozen=True, slots=True)
class CudnnRule:
    """The cuDNN (as torch numbers it: 91100 is 9.11.0) since which cards older than `oldest` have no kernels."""

    since: int
    oldest: Capability
    source: str


@dataclass(frozen=True, slots=True)
class PcieRule:
    """GB/s of one lane for each generation from the first on, and the share of it that a copy reaches."""

    lane_gb_s: tuple[float, ...]
    reached: float
    source: str


@dataclass(frozen=True, slots=True)
class Rules:
    """All of `rules.toml`."""

    precision: tuple[PrecisionRule, ...]
    bf16: Bf16Rule
    generation: tuple[Generation, ...]
    torch_build: tuple[TorchBuild, ...]
    driver: tuple[DriverRule, ...]
    cudnn: CudnnRule
    pcie: PcieRule


@cache
def rules() -> Rules:
    """The rules that come with the farm."""
    tables = tomllib.loads(resources.files(__package__).joinpath("rules.toml").read_text())
    return TypeAdapter(Rules).validate_python(tables)


_MAKER = re.compile(r"^(?:nvidia\s+)?(?:geforce\s+|tesla\s+)?", re.IGNORECASE)


@lru_cache(maxsize=1024)
def precision_rule(capability: Capability, name: str) -> PrecisionRule | None:
    """The rule that keeps a card from half precision, or None for a card that computes in it well."""
    bare = _MAKER.sub("", name)
    return next((rule for rule in rules().precision if rule.matches(capability, bare)), None)


def compute_precision(capability: Capability, name: str) -> Precision:
    """What a card of this capability and name is to compute in."""
    rule = precision_rule(capability, name)
    return "fp16" if rule is None else rule.compute


def has_bf16(capability: Capability) -> bool:
    """Whether the card has bfloat16 in hardware. torch also says yes where it emulates it."""
    return capability >= rules().bf16.since


def generation_of(capability: Capability) -> Generation | None:
    """The family of a capability; None for one older than Kepler."""
    older = [found for found in rules().generation if found.since <= capability]
    return older[-1] if older else None


def build_for(capability: Capability) -> TorchBuild | None:
    """The build of torch to install for a card, or None if none of them serves it."""
    return next(
        (build for build in rules().torch_build if build.serves[0] <= capability <= build.serves[1]), None
    )


def build_for_all(capabilities: Sequence[Capability]) -> TorchBuild | None:
    """The one build of torch that serves most of a PC's cards, the first of the table where several do; None if none serves any."""

    def served(build: TorchBuild) -> int:
        return sum(build.serves[0] <= capability <= build.serves[1] for capability in capabilities)

    best = max(rules().torch_build, key=served)
    return best if served(best) else None


def least_driver(cuda: str) -> str | None:
    """The least driver on Linux for a CUDA version ("12.6"), or None for one that no rule knows."""
    major = cuda.partition(".")[0]
    return next((rule.least for rule in rules().driver if str(rule.cuda) == major), None)


def driver_is_older(driver: str, least: str) -> bool:
    """Whether a driver's version ("470.256.02") is below another; one that is no version is not."""
    try:
        return _numbers(driver) < _numbers(least)
    except ValueError:
        return False


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


_ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)([a-z]?)")


def runs_on(capability: Capability, architectures: Sequence[str]) -> bool:
    """Whether a torch with these architectures (`torch.cuda.get_arch_list()`) has kernels for a card.

    A binary ("sm_60") runs on the same major version from its minor one on, one with a letter ("sm_90a") on its own only; PTX
    ("compute_90") is compiled by the driver for anything that is not older.
    """
    for name in architectures:
        found = _ARCHITECTURE.fullmatch(name)
        if found is None:
            continue
        kind, major, minor, letter = found[1], int(found[2]), int(found[3]), found[4]
        if letter:
            suits = capability == (major, minor)
        elif kind == "sm":
            suits = capability[0] == major and capability[1] >= minor
        else:
            suits = capability >= (major, minor)
        if suits:
            return True
    return False


def oldest_of(architectures: Sequence[str]) -> str | None:
    """The oldest architecture of a list, as torch names it ("sm_75")."""
    known = [found for name in architectures if (found := _ARCHITECTURE.fullmatch(name))]
    oldest = min(known, key=lambda found: (int(found[2]), int(found[3])), default=None)
    return None if oldest is None else f"sm_{oldest[2]}{oldest[3]}"


def bus_gb_s(generation: int | None, lanes: int | None) -> float | None:
    """What a copy to the card reaches, GB/s one way, over a PCIe link of this generation and width; None if either is not known."""
    rule = rules().pcie
    if not generation or not lanes or generation < 0 or lanes < 0:
        return None
    lane = rule.lane_gb_s[min(generation, len(rule.lane_gb_s)) - 1]
    return round(lane * lanes * rule.reached, 2)
