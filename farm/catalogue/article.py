"""The article's published evaluation, `article.toml`: its two settings and what its cards made of them."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class BenchSetting:
    """What is rendered for one row of the evaluation; `width` and `height` in pixels."""

    name: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """One card under one setting: seconds to the first frame and in all, GB at the peak, quality of 5; None was not published."""

    card: str
    setting: str
    first_frame_s: float | None = None
    total_s: float | None = None
    peak_gb: float | None = None
    rating: float | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Faster:
    """What was said of a card without a measurement: `low` to `high` times as fast as another one, at the standard setting."""

    card: str
    than: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Article:
    """The evaluation, with the versions it was made with."""

    source: str
    model: str
    torch: str
    cuda: str
    settings: tuple[BenchSetting, ...]
    rows: tuple[PublishedRow, ...]
    faster: tuple[Faster, ...] = ()


@cache
def article() -> Article:
    """The published evaluation."""
    text = resources.files(__package__).joinpath("article.toml").read_text(encoding="utf-8")
    return TypeAdapter(Article).validate_python(tomllib.loads(text))
