"""`farm token`: codes for PCs and clients, made on the head."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Engine

token = typer.Typer(
    help="Codes for PCs that join and tokens for clients. On the head PC.", no_args_is_help=True
)


class NewKind(StrEnum):
    """What a new token is for."""

    JOIN = "join"
    ADMIN = "admin"


Data = Annotated[Path | None, typer.Option(help="The farm's data directory. FARM_DATA.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@token.command("new")
def new(
    kind: Annotated[
        NewKind, typer.Option(help="join: one PC, once. admin: everything, for clients and scripts.")
    ],
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="How long it is good; join: 60 if left out, admin: for ever."),
    ] = None,
    name: Annotated[str, typer.Option(help="A name to know it by in the list.")] = "",
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Makes a token and prints it. It is shown this once: the farm keeps only its hash."""
    import json
    import time

    from farm.auth import TokenKind, new_token
    from farm.store.registry import Registry

    if minutes is None and kind == NewKind.JOIN:
        minutes = 60.0
    now = time.time()
    expires_at = None if minutes is None else now + minutes * 60.0
    made = new_token()
    with _database(data, writes=True) as engine:
        Registry(engine).add_token(
            made, TokenKind(kind.value), name or f"farm token {kind}", now, expires_at=expires_at
        )
    if as_json:
        typer.echo(json.dumps({"token": made, "kind": kind.value, "name": name, "expires_at": expires_at}))
    else:
        typer.echo(made)
        for_what = "joins one PC, once" if kind == NewKind.JOIN else "may do everything"
        until = "until it is revoked" if minutes is None else f"for {minutes:g} minutes"
        typer.echo(f"It {for_what}; good {until}. It is not shown again.", err=True)


@token.command("list")
def list_(data: Data = None, as_json: AsJson = False) -> None:
    """Shows the tokens that the farm gave out, without the tokens themselves."""
    import json
    import time

    import sqlalchemy as sa
    from rich.console import Console
    from rich.table import Table

    from farm.store import schema

    columns = ("id", "kind", "name", "node_id", "created_at", "expires_at", "used_at", "revoked_at")
    wanted = [schema.tokens.c[column] for column in columns]
    with _database(data, writes=False) as engine, engine.begin() as connection:
        rows = [
            dict(row)
            for row in connection.execute(sa.select(*wanted).order_by(schema.tokens.c.created_at)).mappings()
        ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    now = time.time()
    table = Table("name", "kind", "state", "made")
    for row in rows:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created_at"]))
        table.add_row(row["name"], row["kind"], _state(row, now), made)
    Console(highlight=False, markup=False).print(table)


def _state(row: "dict[str, float | None]", now: float) -> str:
    """A token's state in a few words."""
    import time

    if row["revoked_at"] is not None:
        return "revoked"
    if row["used_at"] is not None:
        return "used"
    expires = row["expires_at"]
    if expires is None:
        return "good"
    if expires <= now:
        return "expired"
    return f"good until {time.strftime('%Y-%m-%d %H:%M', time.localtime(expires))}"


def _database(data: Path | None, *, writes: bool) -> "AbstractContextManager[Engine]":
    """The farm's database, brought up to date.

    Raises:
        ConfigurationError: no farm was ever started in that directory.
    """
    from contextlib import contextmanager

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
