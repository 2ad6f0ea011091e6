"""Which card workers of a PC with several cards may rest: end, until the head has work for their card. Pure.

A worker without a model takes 60 to 110 MiB, which its PC's owner misses and nobody uses. One stays: its card takes work at once.
"""

from collections.abc import Iterable

WARM_MOST = 1
"""Workers that stay, so that the farm's own processes take less than 400 MB and 3 % of a core of an idle PC, however many cards it has
(docs/benchmarks.md, decision 0022). Most PCs have one card, and no use for this module."""
REST_AFTER_S = 60.0
"""How long a worker must have had nothing to do."""


class Rests:
    """How long each worker has been idle. Times are monotonic seconds that the caller passes in."""

    def __init__(self, warm_most: int = WARM_MOST, rest_after_s: float = REST_AFTER_S) -> None:
        self._warm_most = warm_most
        self._rest_after_s = rest_after_s
        self._idle_since: dict[str, float] = {}

    def hear(self, card_id: str, now: float, *, idle: bool) -> None:
        """What a card's worker says of itself; one that starts, is at a test or in trouble is not idle."""
        if idle:
            self._idle_since.setdefault(card_id, now)
        else:
            self._idle_since.pop(card_id, None)

    def stays(self, card_id: str, now: float) -> None:
        """The worker has something to keep, a model: it is asked again when another such time is over."""
        self._idle_since[card_id] = now

    def due(self, workers: Iterable[str], now: float) -> list[str]:
        """Of the cards that have a worker, those whose worker may rest; the longest idle first, and some always stay."""
        running = set(workers)
        idle = sorted(
            (since, card_id)
            for card_id, since in self._idle_since.items()
            if card_id in running and now - since >= self._rest_after_s
        )
        return [card_id for _, card_id in idle[: max(0, len(running) - self._warm_most)]]
