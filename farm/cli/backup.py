"""`farm backup` and `farm restore`: a farm in one file. On the head PC."""

from pathlib import Path
from typing import Annotated

import typer

from farm.cli.here import Data

File = Annotated[Path, typer.Argument(metavar="FILE", dir_okay=False, help="A tar file.")]


def backup(file: File, data: Data = None) -> None:
    """Writes the farm's database, pictures and clips into FILE, while the farm runs."""
    from farm.backup import back_up
    from farm.cli.here import directory

    done = back_up(directory(data), file.absolute())
    typer.echo(f"{file}: the database and {done.files} files, {done.size / 1e6:.1f} MB.", err=True)
    if done.missing:
        typer.echo(f"{done.missing} files that jobs name are not there, and so not in it.", err=True)


def restore(file: File, data: Data = None) -> None:
    """Makes the farm what it was when FILE was written. Refuses while it runs."""
    import time

    from farm.backup import restore as restore_from
    from farm.cli.here import directory

    aside = restore_from(directory(data), file.absolute(), time.time())
    typer.echo("Restored; start it with `farm up`.", err=True)
    if aside is not None:
        typer.echo(f"The database that was there is {aside} now.", err=True)
