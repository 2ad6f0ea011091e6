"""The models the farm can run: `models.toml`, and a farm's own rows from a file of the same shape."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from farm.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model accepts: sides in pixels and multiples of `multiple`, `max_pixels` in width times height."""

    multiple: int = 8
    min_side: int = 64
    max_side: int = 1920
    max_pixels: int = 2_073_600
    max_frames: int = 240
    max_steps: int = 500


@dataclass(frozen=True, slots=True)
class MemoryCoefficients:
    """What a model's memory follows from; `farm.planning.memory` has the law and `models.toml` the source.

    `network` names the measured denoiser (`farm.catalogue.networks`); `parts_gib` the weights of the other parts in fp16. The VAE takes
    `frame_gib_per_megapixel` for each of the `decode_frames` frames that it decodes at once, or `tiles_gib_per_megapixel` in tiles;
    `encodes_in_fp32` for a VAE that must encode in single precision. `beside_gib` is what a step holds beside its network whatever its
    size is.
    """

    network: str
    parts_gib: dict[str, float] = field(default_factory=dict, hash=False)
    frame_gib_per_megapixel: float = 0.0
    tiles_gib_per_megapixel: float = 0.0
    decode_frames: int = 1
    encodes_in_fp32: bool = False
    beside_gib: float = 0.0


@dataclass(frozen=True, slots=True)
class TimeCoefficients:
    """Coefficients of a model's time beside its network's; `farm.planning.estimate` has the law and `models.toml` the source."""

    fixed_s: float = 1.0
    cpu_s_per_frame_megapixel: float | None = None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. `source` is a Hugging Face repository or a directory; empty where there are no weights.

    `draft` marks everything the model makes as a draft; `devices` says on what it may run ("cuda", "cpu");
    `tensor_needed` says that it needs torch, `prompt_needed` that it makes nothing sensible without a prompt.
    """

    name: str
    title: str
    pipeline: str
    source: str = ""
    licence: str = ""
    draft: bool = False
    tensor_needed: bool = True
    prompt_needed: bool = False
    devices: tuple[str, ...] = ("cuda",)
    limits: Limits = field(default_factory=Limits)
    memory: MemoryCoefficients | None = None
    time: TimeCoefficients = field(default_factory=TimeCoefficients)


_ROW: TypeAdapter[ModelRow] = TypeAdapter(ModelRow)


def read_models(text: str, origin: str) -> dict[str, ModelRow]:
    """Reads rows in the shape of `models.toml`; `origin` names the file in errors.

    Raises:
        ConfigurationError: not TOML, or a row lacks something.
    """
    try:
        tables: Mapping[str, Any] = tomllib.loads(text)
        return {name: _ROW.validate_python({"name": name, **table}) for name, table in tables.items()}
    except (tomllib.TOMLDecodeError, ValidationError, TypeError) as error:
        raise ConfigurationError(
            f"Cannot read the models in {origin}: {error}", "Compare it with farm/catalogue/models.toml."
        ) from error


@cache
def builtin_models() -> dict[str, ModelRow]:
    """The models that come with the farm, by name."""
    return read_models(resources.files(__package__).joinpath("models.toml").read_text(), "models.toml")


def load_models(extra: Path | None = None) -> dict[str, ModelRow]:
    """The built-in models, and those of the file `extra` (which may replace a built-in row).

    Raises:
        ConfigurationError: `extra` cannot be read.
    """
    rows = dict(builtin_models())
    if extra is not None and extra.exists():
        rows.update(read_models(extra.read_text(), str(extra)))
    return rows
