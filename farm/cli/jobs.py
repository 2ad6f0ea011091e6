"""Verbs about jobs: submit, jobs, show, cancel, retry, rate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.options import (
    CLIP,
    HANDLING,
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
from farm.cli.show import Head, Json, Token, ago, duration, gib, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from farm.animation import ClipFormat
    from farm.answers.jobs import JobView
    from farm.client import Farm

JobId = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
JobIds = Annotated[list[str], typer.Argument(metavar="JOB...", help="Ids of jobs.")]
Loop = Annotated[int, typer.Option(min=0, max=65_535, help="How often a .gif or .webp plays; 0 for ever.")]


def submit(
    image: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGE",
            exists=True,
            dir_okay=False,
            show_default=False,
            help="PNG, JPEG or WebP. With --again only needed if the head lacks it.",
        ),
    ] = None,
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
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is done, and show the progress.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save the clip here, as .mp4, .gif or .webp; means --wait too."),
    ] = None,
    loop: Loop = 0,
    again: Annotated[
        Path | None,
        typer.Option(
            metavar="CLIP.mp4",
            exists=True,
            dir_okay=False,
            help="Make this clip (MP4, GIF or WebP) again: its settings and picture, save what other options change.",
        ),
    ] = None,
    other_picture: Annotated[
        bool, typer.Option("--other-picture", help="With --again: IMAGE need not be the clip's picture.")
    ] = False,
    head: Head = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Send one picture to be made into a clip, or make a clip again."""
    options, how = given(locals(), CLIP), given(locals(), HANDLING)

    from farm.again import read_recipe
    from farm.cli.again import submit_again
    from farm.client import Farm
    from farm.errors import BadInputError

    kind = _kind_of(output, loop)
    recipe = None if again is None else read_recipe(again)
    if image is None and recipe is None:
        raise BadInputError(
            "image", "No picture is named.", "Write farm submit IMAGE, or farm submit --again CLIP.mp4"
        )
    if other_picture and (recipe is None or image is None):
        raise BadInputError(
            "image", "--other-picture needs a clip and a picture.", "Write farm submit --again CLIP.mp4 IMAGE"
        )
    with Farm.local(head, token) as farm:
        if recipe is None:
            job = farm.submit(image, **options, **how)
        else:
            job = submit_again(farm, recipe, image, options, other_picture=other_picture, **how)
        if not as_json:
            typer.echo(f"Job {job.id} is queued: {farm.head}{job.urls.page}")
        if wait or output is not None:
            job = _wait(farm, job)
        if as_json:
            typer.echo(job.model_dump_json(indent=2))
        if output is not None and job.status == "finished":
            farm.video(job.id, output, kind=kind, loop=loop)
        if wait or output is not None:
            _say_end(job, output, quiet=as_json)


def _kind_of(output: Path | None, loop: int) -> "ClipFormat":
    """The format of the file to save, of which nobody has found out yet that it cannot be made.

    Raises:
        BadInputError: field "output": no such file can be made; "loop": it is none that says how often it plays.
    """
    from farm.animation import ClipFormat, format_of
    from farm.errors import BadInputError

    kind = ClipFormat.MP4 if output is None else format_of(output)
    if loop and kind is ClipFormat.MP4:
        raise BadInputError(
            "loop",
            "Only a GIF or WebP says how often it plays.",
            "Name one with --output, or leave --loop out.",
        )
    if output is not None:
        _check_place(output)
    return kind


def _check_place(output: Path) -> None:
    """Before anything is sent: a render may take hours, and then its clip would have nowhere to go.

    Raises:
        BadInputError: field "output": no file can be made there.
    """
    import os

    from farm.errors import BadInputError

    folder = output.absolute().parent
    why, remedy = "", "Name another file."
    try:
        if not (os.access(folder, os.W_OK | os.X_OK) and folder.is_dir()):
            why, remedy = (
                f"there is no directory {folder} that you may write in",
                "Make it, or name another file.",
            )
        elif output.is_dir():
            why, remedy = "it is a directory", f"Name a file in it: --output {output / 'clip.mp4'}"
    except OSError as error:  # such as a name that is too long
        why = error.strerror or str(error)
    if why:
        raise BadInputError("output", f"The clip cannot be saved as {output}: {why}.", remedy)


