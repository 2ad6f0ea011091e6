"""The filters' word on a job and a card, asked once for jobs alike and cards alike: a farm of a thousand cards has some dozen sorts."""

from collections.abc import Callable
from itertools import count

from farm.model import Card, Job
from farm.planning.eligibility import FarmView, Verdict, alike, check
from farm.planning.learned import learned_for
from scheduler.policy import requirements

MOST = 200_000
"""Verdicts that are remembered: 2,000 kinds of work on a hundred sorts of cards. Beyond that all are forgotten, and asked for anew."""


class Judging:
    """`farm.planning.eligibility.check` with the farm's present view, and a memory. Called as it, with a job and a card.

    May be asked from several threads: what is remembered is only ever added, under a key that says all that it rests on.
    """

    def __init__(self, view: Callable[[], FarmView]) -> None:
        self._view = view
        self._numbers = count()
        self._known: dict[tuple[object, ...], Verdict] = {}
        self._sorts: dict[Card, int] = {}
        self._sort_of: dict[str, tuple[Card, int]] = {}

    def __call__(self, job: Job, card: Card) -> Verdict:
        """What is to be said of the job on the card."""
        view = self._view()
        if view.failed or view.resting:  # of single jobs and cards
            return check(job, card, view)
        if len(self._known) > MOST or len(self._sorts) > MOST:
            self._known, self._sorts, self._sort_of = {}, {}, {}
        learned = learned_for(view.learned, job, card.id)
        key = (requirements(job), self._sort(card), learned, view.tiers, view.bands, id(view.models))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = check(job, card, view)
        return found

    def _sort(self, card: Card) -> int:
        """A number that cards alike have in common."""
        known = self._sort_of.get(card.id)
        if known is not None and known[0] is card:
            return known[1]
        number = self._sorts.setdefault(alike(card), next(self._numbers))
        self._sort_of[card.id] = (card, number)
        return number
