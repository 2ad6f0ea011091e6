"""What a queued job waits for, in a sentence: the cards that could take it, and why each does not."""

from dashboard.parts import Parts
from farm.feed import LiveCard
from farm.model import Card, Job
from farm.planning.eligibility import FarmView, bands_of, check, without_its_owner

WAITING = "Waiting for its turn."
_AT_HAND = ("idle", "busy", "starting")
_TOLD = 3
"""More cards than this make no sentence that anyone reads."""


def why_waiting(parts: Parts, job: Job) -> str:
    """Why a queued job that some card could take is not taken: it waits for its turn, or for a card that is away or its owner's."""
    cards = parts.reader.cards()
    view = FarmView(parts.models, parts.settings.tiers, bands_of(cards))
    fit = [card for card in cards if check(job, without_its_owner(card), view).eligible]
    away = [_why_not(job, card, parts.live.cards.get(card.id), view) for card in fit]
    reasons = [why for why in away if why is not None]
    if not fit or len(reasons) < len(fit):
        return WAITING
    more = f"; and {len(reasons) - _TOLD} more" if len(reasons) > _TOLD else ""
    return f"Waits for {'; '.join(reasons[:_TOLD])}{more}."


def _why_not(job: Job, card: Card, live: LiveCard | None, view: FarmView) -> str | None:
    """Why the card takes no work that would fit it; None if it only has to finish what it is at."""
    if live is None or live.state not in _AT_HAND:
        why = (live.why if live is not None else None) or "does not answer"
        return f"{card.name}, which is {why}" if why.startswith("kept") else f"{card.name}: {why.rstrip('.')}"
    reasons = check(job, card, view).reasons
    return f"{card.name}: {'; '.join(reasons)}" if reasons else None