def _wait(farm: "Farm", job: "JobView") -> "JobView":
    """Shows a job's progress until it ends. Ctrl-C stops the watching only."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from farm.cli.show import console

    columns = (
        TextColumn("{task.description}", markup=False),  # the name of a PC may hold brackets
        BarColumn(),
        TextColumn("{task.fields[left]}"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console(err=True), transient=True) as progress:
            task = progress.add_task("queued", total=None, left="")
            told: set[str] = set()

            def follow(now: "JobView") -> None:
                if now.unplaceable is not None and not now.ended and now.unplaceable not in told:
                    # In full, and into a pipe too: beside the bar there is room for its begin only, and the wait may have no end.
                    told.add(now.unplaceable)
                    progress.console.print(
                        f"Job {now.id} waits for a card that does not exist yet. {now.unplaceable}",
                        markup=False,
                        soft_wrap=True,
                    )
                live = now.progress
                progress.update(
                    task,
                    description=_doing(now),
                    completed=live.done if live else 0,
                    total=live.total if live and live.total else None,
                    left=f"{duration(live.eta_s)} left" if live and live.eta_s is not None else "",
                )

            return farm.wait(job.id, follow)
    except KeyboardInterrupt:
        typer.echo(
            f"\nStopped watching; job {job.id} goes on. `farm show {job.id}` shows it, and with `--output clip.mp4` saves its clip once "
            f"it is finished; `farm cancel {job.id}` ends it.",
            err=True,
        )
        raise typer.Exit(130) from None


def _doing(job: "JobView") -> str:
    if job.cancel_requested:
        return "stopping"
    if job.status == "running":
        phase = job.progress.phase if job.progress and job.progress.phase else "running"
        return f"{phase} on {job.card_name}" if job.card_name else phase
    return f"queued: {job.why_pending}" if job.why_pending else str(job.status)


def _say_end(job: "JobView", output: Path | None, *, quiet: bool) -> None:
    if job.status == "finished":
        if not quiet:
            typer.echo(
                f"Finished{' (a draft)' if job.draft else ''}." + (f" Saved as {output}." if output else "")
            )
        return
    typer.echo(f"farm: Job {job.id} {job.status}{f': {job.failure}' if job.failure else '.'}", err=True)
    typer.echo(
        f"      `farm show {job.id} --log` tells what happened; `farm retry {job.id}` tries again.", err=True
    )
    raise typer.Exit(1)


def jobs(
    status: Annotated[
        str | None, typer.Option(help="queued, running, finished, failed or cancelled.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Of this model.")] = None,
    card: Annotated[str | None, typer.Option(help="Tried on this card (its id).")] = None,
    q: Annotated[str | None, typer.Option("--q", help="With these words in the prompt.")] = None,
    batch: Annotated[str | None, typer.Option(help="Of this batch.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 20,
    cursor: Annotated[int | None, typer.Option(help="Go on from where the last list ended.")] = None,
    head: Head = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    from farm.client import Farm

    with Farm.local(head, token) as farm:
        page = farm.jobs(status=status, model=model, card=card, q=q, batch=batch, cursor=cursor, limit=limit)
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    if not page.jobs:
        asked = any((status, model, card, q, batch, cursor))
        typer.echo("No job matches." if asked else "No jobs yet. `farm submit IMAGE` makes the first one.")
        return
    rows = [
        [
            job.id,
            _state(job),
            job.preset or job.model,
            job.card_name or "-",
            (_expected(job) or "-").partition(" (")[0],
            ago(job.created_at),
            job.prompt[:60],
        ]
        for job in page.jobs
    ]
    table(["Job", "State", "Preset", "Card", "Done", "Submitted", "Prompt"], rows)
    if page.cursor is not None:
        typer.echo(f"There are more: --cursor {page.cursor}")


def _state(job: "JobView") -> str:
    if job.cancel_requested:
        return f"{job.status}, stopping"
    if job.progress and job.progress.total:
        return f"{job.status} {100 * job.progress.done // job.progress.total} %"
    if job.status == "finished" and job.draft:
        return "finished (draft)"
    if job.unplaceable:
        return "cannot be placed"
    waits = job.status == "queued" and job.position
    return f"queued, number {job.position} in the queue" if waits else str(job.status)


def show(
    job_id: JobId,
    log: Annotated[bool, typer.Option("--log", help="Print what happened to it, line by line.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save its clip here, as .mp4, .gif or .webp.")
    ] = None,
    loop: Loop = 0,
    head: Head = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Show a job: its settings, where it stands and why, and its attempts; or save its clip."""
    from farm.client import Farm

    kind = _kind_of(output, loop)
    with Farm.local(head, token) as farm:
        if output is not None:
            farm.video(job_id, output, kind=kind, loop=loop)
            if not (log or as_json):
                typer.echo(f"Saved as {output}.")
                return
        if log:
            typer.echo(farm.log(job_id), nl=False)
            return
        job = farm.job(job_id)
        address = f"{farm.head}{job.urls.page}"
    if as_json:
        typer.echo(job.model_dump_json(indent=2))
        return
    settings = job.settings
    lines = {
        "Job": job.id,
        "State": _state(job),
        "Done": _expected(job),
        "Waits": None if job.unplaceable else job.why_pending,
        "No card": job.unplaceable,
        "Failed": job.failure,
        "Prompt": job.prompt or None,
        "Settings": f"{job.preset or job.model}: {settings.width} x {settings.height}, {settings.frames} frames, "
        + (
            f"motion {settings.motion}, strength {settings.strength:g}, "
            if job.draft
            else f"{settings.steps} steps, guidance {settings.guidance:g}, "
        )
        + f"{settings.fps} fps, "
        + (f"smoothed to {settings.smooth} fps, " if settings.smooth is not None else "")
        + f"seed {settings.seed}",
        "Submitted": ago(job.created_at),
        "Rating": f"{job.rating} of 5" if job.rating else None,
        "Energy": f"{job.energy_wh:.2f} Wh" if job.energy_wh is not None else None,
        "Page": address,
    }
    table(["", ""], [[name, value] for name, value in lines.items() if value])
    if len(job.stages) > 1:
        typer.echo()
        rows = [[one.stage, one.status, one.card_name or "-", duration(one.seconds)] for one in job.stages]
        table(["Stage", "State", "Card", "Took"], rows)
    if job.attempts:
        typer.echo()
        rows = [
            [
                str(one.number),
                one.stage,
                one.card_name,
                one.status,
                duration(one.finished_at - one.assigned_at if one.finished_at else None),
                gib(one.peak_gib),
                " ".join([*one.notes, one.reason or ""]).strip() or "-",
            ]
            for one in job.attempts
        ]
        table(["Attempt", "Stage", "Card", "State", "Took", "Peak", "What happened"], rows)


