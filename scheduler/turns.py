"""When cards become free, and how many jobs others would have finished by then: what makes a slow card wait its turn. Pure."""

import heapq
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from math import ceil

from scheduler.lanes import Group, Offer


@dataclass(slots=True)
class Turns:
    """The cards at one moment `now` (wall seconds): which are free, when busy ones are expected to end, which model each holds.

    `booked` are turns that this decision has promised to jobs which rather wait for a card than take a free slower one.
    """

    now: float
    free: Set[str]
    ends: Mapping[str, float]
    models: Mapping[str, str]
    booked: dict[str, float] = field(default_factory=dict)
    booked_models: dict[str, str] = field(default_factory=dict)

    def begins(self, card_id: str) -> float | None:
        """When the card can begin a further job; None where nobody knows.

        A card that is late is expected to need as long again as it is late: so the longer it is silent, the less one waits for it.
        """
        booked = self.booked.get(card_id)
        if booked is not None:
            return booked
        if card_id in self.free:
            return self.now
        ends = self.ends.get(card_id)
        if ends is None:
            return None
        return ends if ends >= self.now else 2 * self.now - ends

    def load_s(self, group: Group, offer: Offer) -> float:
        """Seconds until the card holds the group's model."""
        held = self.booked_models.get(offer.card_id) or self.models.get(offer.card_id)
        return 0.0 if held == group.model else offer.load_s

    def ends_at(self, group: Group, offer: Offer) -> float | None:
        """When the card would have finished one job of the group, begun as soon as it can."""
        begins = self.begins(offer.card_id)
        return None if begins is None else begins + self.load_s(group, offer) + offer.seconds

    def done_elsewhere(
        self,
        group: Group,
        offers: list[Offer],
        card_id: str,
        by: float,
        most: int,
        usable: Callable[[str], bool],
    ) -> int:
        """How many jobs of the group the other cards would have finished before `by`; counts no further than `most`."""
        done = 0
        for offer in offers:
            if offer.seconds >= by - self.now:
                break  # the rest is slower still
            if offer.card_id == card_id or not usable(offer.card_id):
                continue
            begins = self.begins(offer.card_id)
            if begins is None:
                continue
            left = by - begins - self.load_s(group, offer)
            if left > offer.seconds:
                done += ceil(left / offer.seconds - 1e-9) - 1
                if done >= most:
                    return most
        return done

    def book(self, group: Group, offers: list[Offer], jobs: int, usable: Callable[[str], bool]) -> None:
        """Promises each of so many jobs the card that would finish it first."""
        ends = [
            (end, index)
            for index, offer in enumerate(offers)
            if usable(offer.card_id) and (end := self.ends_at(group, offer)) is not None
        ]
        heapq.heapify(ends)
        for _ in range(jobs if ends else 0):
            end, index = ends[0]
            offer = offers[index]
            self.booked[offer.card_id] = end
            self.booked_models[offer.card_id] = group.model
            heapq.heapreplace(ends, (end + offer.seconds, index))
