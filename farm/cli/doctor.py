"""`farm doctor`: looks at this PC and says what is wrong, each with the command that mends it."""

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    head: Annotated[
        str | None,
        typer.Option(help="A head to compare versions with; the one that this PC joined if left out."),
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Where this node keeps its identity, as given to `farm join`.")
    ] = None,
    ray_port: Annotated[
        int | None, typer.Option(min=1024, max=65400, help="Where to look for 120 free ports for Ray.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Checks driver, memory of the cards, torch, Ray, Python, ports, disk and ffmpeg. Exits 1 if something is wrong."""
    import json
    from dataclasses import asdict

    from farm.doctor import Level, diagnose
    from farm.settings import FarmSettings
    from node_agent.checkup import gather, home_here

    settings = FarmSettings()
    place = (home or settings.node_home or home_here()).expanduser().absolute()
    findings = diagnose(gather(place, ray_port or settings.ray_port, head))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            typer.echo(
                f"{finding.level:5} {finding.about:8} {finding.says}"
                + (f"  Mend: {finding.command}" if finding.command else "")
            )
    if any(finding.level is Level.WRONG for finding in findings):
        raise typer.Exit(1)
