"""What the history teaches about cards and models, kept up to date attempt by attempt. The learning itself is `farm.planning.learned`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from farm.catalogue.interpolators import interpolator
from farm.catalogue.models import ModelRow
from farm.model import Card
from farm.own_bench import BenchResult
from farm.planning.learned import (
    LAST,
    UNLEARNED,
    Learned,
    bench_lessons,
    learn,
    learn_load,
    lesson_of,
    lesson_of_interpolation,
)
from farm.store.reader import Reader

WORTH_A_CHANGE = math.log(1.01)
"""A factor that moved by less leaves every prediction as it is, and every verdict with it."""


class Lessons:
    """The factors for each card (by id) and model or interpolator. `book` is replaced, never changed, so a view of the farm may hold it."""

    def __init__(
        self, reader: Reader, models: Mapping[str, ModelRow], bench: Callable[[], Sequence[BenchResult]]
    ) -> None:
        """`bench` gives the rows of `farm bench`, newest first."""
        self._reader = reader
        self._models = models
        self._bench = bench
        self.book: Mapping[tuple[str, str], Learned] = {}

    def recall(self, cards: Iterable[Card]) -> None:
        """Learns anew from the whole history of these cards."""
        for card in cards:
            for name in (*self._models, interpolator().name):
                self.take(card, name)

    def take(self, card: Card, name: str) -> bool:
        """Learns from what the model or interpolator has done on the card since; whether a prediction changes, not only its interval."""
        row = self._models.get(name)
        if row is not None:
            found = self._of_model(card, row)
        elif name == interpolator().name:
            history = self._reader.taught.interpolations(card.id, LAST)
            found = learn(lesson_of_interpolation(attempt, settings) for attempt, settings in history)
        else:
            return False
        before = self.book.get((card.id, name), UNLEARNED)
        if found != before:
            self.book = {**self.book, (card.id, name): found}
        return _differ(found, before)

    def _of_model(self, card: Card, row: ModelRow) -> Learned:
        history = self._reader.instructive_attempts(card.id, row.name, LAST)
        found = learn(
            (lesson_of(attempt, settings, row, card) for attempt, settings in history),
            bench_lessons(self._bench(), row, card),
        )
        if row.memory is None:
            return found  # nothing is loaded
        load, loads = learn_load(self._reader.taught.loads(card.id, row.name), row)
        return replace(found, load=load, loads=loads)


def _differ(one: Learned, other: Learned) -> bool:
    factors = (
        (one.seconds, other.seconds), (one.whole(0.0, 1.0), other.whole(0.0, 1.0)),
        (one.peak, other.peak), (one.load, other.load),
    )  # fmt: skip
    return any(abs(math.log(left / right)) > WORTH_A_CHANGE for left, right in factors)
