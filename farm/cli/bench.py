"""`farm bench`: the article's evaluation on this PC's cards, kept and shown beside what the article published."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli.show import Json, table

if TYPE_CHECKING:
    from farm.catalogue.models import ModelRow
    from farm.own_bench import BenchResult
    from farm.settings import DataDirectory
    from farm.wire import CardReport

STANDARD_MODEL = "i2vgen-xl"
DRAFT_MODEL = "animatic"


def bench(
    model: Annotated[
        str | None, typer.Option(help="Default: i2vgen-xl; without an NVIDIA card animatic.")
    ] = None,
    card: Annotated[
        str | None, typer.Option(metavar="UUID", help="One card of this PC, by its UUID or the begin of it.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Where results are kept. FARM_DATA.")] = None,
    as_json: Json = False,
) -> None:
    """Measure startup, first frame, total time and peak memory on this PC's cards, beside the article's."""
    from farm.catalogue.article import article
    from farm.catalogue.models import load_models
    from farm.cli.here import directory
    from farm.settings import FarmSettings
    from node_agent.bench import within_limits
    from node_agent.probe import beside_others, cards

    place = directory(data)
    rows = load_models(FarmSettings().models_file)
    found = beside_others(_chosen(cards("local", rows), card))
    chosen = [(said, _row_for(said, model, rows, place)) for said in found]
    _say_what_is_missing(found)
    plans = [
        (said, row, within_limits(row, setting)) for said, row in chosen for setting in article().settings
    ]
    try:
        results = _run(plans, place.bench_results)
    except KeyboardInterrupt:
        typer.echo(f"\nStopped; what was finished is in {place.bench_results}.", err=True)
        raise typer.Exit(130) from None
    if as_json:
        _print_json(results)
    else:
        _show(results)
        typer.echo(f"\nKept in {place.bench_results}.")
    if any(result.failure for result in results):
        raise typer.Exit(1)


def _chosen(found: "tuple[CardReport, ...]", wanted: str | None) -> "list[CardReport]":
    from farm.errors import BadInputError

    fitting = [said for said in found if wanted is None or (wanted and said.id.startswith(wanted))]
    if not fitting or (wanted is not None and len(fitting) > 1):
        which = "No card" if not fitting else "More than one card"
        known = ", ".join(f"{said.id} ({said.name})" for said in found)
        raise BadInputError("card", f"{which} of this PC begins with {wanted!r}.", f"Name one of {known}.")
    return fitting


def _say_what_is_missing(found: "tuple[CardReport, ...]") -> None:
    """What is worth knowing before minutes of measuring: a graphics card that does not answer, or one that is not free."""
    for said in found:
        if said.notice is not None:
            typer.echo(said.notice, err=True)
        if said.others_gib:
            typer.echo(
                f"Other programs hold {said.others_gib:.1f} GiB of {said.name}, so it gets a leaner memory plan. For the whole "
                "card end them (`farm local pause` for the farm itself), and bench again.",
                err=True,
            )


def _row_for(
    said: "CardReport", wanted: str | None, rows: "dict[str, ModelRow]", data: "DataDirectory"
) -> "ModelRow":
    from farm.errors import BadInputError
    from farm.model import CardKind
    from node_agent.pipelines.weights import check_weights, weights_of

    name = wanted or (STANDARD_MODEL if said.kind is CardKind.CUDA else DRAFT_MODEL)
    row = rows.get(name)
    if row is None:
        raise BadInputError("model", f"There is no model {name}.", f"Name one of {', '.join(sorted(rows))}.")
    if said.kind not in row.devices:
        raise BadInputError(
            "model",
            f"{row.title} does not run on {said.name}.",
            f"It runs on: {', '.join(row.devices)}. Leave --model out, or bench on another PC.",
        )
    if row.source:
        _choose_shelf(row.name, data)
        check_weights(weights_of(row), row)
    return row


def _choose_shelf(model: str, data: "DataDirectory") -> None:
    """Where the farm brought the model on this PC, for this process and those that it starts.

    With the head's data, or on a PC that has joined in its node's home, which only the farm's own processes are told.
    """
    import os

    from farm.settings import DataDirectory, FarmSettings
    from farm.weights import Shelf
    from node_agent.identity import default_home

    told = FarmSettings()
    if told.model_store is not None or told.node_home is not None:
        return
    places = (data.models, DataDirectory(default_home()).models)
    found = next((place for place in places if Shelf(place).directory(model) is not None), None)
    if found is not None:
        os.environ["FARM_MODEL_STORE"] = str(found)


def _run(plans: "list[tuple[CardReport, ModelRow, Any]]", kept: Path) -> "list[BenchResult]":
    """Row after row; each is kept as soon as it is there."""
    import json
    import tempfile
    from dataclasses import asdict

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from farm.cli.sample import write_sample
    from farm.cli.show import console, writing
    from node_agent.bench import bench as run_one

    with writing(kept):  # now, and not after minutes of measuring
        kept.parent.mkdir(parents=True, exist_ok=True)
        _end_last_line(kept)
    results = []
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with (
        tempfile.TemporaryDirectory() as directory,
        Progress(*columns, console=console(err=True), transient=True) as progress,
    ):
        picture = write_sample(Path(directory) / "sample.png")
        for said, row, setting in plans:
            title = f"{said.name}: {row.name}, {setting.name}"
            task = progress.add_task(f"{title}: starting", total=None)

            def tell(doing: str, done: int, total: int, task: Any = task, title: str = title) -> None:
                progress.update(task, description=f"{title}: {doing}", completed=done, total=total or None)

            result = run_one(row, said, setting, picture, tell)
            progress.remove_task(task)
            with writing(kept), kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
            results.append(result)
    return results


def _end_last_line(kept: Path) -> None:
    """Makes the file where there is none. Half a line, of a bench that was killed, would make what follows it unreadable too."""
    with kept.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read() != b"\n":
                file.write(b"\n")


def _show(results: "list[BenchResult]") -> None:
    from farm.catalogue.article import article

    published = article()
    settings = {setting.name: setting for setting in published.settings}
    ours = [
        [
            result.card,
            result.model,
            _named(result.setting),
            _number(result.startup_s, "s"),
            *_measured(result.first_frame_s, result.total_s, result.peak_gib, result.rating, "GiB"),
            result.failure or "",
        ]
        for result in results
    ]
    theirs = [
        [
            f"article: {row.card}",
            published.model,
            _named(settings[row.setting]),
            "-",
            *_measured(row.first_frame_s, row.total_s, row.peak_gb, row.rating, "GB"),
            row.failure or "",
        ]
        for row in published.rows
    ]
    columns = ["Card", "Model", "Setting", "Startup", "First frame", "Total", "Peak", "Rating", "Failure"]
    table(columns, [*ours, *theirs])
    typer.echo(f"\nThe article measured with torch {published.torch} and CUDA {published.cuda}.")
    for result in results:
        frames = settings[result.setting.name].frames
        if result.setting.frames != frames:
            typer.echo(
                f"{result.model} takes no more than {result.setting.frames} frames; the article had {frames}."
            )


def _measured(
    first: float | None, total: float | None, peak: float | None, rating: float | None, unit: str
) -> list[str]:
    return [_number(first, "s"), _number(total, "s"), _number(peak, unit), _number(rating, "")]


def _named(setting: Any) -> str:
    size = f"{setting.width}x{setting.height}x{setting.frames}"
    return f"{setting.name} ({size}, {setting.steps} steps, {setting.guidance:g})"


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.1f} {unit}".strip()


def _print_json(results: "list[BenchResult]") -> None:
    import json
    from dataclasses import asdict

    from farm.catalogue.article import article

    found = {"results": [asdict(result) for result in results], "article": asdict(article())}
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
