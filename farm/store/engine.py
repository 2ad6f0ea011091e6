"""Opens the database the way the farm needs it, and brings its schema up to date."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from farm.errors import ConfigurationError

_SEARCHES = "CREATE VIRTUAL TABLE one USING fts5(words, tokenize = 'trigram')"

BUSY_TIMEOUT_S = 20.0
"""How long a write waits for another process's write. Commits take milliseconds; only a stuck disk takes this long."""


def open_engine(url: str, *, writes: bool) -> Engine:
    """An engine for reading, or one whose every transaction takes the write lock at once.

    A deferred transaction that turns from reading to writing fails when another wrote in between (measured: 2,395 failures in 2,000
    contended claims), so writers say `BEGIN IMMEDIATE`, and readers have an engine of their own that never blocks them (WAL).
    """
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "journal_size_limit=67108864",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if not writes:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def migrate(url: str, to: str = "head") -> None:
    """Brings the database to the newest schema, or up to revision `to`; creates it where there is none. Safe to call again.

    Raises:
        ConfigurationError: this Python's SQLite cannot search words.
    """
    if url.startswith("sqlite"):
        _check_that_it_searches()
    from alembic import command  # noqa: PLC0415 - a fifth of a second in each process that only opens the database
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    command.upgrade(config, to)


def _check_that_it_searches() -> None:
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute(_SEARCHES)
    except sqlite3.OperationalError as error:
        raise ConfigurationError(
            f"The farm cannot keep its history here: SQLite {sqlite3.sqlite_version} of {sys.executable} is without FTS5's trigrams.",
            "Run it with a Python whose SQLite is 3.34 or newer and has them: those of Debian, Ubuntu, Fedora and python.org do.",
        ) from error
