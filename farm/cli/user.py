"""`farm user`: accounts, made and taken away on the head."""

from typing import Annotated

import typer

from farm.auth import Role
from farm.cli.here import AsJson, Data, database

user = typer.Typer(
    help="Accounts for signing in with a name and a password. On the head PC.", no_args_is_help=True
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The account's name.")]


@user.command("add")
def add(
    name: Name,
    role: Annotated[
        Role,
        typer.Option(
            help="viewer: sees. submitter: also submits, and controls what it submitted. admin: everything."
        ),
    ] = Role.SUBMITTER,
    again: Annotated[
        bool,
        typer.Option("--again", help="For who had this name before: the jobs of the name are theirs again."),
    ] = False,
    data: Data = None,
) -> None:
    """Makes an account. The password is asked for, or read from the first line of the standard input."""
    import time

    from farm.passwords import hash_password
    from farm.store.users import Users

    with database(data, writes=True) as engine:
        users = Users(engine)
        users.check_name(name, time.time(), again=again)  # before anybody types a password
        users.add(name, role, hash_password(_password()), time.time(), again=again)
    typer.echo(f"{name} can sign in as {role}.", err=True)


@user.command("list")
def list_(data: Data = None, as_json: AsJson = False) -> None:
    """Shows the accounts."""
    import json

    from farm.cli.show import ago, table
    from farm.store.users import Users

    with database(data, writes=False) as engine:
        users = Users(engine).all()
    if as_json:
        wanted = ("name", "role", "created_at", "signed_in_at")
        typer.echo(json.dumps([{field: getattr(one, field) for field in wanted} for one in users]))
        return
    rows = [(one.name, one.role, ago(one.created_at), ago(one.signed_in_at)) for one in users]
    table(("name", "role", "made", "signed in"), rows)


@user.command("remove")
def remove(name: Name, data: Data = None) -> None:
    """Takes an account away; its sessions and tokens end at once. Its jobs stay, and nobody else can take its name."""
    import time

    from farm.store.users import Users

    with database(data, writes=True) as engine:
        Users(engine).remove(name, time.time())
    typer.echo(f"{name} cannot sign in any more.", err=True)


def _password() -> str:
    import sys

    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")
