"""The farm's own cards, and what they have taught, put before the planner. `farm.planning.foresee` does the rest."""

from collections.abc import Sequence

from dashboard.parts import Parts
from dashboard.views import card_states, default_preset
from farm.answers.forecasts import CardForecast
from farm.catalogue.models import ModelRow
from farm.model import Card
from farm.own_bench import BenchResult
from farm.planning.eligibility import FarmView, bands_of
from farm.planning.foresee import foresee
from farm.planning.learned import LAST, Learned, bench_lessons, learn, lesson_of
from farm.standing import in_words
from farm.submit import parse_settings

RESTING = ("drained", "paused", "kept")
"""States in which a card takes no work until a person, a test or its owner says so."""
_AWAY = "not answering"


def forecast(farm: Parts, sent: bytes) -> list[CardForecast]:
    """What a render with the settings that were sent (JSON) would come to on each card of the farm, the best first.

    A card that does not answer comes after those that also cannot take it now: they are there.

    Raises:
        BadInputError, BadSettingsError: the settings cannot be used; `field` says which.
    """
    submission = parse_settings(
        sent,
        models=farm.models,
        presets=farm.presets,
        default_preset=default_preset(farm),
        random_seed=0,
        to_render=False,
    )
    cards = farm.reader.cards()
    row = farm.models[submission.settings.model]
    bench = farm.benches.rows()
    states = card_states(farm)
    view = FarmView(
        models=farm.models,
        tiers=farm.in_force().tiers,
        bands=bands_of(cards),
        resting={
            card_id: in_words(live.state)
            for card_id, live in list(farm.live.cards.items())
            if live.state in RESTING
        }
        | {card_id: in_words(_AWAY) for card_id, state in states.items() if state == _AWAY},
        learned={(card.id, row.name): _taught(farm, bench, card, row) for card in cards},
    )
    names = farm.reader.node_names()
    of_card = {card.id: names.get(card.node_id) for card in cards}
    found = [
        one.model_copy(update={"node_name": of_card[one.card_id], "state": states.get(one.card_id)})
        if one.card_id in of_card
        else one
        for one in foresee(
            submission.settings, cards, view, anywhere=submission.anywhere, needs=submission.needs
        )
    ]
    return sorted(found, key=lambda one: (not one.eligible, not one.able, one.state == _AWAY))


def _taught(farm: Parts, bench: Sequence[BenchResult], card: Card, row: ModelRow) -> Learned:
    """What the last attempts of the model on the card say: the scheduler's own lesson, drawn from the store."""
    history = farm.reader.instructive_attempts(card.id, row.name, LAST)
    return learn(
        (lesson_of(attempt, settings, row, card) for attempt, settings in history),
        bench_lessons(bench, row, card),
    )
