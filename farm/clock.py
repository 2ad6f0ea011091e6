"""Time as a value that is passed in, so that the pure core never asks the machine for it."""

import time
from typing import Protocol


class Clock(Protocol):
    """Gives the two times that the farm uses."""

    def now(self) -> float:
        """Wall time in seconds since 1970, for what is stored and shown."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump, for leases and durations."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Wall time in seconds since 1970."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return time.monotonic()
