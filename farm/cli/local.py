"""Verbs for the owner of this PC: `farm local pause`, `farm local resume`, `farm leave`. They work without the head."""

from pathlib import Path
from typing import Annotated

import typer

local = typer.Typer(help="This PC, for its owner: pause and resume.", no_args_is_help=True)

Home = Annotated[
    Path | None, typer.Option(help="Where this node keeps its identity, as given to `farm join`.")
]


@local.command()
def pause(home: Home = None) -> None:
    """The farm leaves this PC's cards within two seconds. What it renders goes on elsewhere. Holds until `farm local resume`."""
    from node_agent import pause as switch

    place = _node_home(home)
    switch.pause(place)
    typer.echo("Paused. The farm leaves this PC's cards now; `farm local resume` lets it work here again.")


@local.command()
def resume(home: Home = None) -> None:
    """The farm may work on this PC again."""
    from node_agent import pause as switch

    was = switch.resume(_node_home(home))
    typer.echo("The farm may work here again." if was else "It was not paused.")


def leave(
    home: Home = None,
    uninstall: Annotated[
        bool,
        typer.Option(
            "--uninstall", help="Remove this node's files too, and the programs that the join line installed."
        ),
    ] = False,
) -> None:
    """This PC leaves its farm for good: renders go on elsewhere, results are fetched first."""
    from farm.settings import FarmSettings
    from node_agent import leave as leaving
    from node_agent.identity import default_home

    place = (home or FarmSettings().node_home or default_home()).expanduser().absolute()
    leaving.leave(place, typer.echo, uninstall=uninstall)


def _node_home(home: Path | None) -> Path:
    """The home of this PC's node: the one named, else that of `farm join`, else that of the head's own node."""
    from farm.errors import ConfigurationError
    from farm.settings import DataDirectory, FarmSettings
    from node_agent.identity import default_home, has_identity

    settings = FarmSettings()
    named = home or settings.node_home
    places = [named] if named is not None else [default_home(), DataDirectory(settings.data).node_home]
    for place in places:
        found = place.expanduser().absolute()
        if has_identity(found):
            return found
    looked = " nor in ".join(str(place) for place in places)
    raise ConfigurationError(
        f"This PC is no node of a farm: there is no identity in {looked}.",
        "Give the node's directory with --home if it is another one.",
    )
