"""`farm up`: the head."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from farm.head import HeadOptions
    from farm.settings import DataDirectory


def up(
    data: Annotated[Path | None, typer.Option(help="Where the farm keeps everything. FARM_DATA.")] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address of the dashboard; 0.0.0.0 for every PC on the network. FARM_HOST."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port of the dashboard. FARM_PORT.")
    ] = None,
    ray_port: Annotated[
        int | None,
        typer.Option(min=1024, max=65400, help="First of the 120 ports that Ray uses. FARM_RAY_PORT."),
    ] = None,
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            help="Encrypt the dashboard and Ray, with certificates of the farm's own. FARM_TLS.",
        ),
    ] = None,
    no_local_node: Annotated[
        bool, typer.Option("--no-local-node", help="Render nothing on this PC.")
    ] = False,
    as_user: Annotated[
        str,
        typer.Option(
            help="Started by root: the user that the farm runs as, whose the data then is. FARM_AS_USER."
        ),
    ] = "",
) -> None:
    """Starts the farm on this PC: Ray, scheduler, dashboard and this PC's own cards. Ctrl-C ends it."""
    import os

    from rich.console import Console

    from farm.certificates import prepare_head
    from farm.cli.here import check_models, directory
    from farm.daemons import RayPorts
    from farm.first_steps import prepare
    from farm.head import Head, HeadOptions
    from farm.settings import FarmSettings
    from farm.single import only_one
    from farm.supervise import Bell
    from farm.unprivileged import step_down

    settings = FarmSettings()
    console = Console(highlight=False, soft_wrap=True, markup=False)  # paths may hold brackets
    check_models(settings)
    if user := as_user or settings.as_user:
        step_down(user, console.print)
    place = directory(data)
    with (
        only_one(
            place.root / "lock",
            f"A farm already runs on {place.root} (process {{pid}}).",
            "Use that one, end it with `kill {pid}`, or choose another directory with --data.",
        ),
        Bell() as bell,
    ):
        options = HeadOptions(
            data=place,
            host=host or settings.host,
            port=port or settings.port,
            ray_ports=RayPorts(ray_port or settings.ray_port),
            object_store_mib=settings.object_store_mib,
            node_id=None if no_local_node else _own_node(place),
            tls=settings.tls if tls is None else tls,
        )
        head = Head(options, os.environ, console.print)
        head.clean_up()
        head.check_ports()
        sign_in = prepare(place)
        if options.tls:
            prepare_head(place.tls, more=(options.host,))
        console.print(f"Starting the farm in {place.root} ...")
        head.run(bell, lambda: _greet(console, options, sign_in))
        console.print("The farm is down. Queue and history are kept; `farm up` goes on from there.")


def _own_node(data: "DataDirectory") -> str:
    """The id of this PC's own node, given on the farm's first start."""
    from farm.ids import new_id
    from node_agent.identity import Identity, default_name, has_identity, load_identity, save_identity

    if not has_identity(data.node_home):
        save_identity(data.node_home, Identity(new_id(), default_name()))
    return load_identity(data.node_home).node_id


def _greet(console: "Console", options: "HeadOptions", sign_in: str) -> None:
    """What a person wants to know once all is ready: where to click, and what others can reach."""
    import os

    from farm.certificates import fingerprint
    from farm.daemons import is_loopback

    address = options.url
    first, last = options.ray_ports.base, options.ray_ports.last
    console.print(f"The farm is ready: {address}", style="green")
    console.print(f"Sign in here:      {address}/signin?token={sign_in}")
    console.print(f"Logs:              {options.data.logs}")
    if options.tls_files is not None:
        ca = options.tls_files.ca
        console.print(f"Its authority:     {ca}, SHA-256 {fingerprint(ca.read_text())}")
        console.print(
            "Browsers warn of it until that file is among their authorities; clients on other PCs name a copy of it in FARM_CA.",
            style="dim",
        )
    if is_loopback(options.host):
        console.print(
            "Only this PC can use it. To let other PCs join, start it with --host 0.0.0.0 or this PC's address."
        )
        console.print(
            f"Ray listens on ports {first} to {last} of all interfaces, guarded by a token. "
            f"To close them: sudo ufw deny {first}:{last}/tcp",
            style="dim",
        )
    else:
        web = "HTTPS" if options.tls else "plain HTTP"
        ray = "token and certificate needed" if options.tls else "token needed; unencrypted"
        network = _network_of(options.ray_host) or "YOUR-NETWORK/24"
        console.print(f"Add a PC:          {address}/cards#add has the line to paste there")
        console.print(
            f"Open to your network: the dashboard on port {options.port} ({web}, sign-in needed) and Ray on ports "
            f"{first} to {last} ({ray}). Never open them to the internet. To allow your own network alone:"
        )
        console.print(f"  sudo ufw allow proto tcp from {network} to any port {options.port},{first}:{last}")
        console.print(f"  sudo ufw deny proto tcp to any port {options.port},{first}:{last}")
    if os.geteuid() == 0 and options.node_id is not None:
        console.print(
            "It runs as root, and so does what this PC renders: start it as an ordinary user, with --as-user NAME, "
            "or with --no-local-node.",
            style="yellow",
        )
    console.print("Ctrl-C ends the farm.")


def _network_of(address: str) -> str | None:
    """The network of one of this PC's addresses, as 192.168.1.0/24."""
    import ipaddress

    import psutil

    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.address == address and one.netmask:
                return str(ipaddress.ip_network(f"{address}/{one.netmask}", strict=False))
    return None
