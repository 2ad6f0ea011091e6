"""`farm batch DIR`: every picture of a folder."""

import re
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from farm.cli.options import (
    Anywhere,
    Fps,
    Frames,
    Guidance,
    Height,
    Model,
    Motion,
    Needs,
    NegativePrompt,
    Preset,
    Priority,
    Prompt,
    Seed,
    Smooth,
    Steps,
    Strength,
    Width,
    given,
)
from farm.cli.show import Head, Token

LOOK_S = 2.0
"""Between two looks at the folder and at the jobs."""


def batch(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", exists=True, file_okay=False, show_default=False, help="PNG, JPEG and WebP files."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="Wait, and put the clips here, named as their pictures."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="The batch's name; default: the folder's. The same name goes on with the same batch."
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with pictures that come later, until Ctrl-C.")
    ] = False,
    prompt: Prompt = None,
    negative_prompt: NegativePrompt = None,
    preset: Preset = None,
    model: Model = None,
    width: Width = None,
    height: Height = None,
    frames: Frames = None,
    steps: Steps = None,
    guidance: Guidance = None,
    fps: Fps = None,
    smooth: Smooth = None,
    seed: Seed = None,
    motion: Motion = None,
    strength: Strength = None,
    priority: Priority = None,
    anywhere: Anywhere = False,
    needs: Needs = None,
    head: Head = None,
    token: Token = None,
) -> None:
    """Send every picture of a folder with the same settings. Run it again to go on where it was broken off."""
    settings = given(locals())

    from farm.cli.show import writing
    from farm.client import Farm
    from farm.folders import FolderBatch

    if out is not None:
        with writing(out):  # now, and not when the first clip is done
            out.mkdir(parents=True, exist_ok=True)
    with Farm.local(head, token) as farm:
        work = FolderBatch(farm, folder, name or _named(folder), settings, out)
        try:
            _go(work, wait=out is not None, watch=watch)
        except KeyboardInterrupt:
            typer.echo(
                "\nStopped watching; the farm goes on. Run the same line again to fetch the rest.", err=True
            )
            raise typer.Exit(130) from None
        failed = [path for path, job in work.ended.items() if job.status != "finished"]
    if failed or work.refused or work.unfetched:
        raise typer.Exit(1)


def _named(folder: Path) -> str:
    """The folder's own name, in the letters that a batch's name may have."""
    return re.sub(r"[^\w .-]", "-", folder.absolute().name).lstrip(" .-")[:80] or "batch"


def _go(work: Any, *, wait: bool, watch: bool) -> None:
    """Sends, and while there is something to wait for fetches; bears a head that restarts meanwhile."""
    from farm.client import ABSENCE_S
    from farm.errors import HeadUnreachableError

    told: set[str] = set()
    heard: float | None = None
    silent = False
    while True:
        try:
            # From the second look on a file that appears may still be growing.
            _send(work, settled=heard is not None)
            if heard is None:
                typer.echo(
                    f"Batch {work.name}: {len(work.jobs)} jobs, {work.farm.head}/jobs?batch={_quoted(work.name)}"
                )
            if wait or watch:
                _fetch(work, told, wait=wait)
            heard, silent = time.monotonic(), False
        except HeadUnreachableError as error:
            if heard is None or time.monotonic() - heard > ABSENCE_S:
                raise
            if not silent:
                typer.echo(f"{error.message} Its renders go on; asking again.", err=True)
            silent = True
        if not silent and not watch and (not wait or work.done):
            return
        time.sleep(LOOK_S)


def _send(work: Any, *, settled: bool) -> None:
    """Sends what is new; each picture is a line."""
    refused = set(work.refused)
    for path in work.send_new(settled=settled):
        typer.echo(f"{path.name}: job {work.jobs[path]}")
    for path in work.refused.keys() - refused:
        typer.echo(
            f"{path.name}: {work.refused[path].message} {work.refused[path].remedy}".rstrip(), err=True
        )


def _fetch(work: Any, told: set[str], *, wait: bool) -> None:
    """Fetches what has ended; `told` are the reasons why no card takes a picture that were said already."""
    for path in work.fetch_ended():
        job = work.ended[path]
        if path in work.unfetched:
            typer.echo(f"{path.name}: finished, but not fetched: {work.unfetched[path]}", err=True)
            continue
        said = f"in {work.clip_of(path)}" if job.status == "finished" and wait else job.failure or ""
        typer.echo(f"{path.name}: {job.status} {said}".rstrip(), err=job.status != "finished")
    for why in sorted(set(work.stuck.values()) - told):
        told.add(why)
        many = sum(each == why for each in work.stuck.values())
        typer.echo(f"No card yet for {many} of the pictures. {why}", err=True)


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")
