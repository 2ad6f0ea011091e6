"""What cards' own benches (`farm bench`) measured, of all PCs: the scheduler adds what nodes report, everyone reads."""

from collections.abc import Iterable
from dataclasses import asdict
from functools import lru_cache

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.engine import Engine

from farm.own_bench import BenchResult
from farm.store import schema

_ROW: TypeAdapter[BenchResult] = TypeAdapter(BenchResult)


class Benches:
    """`add` needs an engine opened with `writes=True`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def rows(self) -> list[BenchResult]:
        """All rows, newest first."""
        benches = schema.benches
        with self._engine.connect() as connection:
            stored = connection.scalars(
                sa.select(benches.c.row).order_by(benches.c.at.desc(), benches.c.setting)
            )
            return [_ROW.validate_python(row) for row in stored]

    def newest(self) -> list[BenchResult]:
        """Of each card, model and setting the newest row, newest first."""
        with self._engine.connect() as connection:
            return [_read(row) for row in connection.scalars(_NEWEST)]

    def add(self, rows: Iterable[BenchResult]) -> list[BenchResult]:
        """Stores those rows that are not there yet, and returns them. What stands for a row is its card, model, setting and time."""
        benches = schema.benches
        added = []
        with self._engine.begin() as connection:
            for row in rows:
                key = {
                    "card_id": row.card_id,
                    "model": row.model,
                    "setting": _shape(row),
                    "at": row.at,
                }
                same = sa.and_(*(benches.c[name] == value for name, value in key.items()))
                if connection.scalar(sa.select(benches.c.at).where(same)) is None:
                    connection.execute(sa.insert(benches).values(**key, row=asdict(row)))
                    added.append(row)
        return added


def _newest() -> sa.Select[str]:
    benches = schema.benches
    last = sa.func.max(benches.c.at).over(
        partition_by=(benches.c.card_id, benches.c.model, benches.c.setting)
    )
    stored = sa.cast(benches.c.row, sa.Text).label("stored")
    numbered = sa.select(stored, benches.c.at, benches.c.setting, last.label("last")).subquery()
    return (
        sa.select(numbered.c.stored)
        .where(numbered.c.at == numbered.c.last)
        .order_by(numbered.c.at.desc(), numbered.c.setting)
    )


_NEWEST = _newest()
"""Made once: putting it together takes as long as the answer."""


@lru_cache(maxsize=2048)
def _read(stored: str) -> BenchResult:
    """A row from its JSON. Rows never change, and two pages ask for all of them: each is read once."""
    return _ROW.validate_json(stored)


def _shape(row: BenchResult) -> str:
    one = row.setting
    return f"{one.name} {one.width}x{one.height}x{one.frames}, {one.steps} steps, {one.guidance:g}"
