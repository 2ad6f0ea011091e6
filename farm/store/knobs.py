"""Settings that were changed on the page, in the store: every change with when and by whom, so that it can be asked who did it."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from farm.knobs import Change, Value
from farm.store import schema
from farm.store.requests import RequestKind


class KnobStore:
    """Reads on any engine; `change` needs one opened with `writes=True`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def newest(self) -> dict[str, Change]:
        """The last change of each setting that was ever changed."""
        with self._engine.connect() as connection:
            rows = connection.execute(_NEWEST).all()
        return {row.name: Change(row.value, row.changed_at, row.changed_by) for row in rows}

    def change(self, values: Mapping[str, Value], by: str, now: float) -> None:
        """Stores new values (None: the default again) and leaves the scheduler word, both or neither."""
        rows = [
            {"name": name, "value": value, "changed_at": now, "changed_by": by}
            for name, value in values.items()
        ]
        if not rows:
            return
        with self._engine.begin() as connection:
            connection.execute(sa.insert(schema.settings), rows)
            connection.execute(
                sa.insert(schema.requests).values(kind=RequestKind.SETTINGS, created_at=now, requested_by=by)
            )


_NEWEST = sa.select(schema.settings).where(
    schema.settings.c.id.in_(sa.select(sa.func.max(schema.settings.c.id)).group_by(schema.settings.c.name))
)
