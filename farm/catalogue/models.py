"""The models the farm can run: `models.toml`, and a farm's own rows from a file of the same shape."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from farm.catalogue.networks import VaeLaw, network
from farm.errors import ConfigurationError

_AS_WRITTEN: Final = ConfigDict(extra="forbid")
"""A misspelt limit would be no limit."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model accepts: sides in pixels and multiples of `multiple`, `max_pixels` in width times height."""

    __pydantic_config__: ClassVar[ConfigDict] = _AS_WRITTEN
    multiple: int = 8
    min_side: int = 64
    max_side: int = 1920
    max_pixels: int = 2_073_600
    max_frames: int = 240
    max_steps: int = 500


@dataclass(frozen=True, slots=True)
class MemoryCoefficients:
    """What a model's memory follows from; `farm.planning.memory` has the law.

    `network` names the file of measurements (`farm.catalogue.networks`). `parts_gib`, the weights of all parts but the denoiser in fp16,
    and `vae` come from there unless the row has its own. `beside_gib` is what a step holds beside its network whatever its size is.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _AS_WRITTEN
    network: str
    parts_gib: dict[str, float] = field(default_factory=dict, hash=False)
    vae: VaeLaw = field(default_factory=VaeLaw)
    beside_gib: float = 0.0


@dataclass(frozen=True, slots=True)
class TimeCoefficients:
    """Coefficients of a model's time beside its network's; `farm.planning.estimate` has the law and `models.toml` the source."""

    __pydantic_config__: ClassVar[ConfigDict] = _AS_WRITTEN
    fixed_s: float = 1.0
    cpu_s_per_frame_megapixel: float | None = None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. `source` is a Hugging Face repository or a directory; empty where there are no weights.

    `draft` marks everything the model makes as a draft; `devices` says on what it may run ("cuda", "cpu");
    `tensor_needed` says that it needs torch, `prompt_needed` that it makes nothing sensible without a prompt. `checkpoint`: what the
    configurations of the checkpoint's parts say, where the shapes of its weights do not tell it from a model like it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _AS_WRITTEN
    name: str
    title: str
    pipeline: str
    source: str = ""
    licence: str = ""
    draft: bool = False
    tensor_needed: bool = True
    prompt_needed: bool = False
    devices: tuple[str, ...] = ("cuda",)
    checkpoint: dict[str, dict[str, Any]] = field(default_factory=dict, hash=False)
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
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unreadable(origin, str(error)) from error
    rows: dict[str, ModelRow] = {}
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            raise _unreadable(origin, f"{name} is no table of a model")
        try:
            rows[name] = _ROW.validate_python({"name": name, **_whole(table)})
        except ValidationError as error:
            raise _unreadable(origin, "; ".join(_said(name, one) for one in error.errors())) from error
    return rows


def _unreadable(origin: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"Cannot read the models in {origin}: {why}.", "Compare it with farm/catalogue/models.toml."
    )


def _said(name: str, error: Mapping[str, Any]) -> str:
    where = ".".join((name, *map(str, error["loc"])))
    if error["type"] == "unexpected_keyword_argument":
        return f"{where} is not among what a model's row says"
    return f"{where}: {error['msg'][:1].lower()}{error['msg'][1:]}"


def _whole(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row's table with what was measured of its network's model, where the row does not say otherwise."""
    memory = table.get("memory")
    if not isinstance(memory, Mapping) or not isinstance(memory.get("network"), str):
        return table
    return {**table, "memory": {**network(memory["network"]).others, **memory}}


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
    if extra is not None:
        rows.update(read_models(_text_of(extra), str(extra)))
    return rows


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"Cannot read the models in {file}: {error.strerror or error}.",
            "Correct FARM_MODELS_FILE, or unset it to do without models of your own.",
        ) from error
    except UnicodeDecodeError as error:
        raise _unreadable(str(file), "it is not UTF-8 text") from error
