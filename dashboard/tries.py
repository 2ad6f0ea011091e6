"""How often signing in may fail. Counts live in this process: a restart forgets them, and costs whoever guesses more than it gives."""

import threading
from collections import deque

from farm.clock import Clock
from farm.errors import TooManyTriesError

WINDOW_S = 15 * 60.0
PER_NAME = 5
"""Failures for one name from one address within the window: at that pace eight random letters last for ever."""
PER_ADDRESS = 30
"""Failures for all names from one address: a household behind one router may mistype."""
MOST_KEYS = 10_000
"""What is remembered at the most; beyond that the longest untouched is forgotten."""


class Tries:
    """Counts a try before its password is looked at, so that many at once cannot slip through."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._at: dict[tuple[str, str | None], deque[float]] = {}

    def begin(self, address: str, name: str) -> None:
        """Counts a try, as one that failed until `succeeded` says otherwise.

        Raises:
            TooManyTriesError: there were too many; this one is not counted.
        """
        now = self._clock.monotonic()
        with self._lock:
            counted = [
                (self._recent((address, name), now), PER_NAME),
                (self._recent((address, None), now), PER_ADDRESS),
            ]
            waits = [times[0] + WINDOW_S - now for times, most in counted if len(times) >= most]
            if waits:
                minutes = max(1, round(max(waits) / 60))
                raise TooManyTriesError(
                    "Signing in failed too often.",
                    f"Try again in {minutes} min, or use the link that `farm up` prints.",
                    max(waits),
                )
            for times, _ in counted:
                times.append(now)

    def succeeded(self, address: str, name: str) -> None:
        """The password was right: earlier failures of this name count no longer, and the try itself did no harm."""
        with self._lock:
            self._at.pop((address, name), None)
            times = self._at.get((address, None))
            if times:
                times.pop()

    def _recent(self, key: tuple[str, str | None], now: float) -> deque[float]:
        times = self._at.pop(key, deque())
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        self._at[key] = times  # the last touched is the last in the dict
        while len(self._at) > MOST_KEYS:
            self._at.pop(next(iter(self._at)))
        return times