def _expected(job: "JobView") -> str | None:
    """When it is expected to be done, by this PC's clock: "about 14:05 (14:01 to 14:20)"."""
    from datetime import datetime

    if job.eta is None:
        return None
    now = datetime.now().astimezone()
    at, low, high = (
        datetime.fromtimestamp(when).astimezone() for when in (job.eta.at, job.eta.low_at, job.eta.high_at)
    )
    same_day = all(when.date() == now.date() for when in (at, low, high))
    form = "%H:%M" if same_day else "%d %b %H:%M"
    return f"about {at:{form}} ({low:{form}} to {high:{form}})"


def cancel(job_ids: JobIds, head: Head = None, token: Token = None) -> None:
    """Stop jobs."""
    _each(job_ids, head, token, lambda farm, job_id: farm.cancel(job_id), "is being cancelled")


def retry(job_ids: JobIds, head: Head = None, token: Token = None) -> None:
    """Try failed or cancelled jobs again, from the beginning."""
    _each(job_ids, head, token, lambda farm, job_id: farm.retry(job_id), "will be tried again")


def _each(
    job_ids: list[str],
    head: str | None,
    token: str | None,
    do: "Callable[[Farm, str], JobView]",
    done: str,
) -> None:
    """Does the same to several jobs; one that cannot does not keep the others from it."""
    from farm.client import Farm
    from farm.errors import ConflictError, NotFoundError

    failed = False
    with Farm.local(head, token) as farm:
        for job_id in job_ids:
            try:
                do(farm, job_id)
                typer.echo(f"Job {job_id} {done}.")
            except (ConflictError, NotFoundError) as error:
                failed = True
                typer.echo(f"farm: {error}", err=True)
    if failed:
        raise typer.Exit(1)


def rate(
    job_id: JobId,
    rating: Annotated[
        int, typer.Argument(metavar="1-5", min=1, max=5, help="1 (useless) to 5 (just right).")
    ],
    head: Head = None,
    token: Token = None,
) -> None:
    """Rate a finished clip."""
    from farm.client import Farm

    with Farm.local(head, token) as farm:
        farm.rate(job_id, rating)
    typer.echo(f"Job {job_id} is rated {rating} of 5.")
