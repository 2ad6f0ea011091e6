"""What is known of a graphics card from its name alone: `cards.toml`."""

import difflib
import re
import tomllib
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources

from pydantic import TypeAdapter

from farm.catalogue.rules import Precision, compute_precision
from farm.errors import BadInputError


@dataclass(frozen=True, slots=True)
class CardRow:
    """One card as its maker describes it.

    `vram_gb` is the nominal size; rates are dense TFLOPS: `fp32_tflops` of the shaders, `fp16_tflops` of the
    tensor cores with 32-bit sums (what PyTorch uses) or, without tensor cores, of the shaders. `cores`,
    `boost_mhz`, `bus_bits` and `memory_gbps` (of one pin) are what the figures come from, where it is known.
    """

    name: str
    vram_gb: int
    bandwidth_gb_s: float
    fp32_tflops: float
    fp16_tflops: float
    compute_capability: tuple[int, int]
    source: str
    cores: int | None = None
    boost_mhz: int | None = None
    bus_bits: int | None = None
    memory_gbps: float | None = None

    @property
    def title(self) -> str:
        """The name without the size that tells variants apart: "RTX 2060" of the row "RTX 2060 6GB"."""
        return re.sub(r" ?\b\d{1,3} ?GB\b", "", self.name)

    @property
    def compute(self) -> Precision:
        """In which of the two the farm computes on it, by the rules for old cards."""
        return compute_precision(self.compute_capability, self.name)

    @property
    def compute_tflops(self) -> float:
        """The rate in the precision that the farm computes in."""
        return self.fp16_tflops if self.compute == "fp16" else self.fp32_tflops


_MAKER_WORDS = re.compile(r"\b(?:nvidia|geforce|tesla|quadro|graphics|gpu)\b")
_SIZE = re.compile(r"\b(\d{1,3}) ?gi?b\b")
_VARIANT = re.compile(r"\b(?:pcie|sxm\d?|hbm\d\w?|nvl|\d{1,3}c)\b")
_JOINED = re.compile(r"(?<=\d)(?=ti\b|super\b)|(?<=gtx|rtx)(?=\d)")


@cache
def cards() -> tuple[CardRow, ...]:
    """All cards of the catalogue; of several sizes of one name, what the bare name means comes first."""
    tables = tomllib.loads(resources.files(__package__).joinpath("cards.toml").read_text())["card"]
    return TypeAdapter(tuple[CardRow, ...]).validate_python(tables)


@lru_cache(maxsize=512)
def find_card(name: str, vram_gb: float | None = None) -> CardRow | None:
    """The row for a name as a driver or a person writes it ("NVIDIA GeForce RTX 2060", "rtx2060"), or None.

    `vram_gb` (or a size within the name) picks among sizes of the same name; a size that is off by more than
    a quarter of the catalogue's is another card.
    """
    wanted, size = _normalised(name)
    size = vram_gb if vram_gb is not None else size
    rows = [row for row in cards() if _normalised(row.name)[0] == wanted]
    if size is None:
        return rows[0] if rows else None
    near = [row for row in rows if abs(row.vram_gb - size) <= row.vram_gb / 4]
    return min(near, key=lambda row: abs(row.vram_gb - size), default=None)


def named_card(name: str, vram_gb: float | None = None) -> CardRow:
    """The row that a person means: as `find_card`, but only in a size there is, and with an error that says what there is.

    Raises:
        BadInputError: field "card": no such card, or none of this size.
    """
    found = find_card(name, vram_gb)
    plain, size = _normalised(name)
    size = vram_gb if vram_gb is not None else size
    if found is not None and (size is None or round(size) == found.vram_gb):
        return found
    sizes = [row for row in cards() if _normalised(row.name)[0] == plain]
    if sizes:
        known = " and ".join(f"{row.vram_gb} GB" for row in sizes)
        raise BadInputError(
            "card", f"{name.strip()[:60]} is not known in this size.", f"The catalogue has it with {known}."
        )
    names = {_normalised(row.name)[0]: row.title for row in cards()}
    near = [names[one] for one in difflib.get_close_matches(plain[:60], names, n=4, cutoff=0.4)]
    raise BadInputError(
        "card",
        f"The catalogue has no card called {name.strip()[:60]!r}.",
        f"The nearest: {', '.join(near)}." if near else "Write it as its maker does, such as 'RTX 2060'.",
    )


def _normalised(name: str) -> tuple[str, float | None]:
    text = re.sub(r"[^a-z0-9]+", " ", name.lower())
    size = _SIZE.search(text)
    text = _MAKER_WORDS.sub(" ", _SIZE.sub(" ", text))
    text = _VARIANT.sub(" ", _JOINED.sub(" ", text))
    text = re.sub(r"\b(?:gtx|rtx) (?=a?\d)", "", " ".join(text.split()))
    return " ".join(text.split()), float(size[1]) if size else None
