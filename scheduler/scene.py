"""What the policy knows at a moment: the queue in its groups, the cards, who may do what and how fast. Pure."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from farm.model import Card, Tier
from scheduler.lanes import Group, Judge, Loading
from scheduler.shares import Shares
from scheduler.turns import UNKNOWN, Offers, Turns


@dataclass(slots=True)
class Scene:
    """`models` is what each card (by id) is known to hold; `free` the ids of the cards that take work now, `turns` the same as columns."""

    judge: Judge
    loading: Loading
    groups: dict[object, Group] = field(default_factory=dict)
    cards: dict[str, Card] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)
    models: dict[str, str] = field(default_factory=dict)
    turns: Turns = field(default_factory=Turns)
    bands: Counter[Tier] = field(default_factory=Counter)
    shares: Shares = field(default_factory=Shares)

    # --- cards ---
    def see(self, card: Card) -> None:
        """A card comes, or is another than before."""
        before = self.cards.get(card.id)
        if before == card:
            return
        self.cards[card.id] = card
        self.turns.add(card.id, quality=card.band is Tier.QUALITY)
        left, came = self._count_band(before, -1), self._count_band(card, +1)
        self.forget(None if left or came else card.id)  # who may serve what depends on the farm's bands

    def lose(self, card_id: str) -> None:
        """A card is there no longer."""
        self.free.discard(card_id)
        self.models.pop(card_id, None)
        self.turns.remove(card_id)
        gone = self.cards.pop(card_id, None)
        if gone is not None:
            self.forget(None if self._count_band(gone, -1) else card_id)

    def stand(self, card_id: str, *, free: bool, ends: float | None) -> None:
        """A card takes work now, or is expected to when its present work `ends`, None if nobody knows."""
        slot = self.turns.slot[card_id]
        self.turns.free[slot] = free
        self.turns.ends[slot] = UNKNOWN if ends is None else ends
        if free:
            self.free.add(card_id)
        else:
            self.free.discard(card_id)

    def hold(self, card_id: str, model: str | None) -> None:
        """A card holds this model, or none."""
        if model is None:
            if self.models.pop(card_id, None) is not None:
                self.turns.hold(card_id, None)
        else:
            self.models[card_id] = model
            self.turns.hold(card_id, model)

    def forget(self, card_id: str | None = None) -> None:
        """Judges anew from here on, this card or all."""
        for group in self.groups.values():
            group.forget(card_id)

    def _count_band(self, card: Card | None, by: int) -> bool:
        """Whether a band comes or goes with this card. One in trouble makes none up: no work is kept for it."""
        if card is None or card.trouble is not None:
            return False
        before = self.bands[card.band]
        self.bands[card.band] = before + by
        return (before > 0) != (before + by > 0)

    # --- who may do what ---
    def offers(self, group: Group) -> Offers:
        """The cards that may take the group's jobs."""
        return group.offers(self.cards, self.turns, self.judge, self.loading)

    def load_s(self, group: Group, card_id: str) -> float:
        """Seconds until the card holds the group's model."""
        if group.model is None or self.models.get(card_id) == group.model:
            return 0.0
        return self.loading(group.model, self.cards[card_id])

    def gives_way(self, group: Group) -> bool:
        """Whether quality cards take the group's jobs only while no quality work waits that they could start."""
        job = group.sample
        return group.tier is Tier.PREVIEW and self.bands[Tier.PREVIEW] > 0 and not (job.anywhere or job.draft)

    def in_bulk(self) -> Mapping[Group, int]:
        """How many jobs of batches wait, of each kind that has any."""
        return {
            group: jobs
            for group in self.groups.values()
            if (jobs := sum(len(lane.jobs) for lane in group.lanes.values() if lane.bulk))
        }
