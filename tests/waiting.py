"""How tests wait."""

from collections.abc import Iterator

FIRST_S, LONGEST_S = 0.01, 0.2


def pauses() -> Iterator[float]:
    """Seconds between one look and the next, ever longer: what comes quickly is seen at once.

    A look is often a request to a dashboard: every 20 ms they took half a core from the farm that they waited for.
    """
    pause = FIRST_S
    while True:
        yield pause
        pause = min(LONGEST_S, 1.3 * pause)
