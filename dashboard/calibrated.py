"""How often the farm's predictions held, worked out again only when a render has ended that was foretold."""

import threading
from collections.abc import Sequence
from dataclasses import asdict

from farm.answers.forecasts import CalibrationView
from farm.model import Basis
from farm.planning.calibration import Foretold, calibration
from farm.planning.spans import SHARE
from farm.store.reader import Reader

FORETOLD = 1000
"""The predictions that are judged: enough to tell 80 % from 77 %."""


class Calibrated:
    """One per web process; may be asked from any thread. Reading a thousand attempts takes 8 ms, which each look at the cards would pay."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._last: str | None = None
        self._view: CalibrationView | None = None

    def view(self) -> CalibrationView:
        """All predictions together, and by what they rested on."""
        with self._lock:
            last = self._reader.last_foretold()
            if self._view is None or last != self._last:
                self._view, self._last = _look(self._reader.foretold(FORETOLD)), last
            return self._view


def _look(told: Sequence[Foretold]) -> CalibrationView:
    of_basis: dict[Basis, list[Foretold]] = {}
    for one in told:
        if one.basis is not None:
            of_basis.setdefault(one.basis, []).append(one)
    by_basis = {basis: _view(ones) for basis, ones in sorted(of_basis.items())}
    return _view(told).model_copy(update={"by_basis": by_basis})


def _view(told: Sequence[Foretold]) -> CalibrationView:
    return CalibrationView(aim=SHARE, **asdict(calibration(told)))
