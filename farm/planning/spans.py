"""Seconds as an interval, not a point: log-normal, since twice as long and half as long are equally far off. Pure."""

import math
from dataclasses import dataclass
from typing import Final

SHARE: Final = 0.8
"""The share of the cases in which the truth is to lie between low and high: four of five."""
Z: Final = 1.2816
"""Standard deviations either way that hold `SHARE` of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds: `low` and `high` hold the truth in four of five cases, `likely` is as often too long as too short."""

    low: float
    likely: float
    high: float


def spread(likely: float, off: float) -> Span:
    """The interval about `likely` seconds, of which the logarithm is off by the standard deviation `off`."""
    factor = math.exp(Z * off)
    return Span(likely / factor, likely, likely * factor)
