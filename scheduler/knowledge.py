"""What the scheduler knows of its farm: its rules, the cards' bands, what cards have taught; and so what may run where, and how long."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from farm.catalogue.models import ModelRow
from farm.ids import new_id
from farm.model import Card, Job
from farm.planning.eligibility import FarmView, TiersMode, bands_of, unplaceable
from farm.planning.learned import UNLEARNED, learned_for
from farm.planning.loading import load_seconds
from farm.store.claims import Assignment
from farm.store.reader import Reader
from scheduler.benched import Benched
from scheduler.judging import Judging
from scheduler.lessons import Lessons
from scheduler.policy import Pick


class Knowledge:
    """One per scheduler. `view` is replaced, never changed; `judge` is the filters' word with the present one."""

    def __init__(
        self, reader: Reader, models: Mapping[str, ModelRow], tiers: TiersMode, benched: Benched | None
    ) -> None:
        self.view = FarmView(models, tiers)
        self.judge = Judging(lambda: self.view)
        self._lessons = Lessons(reader, models, lambda: () if benched is None else benched.rows)

    def recall(self, cards: Iterable[Card]) -> None:
        """What the store remembers of these cards, all that there are."""
        cards = list(cards)
        self._lessons.recall(cards)
        self.view = replace(self.view, bands=bands_of(cards), learned=self._lessons.book)

    def learn(self, card: Card, name: str) -> bool:
        """Learns from what the model or interpolator has done on the card; whether a prediction changes."""
        changed = self._lessons.take(card, name)
        self.view = replace(self.view, learned=self._lessons.book)
        return changed

    def see(self, cards: Iterable[Card]) -> bool:
        """These are all cards now; whether that changes who may do what."""
        return self._change(bands=bands_of(cards))

    def rule(self, tiers: TiersMode) -> bool:
        """From here on this is the rule of tiers; whether it is another than before."""
        return self._change(tiers=tiers)

    def _change(self, **values: object) -> bool:
        before, self.view = self.view, replace(self.view, **values)  # type: ignore[arg-type]  # names of fields
        return self.view != before

    def loading(self, model: str, card: Card) -> float:
        """Seconds that the card takes to load the model."""
        row = self.view.models.get(model)
        learned = self.view.learned.get((card.id, model), UNLEARNED)
        return 0.0 if row is None else load_seconds(row) * learned.load

    def unplaceable(self, job: Job, cards: list[Card]) -> str | None:
        """Why none of the cards could ever serve the job; None where one could, or where there is no card."""
        return unplaceable(job, cards, self.view, self.judge)

    def assignment(self, pick: Pick) -> Assignment:
        """The policy's pick for the store, with what is predicted and how sure that is."""
        learned = learned_for(self.view.learned, pick.job, pick.card.id)
        span = learned.span(pick.seconds)
        return Assignment(
            new_id(),
            pick.job.id,
            pick.card.node_id,
            pick.card.id,
            pick.card.name,
            pick.plan,
            pick.job.stage,
            predicted_s=pick.seconds,
            predicted_gib=pick.peak_gib,
            predicted_low_s=span.low,
            predicted_high_s=span.high,
            predicted_basis=learned.basis,
        )
