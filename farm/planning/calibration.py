"""How good predictions were: how often the truth fell within the interval that was told. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from farm.model import Basis
from farm.planning.spans import Span


@dataclass(frozen=True, slots=True)
class Foretold:
    """A prediction and what came: `took` seconds."""

    span: Span
    took: float
    basis: Basis | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of `renders` predictions, the shares (0 to 1) whose truth lay within the interval, below it (quicker) and above it (slower).

    `median_error` is the middle one of the errors of the likely seconds, as a share of what it took. None where nothing was predicted.
    """

    renders: int
    within: float | None = None
    quicker: float | None = None
    slower: float | None = None
    median_error: float | None = None


def calibration(found: Iterable[Foretold]) -> Calibration:
    """The shares of all that was foretold."""
    known = list(found)
    if not known:
        return Calibration(0)
    below = _share(known, [one.took < one.span.low for one in known])
    above = _share(known, [one.took > one.span.high for one in known])
    error = median(abs(one.span.likely - one.took) / one.took for one in known)
    return Calibration(len(known), 1 - below - above, below, above, error)


def _share(of: Sequence[Foretold], which: Sequence[bool]) -> float:
    return sum(which) / len(of)
