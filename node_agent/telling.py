"""When the head's question how this PC is gets its answer: at once when there is news, else after a while.

The head asks again as soon as it has its answer, so that it hears of whatever changes within `LOOK_EVERY_S`; and what takes its time on the
head is the number of answers. A PC at work answers at each look: its card's readings count for the attempt.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from farm.clock import Clock
from farm.news import mark_of, told, told_to_dict
from farm.wire import NodeReport

LOOK_EVERY_S = 2.0
"""Pause between two looks while a question waits."""
QUIET_S = 1.9
"""No look but a question's first begins so shortly before its answer is due: one that meets slow workers takes three seconds."""

JUST_S = 1.0
"""A head that knows something else is told of a look that ended so shortly ago. Where an agent starts for a minute, on a slow or busy PC,
questions have piled up by then: each made a look of three seconds, and the one that was still waited for came last."""

Over = Callable[[], bool]


class Telling:
    """Answers questions, each in a thread of its own. `look()` makes a fresh report; `wait(over, seconds)` waits until either."""

    def __init__(
        self,
        look: Callable[[], NodeReport],
        clock: Clock,
        wait: Callable[[Over, float], object] | None = None,
    ) -> None:
        self._look = look
        self._clock = clock
        self._turn = threading.Condition()
        self._wait = wait if wait is not None else self._wait_turn
        self._newest = 0
        self._mark = ""
        self._looked = self._ended = float("-inf")
        self._last: NodeReport | None = None

    def answer(self, known: str, hold_s: float) -> dict[str, Any]:
        """As `farm.news.Told`, within `hold_s` and the length of a look. `known` is the mark of the report that the head has.

        A newer question ends the wait of those before it: a head that was killed while it asked hears nothing any more.
        """
        with self._turn:
            self._newest = mine = self._newest + 1
            self._turn.notify_all()
        end = self._clock.monotonic() + hold_s
        if known == self._mark:
            self._pause(mine, min(self._looked + LOOK_EVERY_S, end))
        report = None if known == self._mark else self._just_seen()
        while True:
            if report is None:
                report = self._see()
            mark = mark_of(report)
            if mark != known or any(card.attempt_id is not None for card in report.cards):
                break
            next_at = max(self._looked + LOOK_EVERY_S, self._clock.monotonic())
            last = next_at > end - QUIET_S
            self._pause(mine, end if last else next_at)
            if last or mine != self._newest:
                report = replace(report, at=self._clock.now())
                break
            report = None
        return told_to_dict(told(report, mark, known))

    def _see(self) -> NodeReport:
        self._looked = self._clock.monotonic()
        report = self._look()
        self._last, self._mark, self._ended = report, mark_of(report), self._clock.monotonic()
        return report

    def _just_seen(self) -> NodeReport | None:
        return self._last if self._clock.monotonic() - self._ended < JUST_S else None

    def _pause(self, mine: int, until: float) -> None:
        self._wait(lambda: mine != self._newest, max(0.0, until - self._clock.monotonic()))

    def _wait_turn(self, over: Over, seconds: float) -> None:
        with self._turn:
            self._turn.wait_for(over, seconds)
