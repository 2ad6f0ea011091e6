"""What the history teaches about cards and models, kept up to date attempt by attempt. The learning itself is `farm.planning.learned`."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from farm.catalogue.models import ModelRow
from farm.model import Card
from farm.own_bench import BenchResult
from farm.planning.learned import LAST, UNLEARNED, Learned, bench_lessons, learn, lesson_of
from farm.store.reader import Reader

WORTH_A_CHANGE = math.log(1.01)
"""A factor that moved by less leaves every prediction as it is, and every verdict with it."""


class Lessons:
    """The factors for each card (by id) and model. `book` is replaced, never changed, so a view of the farm may hold it."""

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
            for model in self._models:
                self.take(card, model)

    def take(self, card: Card, model: str) -> bool:
        """Learns from what has ended on the card since; whether that changes any prediction, and not only its interval."""
        row = self._models.get(model)
        if row is None:
            return False
        history = self._reader.instructive_attempts(card.id, model, LAST)
        found = learn(
            (lesson_of(attempt, settings, row, card) for attempt, settings in history),
            bench_lessons(self._bench(), row, card),
        )
        before = self.book.get((card.id, model), UNLEARNED)
        if found != before:
            self.book = {**self.book, (card.id, model): found}
        return _differ(found, before)


def _differ(one: Learned, other: Learned) -> bool:
    return any(
        abs(math.log(left / right)) > WORTH_A_CHANGE
        for left, right in ((one.seconds, other.seconds), (one.peak, other.peak))
    )
