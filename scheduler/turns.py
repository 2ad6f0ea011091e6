"""The cards as columns of numbers, a thousand looked at in microseconds: which are free, and when the others will be. Pure."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Slots = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
UNKNOWN = np.inf
"""In place of a time that nobody knows: such a card is not waited for."""
NO_MODEL = -1
ALIKE_S = 1e-3
"""Ends that are closer than this are one: wall seconds are rounded to 2.4e-7, and two cards alike must not each wait for the other."""


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """The cards that may take a group's jobs, the fastest first: slots, seconds of one job, seconds to load `model` (a number)."""

    slots: Slots
    seconds: Numbers
    load_s: Numbers
    ids: tuple[str, ...]
    able: frozenset[str]
    model: int

    @property
    def nominal_s(self) -> float:
        """Seconds of one job on the fastest of them: its size, whichever card it meets; 0 without any."""
        return float(self.seconds[0]) if len(self.seconds) else 0.0

    @property
    def usual_s(self) -> float:
        """Seconds of one job on a middling card (the harmonic mean)."""
        return (
            float(len(self.seconds) / (1 / np.maximum(self.seconds, 1e-9)).sum())
            if len(self.seconds)
            else 0.0
        )


@dataclass(slots=True)
class Turns:
    """Each card has a slot. `ends` is when a busy one is expected to be free (wall seconds), `UNKNOWN` where nobody knows."""

    slot: dict[str, int] = field(default_factory=dict)
    free: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))
    ends: Numbers = field(default_factory=lambda: np.zeros(0))
    quality: Flags = field(default_factory=lambda: np.zeros(0, dtype=bool))
    holds: Slots = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    models: dict[str, int] = field(default_factory=dict)
    _spare: list[int] = field(default_factory=list)

    def add(self, card_id: str, *, quality: bool) -> None:
        """A card comes, or is of another band now."""
        at = self.slot.get(card_id)
        if at is None:
            if not self._spare:
                self._grow()
            at = self.slot[card_id] = self._spare.pop()
            self.free[at], self.ends[at], self.holds[at] = False, UNKNOWN, NO_MODEL
        self.quality[at] = quality

    def _grow(self) -> None:
        size = len(self.free)
        more = max(16, size)
        self.free = np.concatenate([self.free, np.zeros(more, dtype=bool)])
        self.ends = np.concatenate([self.ends, np.full(more, UNKNOWN)])
        self.quality = np.concatenate([self.quality, np.zeros(more, dtype=bool)])
        self.holds = np.concatenate([self.holds, np.full(more, NO_MODEL)])
        self._spare.extend(reversed(range(size, size + more)))

    def remove(self, card_id: str) -> None:
        """A card is gone. Offers made before are of no use from here on."""
        at = self.slot.pop(card_id, None)
        if at is not None:
            self.free[at], self.ends[at], self.quality[at] = False, UNKNOWN, False
            self._spare.append(at)

    def number_of(self, model: str) -> int:
        """The model's number."""
        return self.models.setdefault(model, len(self.models))

    def hold(self, card_id: str, model: str | None) -> None:
        """The card has this model loaded, or none."""
        self.holds[self.slot[card_id]] = NO_MODEL if model is None else self.number_of(model)

    def begins(self, now: float) -> Numbers:
        """When each card can begin a further job.

        A card that is late is expected to need as long again as it is late: so the longer it is silent, the less one waits for it.
        """
        return np.where(self.free, now, np.where(self.ends >= now, self.ends, 2 * now - self.ends))

    def loading(self, offers: Offers) -> Numbers:
        """Seconds until each of the offered cards holds the model."""
        return np.where(self.holds[offers.slots] == offers.model, 0.0, offers.load_s)

    def done_by(self, offers: Offers, begins: Numbers, by: float, but: int, kept: Flags | None) -> int:
        """How many jobs the offered cards, but for one slot and those `kept` for other work, would have finished before `by`."""
        left = by - begins[offers.slots] - self.loading(offers) - ALIKE_S
        left[offers.slots == but] = 0.0
        if kept is not None:
            left[kept[offers.slots]] = 0.0
        left = np.maximum(left, 0.0)
        return int(np.maximum(np.ceil(left / np.maximum(offers.seconds, 1e-9) - 1e-9) - 1, 0.0).sum())
