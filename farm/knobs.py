"""The farm's settings that its admin may change while it runs. What the environment of `farm up` says wins over them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from farm.settings import FarmSettings

Value = str | float | None
Days = Annotated[float, Field(gt=0, le=36_500)]
GB = Annotated[float, Field(gt=0, le=1_000_000)]
"""Of 10^9 bytes."""


class Knobs(BaseModel):
    """The settings that can be changed, with their limits; None is the default. Seconds, days, GB of 10^9 bytes, and MiB."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    tiers: Literal["soft", "strict", "off"] | None = None
    lease_s: Annotated[float, Field(ge=10, le=3600)] | None = None
    keep_days: Days | None = None
    keep_gb: GB | None = None
    max_upload_mib: Annotated[float, Field(ge=1, le=512)] | None = None

    def named(self) -> dict[str, Value]:
        """Those that were named, None among them."""
        return self.model_dump(exclude_unset=True)


NAMES = tuple(Knobs.model_fields)


@dataclass(frozen=True, slots=True)
class Change:
    """A setting as it was last set on the page: to what, when (wall seconds) and by whom."""

    value: Value
    at: float
    by: str


def variable(name: str) -> str:
    """The environment's name of a setting."""
    return f"FARM_{name.upper()}"


def is_given(settings: FarmSettings, name: str) -> bool:
    """Whether the environment of `farm up` says what a setting is, so that nothing else counts."""
    return name in settings.model_fields_set


def default(name: str) -> Value:
    """What holds where nobody said otherwise."""
    found: Value = FarmSettings.model_fields[name].default
    return found


def in_force(settings: FarmSettings, changes: Mapping[str, Change]) -> FarmSettings:
    """The settings that hold: the environment's, then those that were set on the page, then the defaults."""
    chosen = {
        name: change.value
        for name, change in changes.items()
        if name in NAMES and not is_given(settings, name) and change.value is not None
    }
    return settings.model_copy(update=chosen)
