"""Jobs by words of their prompts.

The prompts lie in a table of their own with their capitals folded, under SQLite with an index of each three letters that follow one another
(FTS5, trigram): words are found in well under a millisecond in a history of any length. Words of one or two letters, and other databases,
read the prompts through: 100,000 in 10 ms, in 17 with 200 letters each. (docs/decisions/0026)
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from farm.store.schema import jobs, prompts, words

FEW: Final = 500
"""Jobs that are looked up one by one, in a millisecond or two."""
SHORTEST: Final = 3
"""Letters that the index knows."""


def note_prompt(connection: Connection, seq: int, prompt: str) -> None:
    """Lets the words of a job be found, which has just been stored as number `seq`. A prompt never changes."""
    kept = folded(prompt)
    connection.execute(sa.insert(prompts).values(seq=seq, folded=kept))
    if _is_indexed(connection):
        connection.execute(sa.insert(words).values(rowid=seq, folded=kept))


def folded(text: str) -> str:
    """A prompt, or words of one, without regard for capitals in any script."""
    return text.casefold()


def alone(
    connection: Connection, q: str, *, newest: bool, cursor: int | None, most: int
) -> sa.ColumnElement[bool]:
    """Of a job: it is one of the `most` first by number, newest or oldest, that have `q` in their prompts and come after `cursor`.

    They are gone through in that order until there are as many.
    """
    found, seq = _with_words(connection, q)
    found = found.order_by(seq.desc() if newest else seq).limit(most)
    if cursor is not None:
        found = found.where(seq < cursor if newest else seq > cursor)
    return jobs.c.seq.in_(found)


def among_others(connection: Connection, q: str) -> sa.ColumnElement[bool]:
    """Of a job that has other conditions to meet too, or is sorted by something else than its number: its prompt has `q` in it.

    Few jobs that have it are named. Where more do, the other conditions and the order lead, and each job's prompt is looked at until a
    page is full, which with that many is soon. Where they all lie far back (words of one old batch), only jobs from the first to the last
    that has them are looked at. The sum, which no index knows, keeps SQLite from beginning there.
    """
    found, seq = _with_words(connection, q)
    first = connection.scalars(found.order_by(seq).limit(FEW + 1)).all()
    if len(first) <= FEW:
        return jobs.c.seq.in_(first)
    last = connection.scalars(found.order_by(seq.desc()).limit(1)).one()
    has_it = sa.exists().where(prompts.c.seq == jobs.c.seq, _holds(q)).correlate(jobs)
    return sa.and_((jobs.c.seq + 0).between(first[0], last), has_it)


def _with_words(connection: Connection, q: str) -> tuple[sa.Select[tuple[int]], sa.ColumnElement[int]]:
    """Numbers of the jobs that have `q` in their prompts, as it stands there; and what they are quickest put in order by."""
    found, looked_for = sa.select(prompts.c.seq), folded(q)
    # A zero byte would end the question to the index in the middle.
    if len(looked_for) < SHORTEST or "\0" in looked_for or not _is_indexed(connection):
        return found.where(_holds(q)), prompts.c.seq
    phrase = '"' + looked_for.replace('"', '""') + '"'
    found = found.join(words, words.c.rowid == prompts.c.seq).where(words.c.folded.match(phrase))
    return found, words.c.rowid


def _holds(q: str) -> sa.ColumnElement[bool]:
    return prompts.c.folded.contains(folded(q), autoescape=True)


def _is_indexed(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
