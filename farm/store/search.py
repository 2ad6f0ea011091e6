"""Jobs by words of their prompts.

The prompts lie in a table of their own with their capitals folded: 100,000 of them are read through in 10 ms, in 17 with 200 letters
each. Finding each in the settings of its job took 110, and folding it while reading 30 (`benchmarks/pages.py`).
"""

import sqlalchemy as sa

from farm.store import schema


def folded(text: str) -> str:
    """A prompt, or words of one, without regard for capitals in any script."""
    return text.casefold()


def with_words(q: str) -> sa.Select[tuple[int]]:
    """The numbers of the jobs whose prompt has `q` in it as it stands there, in capitals or not."""
    prompts = schema.prompts
    return sa.select(prompts.c.seq).where(prompts.c.folded.contains(folded(q), autoescape=True))


def among_others(q: str) -> sa.ColumnElement[bool]:
    """Of a job that has other conditions to meet, or is sorted by something else than its number: its prompt has `q` in it.

    No index knows the sum, so those of the other conditions lead. Else SQLite would look up every job that has the words (60 ms).
    """
    return (schema.jobs.c.seq + 0).in_(with_words(q))


def alone(q: str, *, newest: bool, cursor: int | None, most: int) -> sa.ColumnElement[bool]:
    """Of a job: it is one of the `most` first by number, newest or oldest, that have `q` in their prompts and come after `cursor`.

    Prompts are read from there on until there are as many: for a common word few, where all would be gathered first.
    """
    seq = schema.prompts.c.seq
    found = with_words(q).order_by(seq.desc() if newest else seq).limit(most)
    if cursor is not None:
        found = found.where(seq < cursor if newest else seq > cursor)
    return schema.jobs.c.seq.in_(found)
