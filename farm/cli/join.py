"""`farm join`: this PC as a node."""

from pathlib import Path
from typing import Annotated

import typer


def join(
    head: Annotated[str, typer.Argument(help="The head's address, as `farm up` prints it there.")],
    token: Annotated[
        str, typer.Option(help="Code from `farm token new --kind join`; only needed the first time.")
    ] = "",
    name: Annotated[
        str | None, typer.Option(help="What this PC is called in the farm; its host name if left out.")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Where this node keeps identity and unsent results. FARM_NODE_HOME.")
    ] = None,
    ray_port: Annotated[
        int | None,
        typer.Option(min=1024, max=65400, help="Where to look for 120 free ports for Ray. FARM_RAY_PORT."),
    ] = None,
) -> None:
    """Makes this PC a node of a farm and keeps it one: it comes back after every interruption. Ctrl-C ends it."""
    import os

    from rich.console import Console

    from farm.settings import FarmSettings
    from farm.single import only_one
    from farm.supervise import Bell
    from node_agent.identity import default_home
    from node_agent.join import Node, NodeOptions

    settings = FarmSettings()
    console = Console(highlight=False, soft_wrap=True, markup=False)
    place = (home or settings.node_home or default_home()).expanduser().absolute()
    node = Node(
        NodeOptions(
            head=head,
            home=place,
            token=token,
            name=name,
            first_port=ray_port or settings.ray_port,
            object_store_mib=settings.object_store_mib,
        ),
        os.environ,
        lambda line: console.print(line),  # noqa: PLW0108 - print itself takes more than a line
    )
    with (
        only_one(
            place / "lock",
            "This PC is a node already (process {pid}).",
            "End that one with `kill {pid}`, or give another directory with --home.",
        ),
        Bell() as bell,
    ):
        node.run(bell)
        console.print("This PC has left the farm for now; `farm join` without a token brings it back.")
