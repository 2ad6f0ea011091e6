"""What the cards got done, for the API and the pages: the store's sums joined with the cards' names."""

from dataclasses import fields
from datetime import datetime

from dashboard.parts import Parts
from farm.answers.figures import Throughput, ThroughputPart
from farm.errors import NotFoundError
from farm.store.throughput import WINDOWS, Done


def throughput(farm: Parts, window: str, card_id: str | None = None) -> list[Throughput]:
    """What each card, or the one named, got done in one of `WINDOWS`.

    Raises:
        NotFoundError: the farm knows no card of this id.
    """
    cards = farm.reader.cards()
    found = farm.throughput.window(window, [card.id for card in cards], farm.now())
    if card_id is not None and card_id not in found:
        raise NotFoundError(f"There is no card {card_id[:80]}.", "`farm cards` lists the cards there are.")
    names = farm.reader.node_names()
    return [
        _told(found[card.id], card.name, names.get(card.node_id, card.node_id), window)
        for card in cards
        if card_id in (None, card.id)
    ]


def _told(done: Done, card_name: str, node_name: str, window: str) -> Throughput:
    """The store's figures, which the answer has under the same names, with what they are of."""
    part_s = WINDOWS[window].part_s
    figures = {one.name: getattr(done, one.name) for one in fields(done) if one.name != "parts"}
    parts = [
        ThroughputPart(at=at, clips_per_hour=3600 * clips / part_s)
        for at, clips in sorted((done.parts or {}).items())
    ]
    return Throughput(
        card_name=card_name, node_name=node_name, window=window, part_s=part_s, parts=parts, **figures
    )


def today(now: float) -> float:
    """When the day began in the head's own time zone, wall seconds."""
    return (
        datetime.fromtimestamp(now)
        .astimezone()
        .replace(hour=0, minute=0, second=0, microsecond=0)
        .timestamp()
    )


def done_today(farm: Parts, card_ids: list[str]) -> dict[str, Done]:
    """What each of these cards got done since the day began, by card."""
    now = farm.now()
    return farm.throughput.done(card_ids, today(now), now)
