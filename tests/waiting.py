"""How tests wait."""

import time
from collections.abc import Callable, Iterator

FIRST_S, LONGEST_S = 0.01, 0.2


def pauses() -> Iterator[float]:
    """Seconds between one look and the next, ever longer: what comes quickly is seen at once.

    A look is often a request to a dashboard: every 20 ms they took half a core from the farm that they waited for.
    """
    pause = FIRST_S
    while True:
        yield pause
        pause = min(LONGEST_S, 1.3 * pause)


def wait_until(holds: Callable[[], object], limit_s: float = 10.0, what: str = "the condition") -> None:
    """Waits for a condition; fails with `what` after `limit_s`."""
    end = time.monotonic() + limit_s
    for pause in pauses():
        if holds():
            return
        assert time.monotonic() < end, f"did not come about in {limit_s:g} s: {what}"
        time.sleep(pause)
