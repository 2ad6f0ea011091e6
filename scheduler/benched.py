"""What cards' own benches say, kept up to date: from the reports of nodes, and from the file that `farm bench` writes on the head."""

from collections.abc import Sequence
from pathlib import Path

from farm.clock import Clock
from farm.own_bench import BenchResult, Changing
from farm.store.benches import Benches
from farm.wire import NodeReport

LOOK_EVERY_S = 5.0


class Benched:
    """One per scheduler. `rows` are all that are stored, newest first; replaced, never changed."""

    def __init__(self, benches: Benches, file: Path, clock: Clock) -> None:
        self._benches = benches
        self._file = Changing((file,))
        self._clock = clock
        self._looked = float("-inf")
        self._known: set[BenchResult] = set()
        self.rows: Sequence[BenchResult] = benches.rows()

    def look(self) -> list[BenchResult]:
        """What is new in the head's own file."""
        if self._clock.monotonic() - self._looked < LOOK_EVERY_S:
            return []
        self._looked = self._clock.monotonic()
        return self._add(self._file.rows() or ())

    def hear(self, report: NodeReport) -> list[BenchResult]:
        """What is new in a node's report. A node speaks of its own cards only."""
        own = {card.id for card in report.cards}
        return self._add([row for row in report.bench or () if row.card_id in own])

    def _add(self, rows: Sequence[BenchResult]) -> list[BenchResult]:
        unknown = [
            row for row in rows if row not in self._known
        ]  # the store need not be asked every ten seconds
        if not unknown:
            return []
        added = self._benches.add(unknown)
        self._known.update(unknown)
        if added:
            self.rows = self._benches.rows()
        return added
