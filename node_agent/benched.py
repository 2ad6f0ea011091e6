"""What `farm bench` measured on this PC, for the head, whose predictions for these cards then begin better than by the catalogue."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from farm.model import CardKind
from farm.own_bench import BenchResult, Changing
from farm.wire import CardReport

LOCAL = "CPU-local"
"""The CPU's id in a bench of a PC that was in no farm yet."""


class Benched:
    """The rows of this PC's files; a file is read again only when it has changed."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = Changing(files)
        self._rows: list[BenchResult] = []

    def of(self, cards: Sequence[CardReport]) -> tuple[BenchResult, ...]:
        """The newest row of each of these cards, model and setting, newest first."""
        changed = self._files.rows()
        if changed is not None:
            self._rows = changed
        ids = {card.id: card.id for card in cards}
        ids.update((LOCAL, card.id) for card in cards if card.kind is CardKind.CPU)
        newest: dict[tuple[object, ...], BenchResult] = {}
        for row in self._rows:
            card_id = ids.get(row.card_id)
            if card_id is not None:
                newest.setdefault((card_id, row.model, row.setting), replace(row, card_id=card_id))
        return tuple(newest.values())
