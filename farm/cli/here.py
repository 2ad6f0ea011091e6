"""What the verbs share that work on this PC's own farm without its head."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

Data = Annotated[Path | None, typer.Option(help="The farm's data directory. FARM_DATA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def database(data: Path | None, *, writes: bool) -> "AbstractContextManager[Engine]":
    """The farm's database, brought up to date.

    Raises:
        ConfigurationError: no farm was ever started in that directory.
    """
    from farm.errors import ConfigurationError
    from farm.settings import DataDirectory, FarmSettings
    from farm.store.engine import migrate, open_engine

    directory = DataDirectory((data or FarmSettings().data).expanduser().absolute())
    if not directory.database.exists():
        raise ConfigurationError(
            f"There is no farm in {directory.root}.",
            "Start one with `farm up`, or name its directory with --data.",
        )

    @contextmanager
    def opened() -> "Iterator[Engine]":
        migrate(directory.database_url)
        engine = open_engine(directory.database_url, writes=writes)
        try:
            yield engine
        finally:
            engine.dispose()

    return opened()
