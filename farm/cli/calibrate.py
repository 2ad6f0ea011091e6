"""`farm calibrate`: what a model's network takes, measured on this PC's first NVIDIA card."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from farm.catalogue.models import ModelRow


def calibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model, as in the catalogue.")],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Where to write; default: ./NETWORK.json"),
    ] = None,
) -> None:
    """Measure a model's memory and time on this PC's first NVIDIA card. Needs no weights; takes minutes."""
    from farm.catalogue.models import load_models
    from farm.errors import BadInputError
    from farm.settings import FarmSettings

    rows = load_models(FarmSettings().models_file)
    row = rows.get(model)
    if row is None:
        raise BadInputError("model", f"There is no model {model}.", f"Name one of {', '.join(sorted(rows))}.")
    if not row.tensor_needed:
        raise BadInputError(
            "model",
            f"{row.title} has no network to measure: it works without diffusion.",
            "Name a diffusion model, such as i2vgen-xl.",
        )
    name = row.name if row.memory is None else row.memory.network
    target = (output or Path(f"{name}.json")).expanduser().absolute()
    _check_place(target)
    _choose_card(model)
    try:
        data = _measured(row, f"farm calibrate {name}")
    except KeyboardInterrupt:
        typer.echo("\nStopped; nothing was written.", err=True)
        raise typer.Exit(130) from None
    _write(name, data, target)
    sizes = ", ".join("x".join(map(str, size)) for size in data["measured"]["sizes"])
    typer.echo(f"Measured on {data['measured']['card']} at {sizes} (width x height x frames): {target}")
    typer.echo(
        f"To use it: copy it to farm/catalogue/networks/{name}.json in the farm's directory on the head and start the farm again. "
        f'A model\'s row names it with `network = "{name}"` under [{model}.memory]. It makes the head another version of the farm: paste '
        "the line of *Add a PC* again on each other PC."
    )


def _check_place(target: Path) -> None:
    """Now, and not after minutes of measuring."""
    from farm.cli.show import writing

    with writing(target):
        _half(target).touch()
        _half(target).unlink()


def _half(target: Path) -> Path:
    return target.with_name(f".{target.name}.half")


def _choose_card(model: str) -> None:
    """Shows torch, which is not loaded yet, the first card alone."""
    import os
    from importlib.util import find_spec

    from farm.errors import ConfigurationError
    from farm.model import CardKind
    from node_agent.card_process import card_environment
    from node_agent.probe import cards
    from node_agent.selftest import card_trouble

    first = cards("local", {})[0]
    if first.kind is not CardKind.CUDA:
        raise ConfigurationError(
            "farm calibrate measures on an NVIDIA card: this PC has none, or its driver does not answer.",
            f"Run `farm calibrate {model}` on a PC with one; `nvidia-smi` shows whether the driver works.",
        )
    os.environ.update(card_environment(first.id))
    if find_spec("torch") is None or find_spec("diffusers") is None:
        raise ConfigurationError(
            "farm calibrate measures on an NVIDIA card: torch and diffusers are not installed here.",
            'Install them, in the farm\'s directory: pip install ".[gpu]".',
        )
    trouble = card_trouble(first.name, first.driver, first.compute_capability)
    if trouble is not None:
        raise ConfigurationError(f"farm calibrate measures on an NVIDIA card. {trouble}")


def _measured(row: "ModelRow", command: str) -> dict[str, Any]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from farm.cli.show import console
    from node_agent.measuring import PARTS, measure

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(err=True)) as progress:
        task = progress.add_task("Loading torch", total=PARTS)

        def say(doing: str, done: int, total: int) -> None:
            progress.update(task, description=doing, completed=done, total=total)

        return measure(row, command, say)


def _write(name: str, data: dict[str, Any], target: Path) -> None:
    """Appears whole or not at all, and only if the planner can read it."""
    from farm.catalogue.networks import network_from_dict
    from farm.cli.show import writing
    from node_agent.engine.fit import as_text

    network_from_dict(name, data)
    half = _half(target)
    with writing(target):
        try:
            half.write_text(as_text(data), encoding="utf-8")
            half.replace(target)
        finally:
            half.unlink(missing_ok=True)
