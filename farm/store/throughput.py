"""How much each card got done in a span of time, from its stored attempts. Reads only.

An attempt counts in the span in which it ended. Where a card did nothing there are no figures, which is not the same as nought.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from threading import Lock
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from farm.model import AttemptStatus, StageKind
from farm.store import schema

_COUNTED = (AttemptStatus.FINISHED, AttemptStatus.FAILED, AttemptStatus.LOST)


@dataclass(frozen=True, slots=True)
class Window:
    """A span that ends now, and the length of the parts that a chart of it has; seconds."""

    seconds: float
    part_s: float


WINDOWS = {
    "1h": Window(3600, 300),
    "24h": Window(86_400, 3600),
    "7d": Window(7 * 86_400, 6 * 3600),
    "30d": Window(30 * 86_400, 86_400),
}
"""The windows that people choose among, in 12 to 30 parts."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a card got done from `since` to `until` (wall seconds). None where there is nothing to tell it from.

    `clips_per_hour` and `frames_per_minute` are of finished clips, over the whole span. `seconds_per_step` is the mean over denoising
    steps, `wh_per_clip` over finished clips: what their rendering drew, as far as the card told it. `success_rate` (0 to 1): finished of
    those that ended by themselves; cancelled ones count on neither side. `utilization` (0 to 1): the share of the span in which the card
    had an attempt. `clips` and `parts` count finished clips, in all and by part of the span (when it begins: how many); a part without
    any is absent.
    """

    card_id: str
    since: float
    until: float
    clips: int = 0
    clips_per_hour: float | None = None
    frames_per_minute: float | None = None
    seconds_per_step: float | None = None
    wh_per_clip: float | None = None
    success_rate: float | None = None
    utilization: float | None = None
    parts: dict[float, int] | None = None


KEPT_SHARE = 1 / 120
"""A window's figures are kept for this share of one of its parts: 30 s for a day, 12 min for 30 days."""


