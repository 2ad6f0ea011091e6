"""`farm token`: codes for PCs and clients, made on the head."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from farm.auth import Scope
from farm.cli.here import AsJson, Data, database

if TYPE_CHECKING:
    from farm.auth import TokenKind

token = typer.Typer(
    help="Codes for PCs that join and tokens for clients. On the head PC.", no_args_is_help=True
)


class NewKind(StrEnum):
    """What a new token is for."""

    JOIN = "join"
    ADMIN = "admin"


MAY = {
    Scope.READ: "may see everything",
    Scope.SUBMIT: "may submit jobs and control its own",
    Scope.ADMIN: "may do everything",
}


@token.command("new")
def new(
    kind: Annotated[
        NewKind | None,
        typer.Option(help="join: one PC, once. admin: everything, the same as --scope admin."),
    ] = None,
    scope: Annotated[
        Scope | None,
        typer.Option(
            help="For clients and scripts. read: see. submit: also submit, and control what it submitted. admin: everything."
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            help="The account whose token it is: its jobs are that account's, and its role bounds the scope."
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="How long it is good; join: 60 if left out, others: for ever."),
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

    made_kind = _kind(kind, scope, user, name)
    if made_kind != TokenKind.JOIN:
        scope = scope or Scope.ADMIN
    if minutes is None and kind == NewKind.JOIN:
        minutes = 60.0
    now = time.time()
    expires_at = None if minutes is None else now + minutes * 60.0
    made = new_token()
    called = name or (f"{scope} of {user}" if user else f"farm token {kind or scope}")
    with database(data, writes=True) as engine:
        Registry(engine).add_token(
            made, made_kind, called, now, expires_at=expires_at, scope=scope, user=user
        )
    if as_json:
        told = {"token": made, "kind": made_kind.value, "name": name, "expires_at": expires_at}
        typer.echo(json.dumps(told | {"scope": scope, "user": user}))
    else:
        typer.echo(made)
        for_what = "joins one PC, once" if kind == NewKind.JOIN else MAY[scope or Scope.ADMIN]
        if user:
            for_what += f", as far as the role of {user} goes"
        until = "until it is revoked" if minutes is None else f"for {minutes:g} minutes"
        typer.echo(f"It {for_what}; good {until}. It is not shown again.", err=True)


def _kind(kind: NewKind | None, scope: Scope | None, user: str | None, name: str) -> "TokenKind":
    """What kind the options ask for.

    Raises:
        BadInputError: they do not go together.
    """
    from farm.auth import TokenKind
    from farm.errors import BadInputError

    if kind is None and scope is None:
        raise BadInputError(
            "kind", "What is the token for?", "Say --kind join for a PC, --scope for a client."
        )
    if kind == NewKind.JOIN and (scope is not None or user is not None):
        raise BadInputError("scope", "A code for a PC has neither scope nor account.", "Leave --kind out.")
    if kind == NewKind.ADMIN and scope not in (None, Scope.ADMIN):
        raise BadInputError("scope", f"An admin token has no scope {scope}.", "Leave --kind out.")
    if kind == NewKind.JOIN:
        return TokenKind.JOIN
    if user is not None:
        return TokenKind.API
    if kind == NewKind.ADMIN or scope == Scope.ADMIN:
        return TokenKind.ADMIN
    if not name:
        raise BadInputError(
            "name", "Whose are the jobs of this token?", "Say --user ACCOUNT, or --name for a program's own."
        )
    return TokenKind.API


@token.command("revoke")
def revoke(
    called: Annotated[
        str, typer.Argument(metavar="NAME", help="Its name, or its id as `farm token list --json` has it.")
    ],
    every: Annotated[bool, typer.Option("--all", help="All tokens of this name.")] = False,
    data: Data = None,
) -> None:
    """Ends a token at once, and the browser sessions that were opened with it. A PC's own ends with `farm forget`."""
    import time

    from farm.store.users import Users

    with database(data, writes=True) as engine:
        ended = Users(engine).end_tokens(called, time.time(), every=every)
    tokens = "1 token" if ended.tokens == 1 else f"{ended.tokens} tokens"
    sessions = "1 browser session" if ended.sessions == 1 else f"{ended.sessions} browser sessions"
    typer.echo(
        f"Ended {tokens} called {called}" + (f", and {sessions}." if ended.sessions else "."), err=True
    )
    if ended.this_pc:
        typer.echo("It was this PC's own: `farm up`, started again, makes another.", err=True)


@token.command("list")
def list_(data: Data = None, as_json: AsJson = False) -> None:
    """Shows the tokens that the farm gave out, without the tokens themselves."""
    import json
    import time

    import sqlalchemy as sa
    from rich.console import Console
    from rich.table import Table

    from farm.store import schema

    columns = ("id", "kind", "name", "node_id", "created_at", "expires_at", "used_at", "revoked_at", "scope")
    wanted = [*(schema.tokens.c[column] for column in columns), schema.users.c.name.label("user")]
    whose = schema.tokens.outerjoin(schema.users, schema.tokens.c.user_id == schema.users.c.id)
    with database(data, writes=False) as engine, engine.begin() as connection:
        rows = [
            dict(row)
            for row in connection.execute(
                sa.select(*wanted).select_from(whose).order_by(schema.tokens.c.created_at)
            ).mappings()
        ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    now = time.time()
    table = Table("name", "kind", "scope", "account", "state", "made")
    for row in rows:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["created_at"]))
        table.add_row(
            row["name"], row["kind"], row["scope"] or "-", row["user"] or "-", _state(row, now), made
        )
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
