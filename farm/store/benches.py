"""What cards' own benches (`farm bench`) measured, of all PCs: the scheduler adds what nodes report, everyone reads."""

from collections.abc import Iterable
from dataclasses import asdict

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
        benches = schema.benches
        last = sa.func.max(benches.c.at).over(
            partition_by=(benches.c.card_id, benches.c.model, benches.c.setting)
        )
        numbered = sa.select(benches.c.row, benches.c.at, benches.c.setting, last.label("last")).subquery()
        wanted = (
            sa.select(numbered.c.row)
            .where(numbered.c.at == numbered.c.last)
            .order_by(numbered.c.at.desc(), numbered.c.setting)
        )
        with self._engine.connect() as connection:
            return [_ROW.validate_python(row) for row in connection.scalars(wanted)]

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


def _shape(row: BenchResult) -> str:
    one = row.setting
    return f"{one.name} {one.width}x{one.height}x{one.frames}, {one.steps} steps, {one.guidance:g}"
