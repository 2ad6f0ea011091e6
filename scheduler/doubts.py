"""Cards that get no work until their worker was heard: its process may be gone, or still be inside an attempt that the farm gave up. Pure.

A worker inside such an attempt is told to stop. One that does not stop, does not answer, or does not end the test of its card within a
grace is replaced.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Literal

from farm.wire import CardReport

STOP_LEASES = 2
"""A worker has two leases to stop: with the default of 30 s, more than a step takes on the slowest card that is served."""
ANSWER_LEASES = 10
"""A worker has ten leases to answer: it may be starting on a PC that reads its programs from a slow disk."""
TEST_S = 330.0
"""And so much more where it answers and tests its card: the test has a limit of its own (`node_agent.selftest.LIMIT_S`), and then says what
hangs. Replaced before that, a card with a driver that hangs was "starting" for ever, as was one whose PC started its worker slowly."""
ENDED = "its worker ended"
SILENT = "its worker does not answer yet"
TESTING = "its worker is starting and tests it"
PROBED = "it is tested anew"
STRAY = "its worker still has to let go of an attempt that was given up"


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a card gets no work. `since` is when its node first reported the trouble, monotonic seconds; None until it did."""

    why: str
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to do about a card: stop the attempt `stray`, or end its worker's process so that its node starts another."""

    card_id: str
    what: Literal["stop", "replace"]
    stray: str = ""


class Doubts:
    """The doubted cards. The graces before a worker is replaced are counted in leases, whose seconds `lease_s` tells."""

    def __init__(self, lease_s: Callable[[], float]) -> None:
        self._lease_s = lease_s
        self._doubts: dict[str, Doubt] = {}

    def about(self, card_id: str) -> Doubt | None:
        """The doubt about a card, if there is one."""
        return self._doubts.get(card_id)

    def standing(self) -> dict[str, Doubt]:
        """All doubts as they are now. Taken before a report is asked for: only these can the report take away."""
        return dict(self._doubts)

    def add(self, card_id: str, why: str) -> None:
        """The card's worker may be gone or busy; a grace that runs already runs on."""
        before = self._doubts.get(card_id)
        self._doubts[card_id] = Doubt(why, None if before is None else before.since)

    def hear(
        self,
        said: CardReport,
        *,
        standing: dict[str, Doubt],
        attended: Collection[str],
        held: bool,
        now: float,
    ) -> Remedy | None:
        """What a report says of a card's worker, and what to do about it.

        `attended` are the attempts that are seen through, now or when the report was asked for: an attempt that ended in between is no
        stray. `held` cards have an attempt, whose lease judges a worker that does not answer.
        """
        doubt = self._doubts.get(said.id)
        if said.answers and not said.tested:
            return self._trouble(said.id, TESTING, now)
        if said.answers:
            stray = said.attempt_id if said.attempt_id not in attended else None
            if stray is not None:
                return self._trouble(said.id, STRAY, now, stray)
            if doubt is not None and standing.get(said.id) is doubt:
                del self._doubts[said.id]
            return None
        if held and doubt is None:
            return None
        return self._trouble(said.id, SILENT, now)

    def _trouble(self, card_id: str, why: str, now: float, stray: str = "") -> Remedy | None:
        before = self._doubts.get(card_id)
        since = now if before is None or before.since is None else before.since
        doubt = self._doubts[card_id] = Doubt(why, since)
        grace_s = self._lease_s() * (STOP_LEASES if stray else ANSWER_LEASES)
        if now - since > grace_s + (TEST_S if why == TESTING else 0.0):
            self._doubts[card_id] = replace(doubt, since=None)  # the new worker has a grace of its own
            return Remedy(card_id, "replace")
        return Remedy(card_id, "stop", stray) if stray else None
