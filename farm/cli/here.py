"""What the verbs share that work on this PC's own farm without its head."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from farm.settings import DataDirectory, FarmSettings

Data = Annotated[Path | None, typer.Option(help="The farm's data directory. FARM_DATA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def directory(data: Path | None) -> "DataDirectory":
    """The farm's data directory: the one that was named, or FARM_DATA."""
    from farm.settings import DataDirectory, FarmSettings

    return DataDirectory((data or FarmSettings().data).expanduser().absolute())


def check_models(settings: "FarmSettings") -> None:
    """Reads the farm's own models, before what is started here would end of them again and again, and says to it where they lie.

    Ray's processes run in other directories, so that a path from this one would name nothing there.

    Raises:
        ConfigurationError: they cannot be read.
    """
    import os

    from farm.catalogue.models import load_models

    if settings.models_file is not None:
        file = settings.models_file.expanduser().absolute()
        load_models(file)
        os.environ["FARM_MODELS_FILE"] = str(file)


def database(data: Path | None, *, writes: bool) -> "AbstractContextManager[Engine]":
    """The farm's database, brought up to date.

    Raises:
        ConfigurationError: no farm was ever started in that directory.
    """
    from farm.errors import ConfigurationError
    from farm.store.engine import migrate, open_engine

    where = directory(data)
    if not where.database.exists():
        raise ConfigurationError(
            f"There is no farm in {where.root}.",
            "Start one with `farm up`, or name its directory with --data.",
        )

    @contextmanager
    def opened() -> "Iterator[Engine]":
        migrate(where.database_url)
        engine = open_engine(where.database_url, writes=writes)
        try:
            yield engine
        finally:
            engine.dispose()

    return opened()
