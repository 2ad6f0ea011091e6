"""What happened to a card, as far as the store knows: which jobs came to grief on it, and since when it gets no work."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from farm.model import Attempt
from farm.store import schema
from farm.store.rows import attempt_from_row


@dataclass(frozen=True, slots=True)
class Standing:
    """Wall seconds: since when the farm gives a card no work and why, when that last ended, since when its PC is drained. None: not so."""

    paused: str | None
    paused_at: float | None
    cleared_at: float | None
    drained_at: float | None


class CardHistoryReader:
    """Questions about one card, on an engine opened with `writes=False`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def standing(self, card_id: str) -> Standing | None:
        """How the farm and people hold a card from work; None where there is no such card, or its PC was forgotten."""
        cards, nodes = schema.cards, schema.nodes
        statement = (
            sa.select(cards.c.paused, cards.c.paused_at, cards.c.cleared_at, nodes.c.drained_at)
            .join(nodes, nodes.c.id == cards.c.node_id)
            .where(cards.c.id == card_id, nodes.c.forgotten_at.is_(None))
        )
        with self._engine.connect() as connection:
            found = connection.execute(statement).one_or_none()
        return None if found is None else Standing(*found)

    def troubles(self, card_id: str, limit: int) -> list[Attempt]:
        """The last attempts that failed or were lost on a card, newest first."""
        attempts = schema.attempts
        statement = (
            sa.select(attempts)
            .where(attempts.c.card_id == card_id, schema.TROUBLED)
            .order_by(attempts.c.finished_at.desc())
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [attempt_from_row(row) for row in connection.execute(statement).mappings()]
