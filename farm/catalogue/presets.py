"""The presets: named sets of settings that a person picks instead of numbers."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class Preset:
    """A named set of settings; `width` and `height` in pixels, `fps` of what the model makes, `smooth` of the clip that is interpolated."""

    name: str
    title: str
    model: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    fps: int
    smooth: int | None = None


@cache
def presets() -> dict[str, Preset]:
    """All presets by name, in the order a person should see them."""
    tables = tomllib.loads(resources.files(__package__).joinpath("presets.toml").read_text())
    row = TypeAdapter(Preset)
    return {name: row.validate_python({"name": name, **table}) for name, table in tables.items()}
