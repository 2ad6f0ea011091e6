"""Why a job waits of whose kind the scheduler has not told yet: looked at when somebody asks, once for its kind.

The scheduler tells of a new kind within moments (`scheduler.outlook`), so this speaks for the time until then. What it does not know is
what renders have taught of the cards' memory; by that a card may be found too small, or not, which by the catalogue just fits.
"""

import threading
from collections.abc import Callable, Mapping

from dashboard.stream import Live
from farm.catalogue.models import ModelRow
from farm.clock import Clock
from farm.model import Card, Job
from farm.planning.eligibility import FarmView, TiersMode, Verdict, alike, bands_of, check
from farm.planning.kinds import kind_of
from farm.planning.waiting import why_waiting
from farm.standing import in_words, state_of
from farm.store.reader import Reader

FRESH_S = 2.0
"""How long a sentence is used again: a list of jobs asks for one kind fifty times, and a card's state changes meanwhile."""


class Reasons:
    """One per web process; may be asked from any thread."""

    def __init__(
        self,
        reader: Reader,
        live: Live,
        models: Mapping[str, ModelRow],
        tiers: Callable[[], TiersMode],
        clock: Clock,
    ) -> None:
        """`tiers` tells the farm's setting as it holds now."""
        self._reader = reader
        self._live = live
        self._models = models
        self._tiers = tiers
        self._clock = clock
        self._lock = threading.Lock()
        self._since = float("-inf")
        self._cards: list[Card] = []
        self._known: dict[str, str] = {}

    def why(self, job: Job) -> str:
        """What a waiting job waits for."""
        kind = kind_of(job)
        with self._lock:
            if self._clock.monotonic() - self._since >= FRESH_S:
                self._cards, self._known = self._reader.cards(), {}
                self._since = self._clock.monotonic()
            if kind not in self._known:
                self._known[kind] = self._look(job)
            return self._known[kind]

    def _look(self, job: Job) -> str:
        view = FarmView(self._models, self._tiers(), bands_of(self._cards))
        verdicts: dict[Card, Verdict] = {}
        found = []
        for card in self._cards:
            sort = alike(card)  # a farm of a thousand cards has some dozen sorts
            if sort not in verdicts:
                verdicts[sort] = check(job, card, view)
            found.append((card, verdicts[sort]))
        states = {card_id: in_words(state_of(live)) for card_id, live in list(self._live.cards.items())}
        return why_waiting(found, states)
