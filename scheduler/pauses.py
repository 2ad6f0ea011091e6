"""Cards to which the farm itself gives no work, after they failed one job after the other, until they have passed a test. Pure.

The test is that of a fresh worker: the worker is replaced, and the card is back when the new one has tested it and found nothing. A GPU
multiplies two matrices and must give the CPU's product (`node_agent.selftest`); a CPU makes a tiny clip of known frames
(`node_agent.tryout`). While the test finds something, the card is in trouble, its PC tests it again every few minutes, and it stays paused.
"""

from dataclasses import dataclass, replace
from typing import Literal

from farm.wire import CardReport

PROBE_AFTER_S = 60.0
"""Heat, a driver's reset or another program may be over by then; and a card that passes its test and fails its jobs costs no more than
three tries a minute."""


@dataclass(frozen=True, slots=True)
class Pause:
    """`why` is for people, `since` monotonic seconds; `probing`: a fresh worker was asked for."""

    why: str
    since: float
    probing: bool = False


class Pauses:
    """The paused cards."""

    def __init__(self) -> None:
        self._pauses: dict[str, Pause] = {}

    def about(self, card_id: str) -> str | None:
        """Why a card is paused, None if it is not."""
        found = self._pauses.get(card_id)
        return None if found is None else found.why

    def pause(self, card_id: str, why: str, now: float) -> None:
        """No work for the card from now on. One that is paused already stays as it is."""
        self._pauses.setdefault(card_id, Pause(why, now))

    def end(self, card_id: str) -> None:
        """The card takes work again."""
        self._pauses.pop(card_id, None)

    def hear(
        self, said: CardReport, *, held: bool, doubted: bool, now: float
    ) -> Literal["probe", "back"] | None:
        """What a report of a paused card calls for: the test of a fresh worker, or an end of the pause.

        `held`: the card is still at an attempt, which may end first. `doubted`: the fresh worker has not been heard yet.
        """
        pause = self._pauses.get(said.id)
        if pause is None or held:
            return None
        if not pause.probing:
            if now - pause.since < PROBE_AFTER_S:
                return None
            self._pauses[said.id] = replace(pause, probing=True)
            return "probe"
        passed = said.answers and said.tested and said.trouble is None and not doubted
        return "back" if passed else None
