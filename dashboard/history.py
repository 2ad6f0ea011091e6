"""What happened to a card: joined from what the store has anyway, nothing is kept for it."""

from dashboard.parts import Parts
from farm.answers.machines import CardEvent
from farm.errors import NotFoundError
from farm.model import AttemptStatus

TROUBLES = 10
SILENCES = 5
WEEK_S = 7 * 86_400.0
"""Silences are found in the rows of five minutes, which are kept so long."""


def no_card(card_id: str) -> NotFoundError:
    """Says that there is no card of this id."""
    return NotFoundError(f"There is no card {card_id[:80]}.", "`farm cards` lists the cards there are.")


def card_history(parts: Parts, card_id: str) -> list[CardEvent]:
    """The last things that happened to a card, newest first.

    Raises:
        NotFoundError: there is none of this id.
    """
    reader, now = parts.reader, parts.now()
    standing = reader.card_history.standing(card_id)
    if standing is None:
        raise no_card(card_id)
    found = [
        CardEvent(
            at=attempt.finished_at or attempt.assigned_at,
            what="lost" if attempt.status is AttemptStatus.LOST else "failed",
            why=attempt.reason or "",
            job_id=attempt.job_id,
        )
        for attempt in reader.card_history.troubles(card_id, TROUBLES)
    ]
    silences = reader.telemetry.silences(card_id, now - WEEK_S, now)
    found += [CardEvent(at=since, until=until, what="silent") for since, until in silences[-SILENCES:]]
    if standing.paused_at is not None:
        found.append(CardEvent(at=standing.paused_at, what="paused", why=standing.paused or ""))
    if standing.cleared_at is not None:
        found.append(CardEvent(at=standing.cleared_at, what="cleared"))
    if standing.drained_at is not None:
        found.append(CardEvent(at=standing.drained_at, what="drained"))
    return sorted(found, key=lambda event: event.at, reverse=True)