class ThroughputReader:
    """Questions about what was done, on an engine opened with `writes=False`. May be asked from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._kept: dict[str, tuple[float, tuple[str, ...], dict[str, Done]]] = {}

    def window(self, name: str, card_ids: Sequence[str], now: float) -> dict[str, Done]:
        """What each card got done in one of `WINDOWS` up to now, by parts that begin at whole multiples of their length.

        Summing up 30 days of 100,000 attempts takes most of a second, so that the figures are kept for a while that changes no chart.
        """
        span, ids = WINDOWS[name], tuple(card_ids)
        with self._lock:  # who asks meanwhile waits for the same answer instead of working it out too
            kept = self._kept.get(name)
            if kept is not None and kept[1] == ids and 0 <= now - kept[0] < KEPT_SHARE * span.part_s:
                return kept[2]
            since = (now - span.seconds) // span.part_s * span.part_s
            found = self.done(ids, since, now, span.part_s)
            self._kept[name] = (now, ids, found)
            return found

    def done(
        self, card_ids: Sequence[str], since: float, until: float, part_s: float | None = None
    ) -> dict[str, Done]:
        """What each of these cards got done, by card. A card that joined later than `since` is measured from then on.

        With `part_s` the clips are also counted by parts of this many seconds, from `since` on.
        """
        if not card_ids:
            return {}
        with self._engine.connect() as connection:
            given = {"ids": list(card_ids), "since": since, "until": until, "part_s": part_s or 1.0}
            rows = connection.execute(_ENDED if part_s is None else _ENDED_BY_PART, given).all()
            held = {row[0]: row[1] for row in connection.execute(_HELD_NOW, given)}
            joined = {row[0]: row[1] for row in connection.execute(_JOINED, given)}
        by_card = {card_id: list(some) for card_id, some in groupby(rows, key=lambda row: row.card_id)}
        return {
            card_id: _sum_up(
                card_id,
                max(since, min([joined.get(card_id) or since, *(row.first for row in rows_of)])),
                until,
                rows_of,
                held.get(card_id) or 0.0,
                None if part_s is None else {row.part: since + row.part * part_s for row in rows_of},
            )
            for card_id in card_ids
            for rows_of in (by_card.get(card_id, []),)
        }


# Statements that every page asks are made once: putting them together takes longer than most answers.
_IDS: sa.BindParameter[Any] = sa.bindparam("ids", expanding=True)
_SINCE = sa.bindparam("since", type_=sa.Float)
_UNTIL = sa.bindparam("until", type_=sa.Float)
_PART_S = sa.bindparam("part_s", type_=sa.Float)


def _ended(*, by_part: bool) -> sa.Select[*tuple[Any, ...]]:
    """Attempts that ended in the span, added up by card and part; the index on card and end serves it."""
    attempts, jobs = schema.attempts, schema.jobs
    finished = attempts.c.status == AttemptStatus.FINISHED
    clip = sa.and_(finished, attempts.c.stage == StageKind.GENERATE)
    denoise = attempts.c.stage_seconds["denoise"].as_float()
    stepped = sa.and_(finished, denoise > 0)
    metered = sa.and_(clip, attempts.c.energy_wh.is_not(None))
    # One that went on from another's checkpoint made only the steps that were left.
    steps = jobs.c.settings["steps"].as_integer() - sa.func.coalesce(attempts.c.resumed_step, 0)
    start = sa.case((attempts.c.assigned_at > _SINCE, attempts.c.assigned_at), else_=_SINCE)
    part: sa.ColumnElement[Any] = (
        sa.func.floor((attempts.c.finished_at - _SINCE) / _PART_S) if by_part else sa.literal(0)
    ).label("part")

    def total(of: Any, where: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
        return sa.func.sum(sa.case((where, of), else_=0))

    return (
        sa.select(
            attempts.c.card_id,
            part,
            total(1, clip).label("clips"),
            total(1, finished).label("finished"),
            total(1, attempts.c.status.in_(_COUNTED)).label("ended"),
            total(jobs.c.settings["frames"].as_integer(), clip).label("frames"),
            total(steps, stepped).label("steps"),
            total(denoise, stepped).label("denoise_s"),
            total(attempts.c.energy_wh, metered).label("drawn_wh"),
            total(1, metered).label("metered"),
            sa.func.sum(attempts.c.finished_at - start).label("busy_s"),
            sa.func.min(start).label("first"),
        )
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            attempts.c.card_id.in_(_IDS),
            attempts.c.finished_at >= _SINCE,
            attempts.c.finished_at < _UNTIL,
        )
        .group_by(attempts.c.card_id, part)
        .order_by(attempts.c.card_id, part)
    )


def _held_now() -> sa.Select[*tuple[Any, ...]]:
    """For how many seconds of the span the attempt that a card has now has held it; of all cards.

    Asked for certain cards, SQLite went through every attempt that they ever had (190 ms for 100 cards) instead of the few that are live.
    """
    attempts = schema.attempts
    start = sa.case((attempts.c.assigned_at > _SINCE, attempts.c.assigned_at), else_=_SINCE)
    return sa.select(attempts.c.card_id, _UNTIL - start).where(schema.LIVE, attempts.c.assigned_at < _UNTIL)


def _joined() -> sa.Select[str, float]:
    cards, nodes = schema.cards, schema.nodes
    return (
        sa.select(cards.c.id, nodes.c.joined_at)
        .join(nodes, nodes.c.id == cards.c.node_id)
        .where(cards.c.id.in_(_IDS))
    )


_ENDED, _ENDED_BY_PART = _ended(by_part=False), _ended(by_part=True)
_HELD_NOW, _JOINED = _held_now(), _joined()


def _sum_up(
    card_id: str,
    since: float,
    until: float,
    rows: Sequence[Any],
    held_s: float,
    begins: Mapping[int, float] | None,
) -> Done:
    def total(name: str) -> float:
        return float(sum(getattr(row, name) or 0 for row in rows))

    span_s = until - since
    clips, ended, steps = int(total("clips")), total("ended"), total("steps")
    metered, busy_s = total("metered"), total("busy_s") + held_s
    if span_s <= 0 or (not rows and not held_s):
        return Done(card_id, since, until)
    return Done(
        card_id,
        since,
        until,
        clips=clips,
        clips_per_hour=3600 * clips / span_s if clips else None,
        frames_per_minute=60 * total("frames") / span_s if clips else None,
        seconds_per_step=total("denoise_s") / steps if steps else None,
        wh_per_clip=total("drawn_wh") / metered if metered else None,
        success_rate=total("finished") / ended if ended else None,
        utilization=min(1.0, busy_s / span_s),
        parts=None if begins is None else {begins[row.part]: int(row.clips) for row in rows if row.clips},
    )
