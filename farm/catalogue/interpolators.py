"""The interpolators that smooth a clip: `interpolators.toml`."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class InterpolationTime:
    """Seconds of an interpolation; `farm.planning.interpolation` has the law and `interpolators.toml` the source."""

    s_per_new_frame_megapixel: float
    s_per_base_frame_megapixel: float


@dataclass(frozen=True, slots=True)
class InterpolatorRow:
    """One interpolator. `module` under `node_agent.interpolate` does it."""

    name: str
    title: str
    module: str
    time: InterpolationTime


@cache
def interpolators() -> dict[str, InterpolatorRow]:
    """All interpolators by name, the one to use first."""
    tables = tomllib.loads(resources.files(__package__).joinpath("interpolators.toml").read_text())
    row = TypeAdapter(InterpolatorRow)
    return {name: row.validate_python({"name": name, **table}) for name, table in tables.items()}


def interpolator() -> InterpolatorRow:
    """The interpolator that the farm uses."""
    return next(iter(interpolators().values()))
