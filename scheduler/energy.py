"""What each attempt draws: a card's power over the time for which the attempt holds it. Pure; times are the head's wall seconds."""

from dataclasses import dataclass

GAP_S = 15.0
"""Further apart than this, two readings say nothing of the time between them: the card or its PC was away."""
WAIT_S = 12.0
"""How long a reading after an attempt's end is waited for: idle cards are read every ten seconds."""
KNOWN_SHARE = 0.5
"""An attempt of which less than this is known has no figure, rather than too small a one."""


@dataclass(slots=True)
class _Meter:
    """An attempt: watt-seconds so far, and the seconds of its time that they cover."""

    card_id: str
    start: float
    end: float | None = None
    drawn_ws: float = 0.0
    covered_s: float = 0.0

    def add(self, before: tuple[float, float], now: tuple[float, float]) -> None:
        """What lies between two readings (time, watts) and within the attempt, power taken as a straight line between them."""
        (t0, w0), (t1, w1) = before, now
        start, end = max(t0, self.start), min(t1, self.end if self.end is not None else t1)
        if end <= start or t1 - t0 > GAP_S:
            return
        slope = (w1 - w0) / (t1 - t0)
        middle = w0 + slope * ((start + end) / 2 - t0)
        self.drawn_ws += middle * (end - start)
        self.covered_s += end - start


class EnergyBook:
    """The attempts under way, and those that have just ended."""

    def __init__(self) -> None:
        self._meters: dict[str, _Meter] = {}
        self._last: dict[str, tuple[float, float]] = {}

    def begin(self, attempt_id: str, card_id: str, start: float) -> None:
        """The attempt holds the card from `start` on."""
        self._meters[attempt_id] = _Meter(card_id, start)

    def recall(self, attempt_id: str, seconds: float, watts: float) -> None:
        """A former scheduler has read this much for an attempt that is under way."""
        meter = self._meters[attempt_id]
        meter.drawn_ws += seconds * watts
        meter.covered_s += seconds

    def read(self, card_id: str, at: float, watts: float) -> None:
        """A card's power at a time. Readings of a card come in order; an older one is no news."""
        before = self._last.get(card_id)
        if before is not None and at <= before[0]:
            return
        self._last[card_id] = (at, watts)
        if before is not None:
            for meter in self._meters.values():
                if meter.card_id == card_id:
                    meter.add(before, (at, watts))

    def end(self, attempt_id: str, at: float) -> None:
        """The attempt let the card go."""
        meter = self._meters.get(attempt_id)
        if meter is not None:
            meter.end = at

    def settled(self, now: float) -> list[tuple[str, float | None]]:
        """Attempts that ended, as far as all of their time is read or no more is to be waited for: watt-hours, None if not known."""
        over = [
            (attempt_id, meter)
            for attempt_id, meter in self._meters.items()
            if meter.end is not None and (self._read_until(meter) >= meter.end or now - meter.end > WAIT_S)
        ]
        for attempt_id, _meter in over:
            del self._meters[attempt_id]
        return [(attempt_id, _wh(meter)) for attempt_id, meter in over]

    def _read_until(self, meter: _Meter) -> float:
        last = self._last.get(meter.card_id)
        return float("-inf") if last is None else last[0]


def _wh(meter: _Meter) -> float | None:
    took = (meter.end or meter.start) - meter.start
    if not meter.covered_s or meter.covered_s < took * KNOWN_SHARE:
        return None
    # What is not known is taken to be as the rest: a reading that got lost makes no attempt thriftier.
    return round(meter.drawn_ws * max(1.0, took / meter.covered_s) / 3600, 4)
