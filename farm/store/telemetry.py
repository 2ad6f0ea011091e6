"""How cards fare over time, in a table of bounded size: fine for hours, coarse for a week, coarser for a year.

A row holds the means of `span_s` seconds from `at` on, of the temperature the highest; None where nothing was told. At most some 12,000
rows a card, about a megabyte.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from farm.store import schema

FINE_S = 10
SPANS: tuple[tuple[int, float], ...] = ((FINE_S, 2 * 3600.0), (300, 7 * 86_400.0), (3600, 400 * 86_400.0))
"""Spans in seconds, and how long rows of each are kept. Each is made from the one before."""
SILENT_S = 600.0
"""A worker that is replaced leaves a gap of minutes; longer ones are worth a word."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Share (0 to 1), GiB, degrees Celsius, watts, MHz of shaders and memory."""

    utilization: float | None = None
    memory_used_gib: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None


FIGURES = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True, slots=True)
class Row:
    """How a card fared from `at` (wall seconds) on for `span_s` seconds."""

    card_id: str
    span_s: int
    at: float
    figures: Figures


class TelemetryWriter:
    """Writes the history; the scheduler's alone, on an engine opened with `writes=True`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, rows: Sequence[Row]) -> None:
        """Adds rows of the finest span, all in one transaction. One that is there already (of a scheduler before) gives way.

        Rows of a card that was forgotten meanwhile are left out.
        """
        table, cards = schema.telemetry, schema.cards
        with self._engine.begin() as connection:
            ids = {row.card_id for row in rows}
            known = set(connection.scalars(sa.select(cards.c.id).where(cards.c.id.in_(ids))))
            last = {(row.card_id, row.span_s, row.at): row.figures for row in rows if row.card_id in known}
            if not last:
                return
            kept = [
                {"card_id": card_id, "span_s": span_s, "at": at}
                | {name: getattr(figures, name) for name in FIGURES}
                for (card_id, span_s, at), figures in last.items()
            ]
            here = [{f"this_{name}": row[name] for name in ("card_id", "span_s", "at")} for row in kept]
            connection.execute(
                sa.delete(table).where(
                    table.c.card_id == sa.bindparam("this_card_id"),
                    table.c.span_s == sa.bindparam("this_span_s"),
                    table.c.at == sa.bindparam("this_at"),
                ),
                here,
            )
            connection.execute(sa.insert(table), kept)

    def thin(self, now: float) -> None:
        """Makes the coarser rows of what is over, and drops what is too old. Doing it twice changes nothing."""
        with self._engine.begin() as connection:
            for (fine, kept_s), (coarse, _) in pairwise(SPANS):
                self._roll_up(connection, fine, coarse, now - kept_s, now)
            for span, kept_s in SPANS:
                table = schema.telemetry
                connection.execute(sa.delete(table).where(table.c.span_s == span, table.c.at < now - kept_s))

    @staticmethod
    def _roll_up(connection: Connection, fine: int, coarse: int, since: float, now: float) -> None:
        """Spans of which the fine rows are all there still: from the first whole one on, up to the last that is over."""
        table = schema.telemetry
        first, end = -(-since // coarse) * coarse, now // coarse * coarse
        known = connection.scalar(
            sa.select(sa.func.max(table.c.at)).where(table.c.span_s == coarse, table.c.at >= first)
        )
        start = max(first, known if known is not None else first)
        within = sa.and_(table.c.at >= start, table.c.at < end)
        connection.execute(sa.delete(table).where(table.c.span_s == coarse, within))
        begun = _begun(coarse)
        rolled = (
            sa.select(table.c.card_id, sa.literal(coarse), begun, *_means())
            .where(table.c.span_s == fine, within)
            .group_by(table.c.card_id, begun)
        )
        connection.execute(sa.insert(table).from_select(["card_id", "span_s", "at", *FIGURES], rolled))


def _begun(part_s: int) -> sa.Label[float]:
    """When the part of `part_s` seconds begins in which a row lies."""
    return (sa.func.floor(schema.telemetry.c.at / part_s) * part_s).label("begun")


def _means() -> list[sa.Label[float]]:
    """What a row that takes the place of several holds."""
    return [
        (sa.func.max if name == "temperature_c" else sa.func.avg)(schema.telemetry.c[name]).label(name)
        for name in FIGURES
    ]


class TelemetryReader:
    """Questions to the history, on an engine opened with `writes=False`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, card_id: str, since: float, until: float) -> list[Row]:
        """A card's rows from `since` on, first to last, of the finest span that reaches back so far."""
        span = _span(until - since)
        statement = sa.select(schema.telemetry).where(*_within(card_id, span, since, until))
        with self._engine.connect() as connection:
            rows = connection.execute(statement.order_by(schema.telemetry.c.at)).mappings()
            return [
                Row(row["card_id"], row["span_s"], row["at"], Figures(*(row[name] for name in FIGURES)))
                for row in rows
            ]

    def parts(self, card_id: str, since: float, until: float, part_s: int) -> list[Row]:
        """The same, thinned to a row for each `part_s` seconds in which something was told; a multiple of the rows' own span."""
        begun = _begun(part_s)
        statement = (
            sa.select(begun, *_means())
            .where(*_within(card_id, _span(until - since), since, until))
            .group_by(begun)
            .order_by(begun)
        )
        with self._engine.connect() as connection:
            return [Row(card_id, part_s, at, Figures(*means)) for at, *means in connection.execute(statement)]

    def silences(self, card_id: str, since: float, until: float) -> list[tuple[float, float]]:
        """From when to when nothing was told of a card between two readings, first to last: ten minutes or more, to five minutes exactly.

        Its PC was off or away then, or the head was. A silence that lasts still is none yet: the card's state tells of it.
        """
        span = SPANS[1][0]
        statement = sa.select(schema.telemetry.c.at).where(*_within(card_id, span, since, until))
        with self._engine.connect() as connection:
            told = connection.scalars(statement.order_by(schema.telemetry.c.at)).all()
        return [(one + span, after) for one, after in pairwise(told) if after - one - span >= SILENT_S]


def _span(age: float) -> int:
    """The finest span of which rows are kept that long."""
    return next((span for span, kept_s in SPANS if age <= kept_s), SPANS[-1][0])


def _within(card_id: str, span: int, since: float, until: float) -> tuple[sa.ColumnElement[bool], ...]:
    table = schema.telemetry
    return (
        table.c.card_id == card_id,
        table.c.span_s == span,
        table.c.at > since - span,
        table.c.at < until,
    )
