"""`farm models`: the weights, fetched once by the head and served to the nodes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli import here
from farm.cli.show import Head, Json, Token

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from farm.catalogue.models import ModelRow
    from farm.settings import DataDirectory
    from farm.weights import Manifest, Shelf

models = typer.Typer(
    help="Models: what there is, and their weights, which the head fetches once and the PCs get from it.",
    no_args_is_help=True,
)

Named = Annotated[str, typer.Argument(metavar="MODEL", help="The model, as in the catalogue.")]
Data = Annotated[Path | None, typer.Option("--data", help="The head's directory. FARM_DATA.")]


@models.command("list")
def list_models(head: Head = None, token: Token = None, as_json: Json = False) -> None:
    """List the models, and where their weights are."""
    import json

    from farm.cli.show import table
    from farm.client import Farm
    from farm.weights import size_text

    with Farm.local(head, token) as farm:
        found = farm.models()
        places = {
            model.name: [
                node.name for node in farm.nodes() if any(model.name in card.models for card in node.cards)
            ]
            for model in found
        }
    if as_json:
        shown = [model.model_dump(mode="json") | {"nodes": places[model.name]} for model in found]
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    rows = []
    for model in found:
        if not model.source:
            here = "needs none"
        elif model.weights_bytes is None:
            expected = f" (about {model.download_gib:.1f} GiB)" if model.download_gib is not None else ""
            here = f"not on the head{expected}"
        else:
            here = f"on the head, {size_text(model.weights_bytes)}"
        rows.append([model.name, model.title, model.licence, here, ", ".join(places[model.name]) or "-"])
    table(["Model", "Title", "Licence", "Weights", "PCs that run it"], rows)


@models.command("pull")
def pull(
    model: Named,
    directory: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", file_okay=False, help="A directory that has the model."),
    ] = None,
    hf_token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="A file with a Hugging Face token, for a model whose licence must be accepted.",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Fetch a model's weights to this PC, the head, for all PCs of the farm. Run again, it goes on where it stopped."""
    from farm.settings import FarmSettings
    from farm.weights import Shelf, size_text

    row = _row(model)
    place = here.directory(data)
    token = _token(place, hf_token_file, FarmSettings().hf_token)
    shelf = Shelf(place.models)
    try:
        with _alone(place, row.name):
            made = _pulled(row, directory, shelf, token)
    except KeyboardInterrupt:
        typer.echo("\nStopped; what came so far is kept, and the same command goes on from there.", err=True)
        raise typer.Exit(130) from None
    typer.echo(
        f"{made.name}: {len(made.files)} files, {size_text(made.bytes)}, in {place.models / made.name}."
    )
    typer.echo("The farm's PCs that can run it fetch it by themselves; `farm nodes` says how far they are.")


@models.command("rm")
def remove(model: Named, data: Data = None) -> None:
    """Remove a model's weights from the head, and from the PCs that had them from it."""
    from farm.errors import NotFoundError
    from farm.weights import Shelf, size_text

    place = here.directory(data)
    shelf = Shelf(place.models)
    with _alone(place, model):
        freed = shelf.remove(model)
        if not freed:
            raise NotFoundError(
                f"The head has no weights of {model}.", "`farm models list` shows what there is."
            )
        shelf.mark_removed(model)
    typer.echo(
        f"{model} is removed: {size_text(freed)} are free again. The PCs remove it when they hear of it."
    )


def _row(model: str) -> "ModelRow":
    from farm.catalogue.models import load_models
    from farm.errors import BadInputError
    from farm.settings import FarmSettings

    rows = load_models(FarmSettings().models_file)
    row = rows.get(model)
    if row is None:
        raise BadInputError("model", f"There is no model {model}.", f"Name one of {', '.join(sorted(rows))}.")
    if not row.source:
        raise BadInputError("model", f"{model} needs no weights.", "It runs on every PC as it is.")
    return row


def _alone(place: "DataDirectory", model: str) -> "AbstractContextManager[None]":
    """One command at a time may change a model."""
    from farm.single import only_one
    from farm.weights import check_name

    check_name(model)
    return only_one(
        place.models / f".{model}.lock",
        f"{model} is being pulled or removed already (process {{pid}}).",
        "Wait for that, or end it with `kill {pid}`.",
    )


def _token(place: "DataDirectory", file: Path | None, told: str) -> str:
    """The token to use; one that is given is kept for the next time."""
    from farm.errors import ConfigurationError
    from farm.secret_files import ensure_private_directory, write_secret

    try:
        given = file.read_text().strip() if file is not None else told.strip()
        if given:
            ensure_private_directory(place.secrets)
            write_secret(place.hf_token, given + "\n")
            return given
        return place.hf_token.read_text().strip() if place.hf_token.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or "it is no text"
        raise ConfigurationError(
            f"The Hugging Face token cannot be read or kept ({why}).",
            f"Look at {file or place.hf_token}.",
        ) from error


def _pulled(row: "ModelRow", directory: Path | None, shelf: "Shelf", token: str) -> "Manifest":
    import os

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from farm.cli.show import console
    from farm.pull import Checks, Watcher, pull_from_directory, pull_from_hub
    from farm.settings import QUIET_ENVIRONMENT
    from node_agent.pipelines.files import wanted_files
    from node_agent.pipelines.weights import check_weights

    os.environ.update(QUIET_ENVIRONMENT)  # before huggingface_hub is loaded, which reads it once
    checks = Checks(wanted_files, check_weights)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(err=True)) as progress:
        task = progress.add_task(row.name, total=None)
        watcher = Watcher(
            total=lambda size: progress.update(task, total=size),
            more=lambda size: progress.advance(task, size),
        )
        if directory is not None:
            return pull_from_directory(row, directory.expanduser().absolute(), shelf, checks, watcher)
        return pull_from_hub(row, shelf, checks, watcher, token)
