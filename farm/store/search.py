"""Jobs by words of their prompts.

The prompts lie in a table of their own with their capitals folded: 100,000 of them are read through in 10 ms, in 17 with 200 letters
each. Finding each in the settings of its job took 110, and folding it while reading 30 (`benchmarks/pages.py`).
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from farm.store import schema

FEW: Final = 500
"""Jobs that are looked up one by one, in a millisecond or two."""


def folded(text: str) -> str:
    """A prompt, or words of one, without regard for capitals in any script."""
    return text.casefold()


def alone(q: str, *, newest: bool, cursor: int | None, most: int) -> sa.ColumnElement[bool]:
    """Of a job: it is one of the `most` first by number, newest or oldest, that have `q` in their prompts and come after `cursor`.

    Prompts are read in that order until there are as many.
    """
    seq = schema.prompts.c.seq
    found = _with_words(q).order_by(seq.desc() if newest else seq).limit(most)
    if cursor is not None:
        found = found.where(seq < cursor if newest else seq > cursor)
    return schema.jobs.c.seq.in_(found)


def among_others(connection: Connection, q: str) -> sa.ColumnElement[bool]:
    """Of a job that has other conditions to meet too, or is sorted by something else than its number: its prompt has `q` in it.

    Few jobs that have it are named. Where more do, the other conditions and the order lead, and each job's prompt is looked at until a
    page is full, which with that many is soon. Where they all lie far back (words of one old batch), only jobs from the first to the last
    that has them are looked at: 20 ms for 80,000 passed over, not 45. The sum, which no index knows, keeps SQLite from beginning there.
    """
    seq, found = schema.prompts.c.seq, _with_words(q)
    first = connection.scalars(found.order_by(seq).limit(FEW + 1)).all()
    if len(first) <= FEW:
        return schema.jobs.c.seq.in_(first)
    last = connection.scalars(found.order_by(seq.desc()).limit(1)).one()
    has_it = found.where(seq == schema.jobs.c.seq).correlate(schema.jobs).exists()
    return sa.and_((schema.jobs.c.seq + 0).between(first[0], last), has_it)


def _with_words(q: str) -> sa.Select[tuple[int]]:
    """Numbers of the jobs that have `q` in their prompts, as it stands there."""
    prompts = schema.prompts
    return sa.select(prompts.c.seq).where(prompts.c.folded.contains(folded(q), autoescape=True))
