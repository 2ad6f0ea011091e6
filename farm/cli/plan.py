"""`farm plan`: before any job runs, what each card would make of it."""

from typing import TYPE_CHECKING, Annotated, Any

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
    Prompt,
    Seed,
    Smooth,
    Steps,
    Strength,
    Width,
    given,
)
from farm.cli.show import Head, Json, Token, table

if TYPE_CHECKING:
    from farm.answers.forecasts import CardForecast

WITHOUT_FARM = 'A farm is not needed for a card that you name: farm plan --card "RTX 2060"'


def plan(
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
    anywhere: Anywhere = False,
    needs: Needs = None,
    card: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="For this card of the catalogue, without a farm, such as 'RTX 2060'."
        ),
    ] = None,
    vram: Annotated[
        float | None,
        typer.Option(metavar="GB", min=0.5, help="Of --card's sizes this one; the usual one without."),
    ] = None,
    head: Head = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Say for each card whether a clip fits, how much memory it takes and how long, before any job runs."""
    settings = given(locals())

    from farm.errors import BadInputError

    if card is not None:
        found = _of_catalogue(card, vram, settings)
    elif vram is not None:
        raise BadInputError("vram", "--vram is the size of a card, and none is named.", WITHOUT_FARM)
    else:
        found = _of_farm(head, token, settings)
    if as_json:
        import json

        shown = [one.model_dump(mode="json") for one in found]
        typer.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    _print(found)


def _of_catalogue(name: str, vram_gb: float | None, settings: dict[str, Any]) -> "list[CardForecast]":
    """The forecast for a farm of this one card, on whose PC all models are."""
    from farm.catalogue.models import load_models
    from farm.catalogue.presets import presets
    from farm.planning.eligibility import FarmView, bands_of
    from farm.planning.foresee import foresee, imagined_card
    from farm.settings import FarmSettings
    from farm.submit import parse_settings

    own = FarmSettings()
    models = load_models(own.models_file)
    card = imagined_card(name, vram_gb, models)
    submission = parse_settings(
        settings,
        models=models,
        presets={name: one for name, one in presets().items() if one.model in models},
        default_preset="preview",
        random_seed=0,
        to_render=False,
    )
    view = FarmView(models, own.tiers, bands_of([card]))
    return foresee(submission.settings, [card], view, anywhere=submission.anywhere, needs=submission.needs)


def _of_farm(head: str | None, token: str | None, settings: dict[str, Any]) -> "list[CardForecast]":
    from farm.client import Farm
    from farm.errors import HeadUnreachableError, SignInError
    from farm.settings import FarmSettings

    try:
        farm = Farm.local(head, token)
    except SignInError as error:
        if head is None and "head" not in FarmSettings().model_fields_set:
            raise HeadUnreachableError(
                "No farm runs on this PC, and none is named.",
                f"Start one with `farm up`, or name one with --head and --token. {WITHOUT_FARM}",
            ) from error
        raise
    with farm:
        try:
            return farm.plan(**settings)
        except HeadUnreachableError as error:
            raise HeadUnreachableError(error.message, f"{error.remedy} {WITHOUT_FARM}") from error


def _print(found: "list[CardForecast]") -> None:
    if not found:
        typer.echo(
            "No card has joined the farm yet. `farm up` brings this PC's in; `farm join` brings others."
        )
        typer.echo(WITHOUT_FARM)
        return
    table(["Card", "Fits", "Memory", "How", "Time"], [row(one) for one in found])
    refused = [one for one in found if not one.eligible]
    if refused:
        typer.echo()
    for one in refused:
        typer.echo(f"{title(one)}: {'; '.join(one.reasons)}. {one.advice}".rstrip())


def title(one: "CardForecast") -> str:
    """A card with its size, and with its PC where it is of the farm."""
    size = "" if one.vram_gib is None or " GB" in one.card else f" {one.vram_gib:.0f} GB"
    return f"{one.card}{size}{f' on {one.node_name}' if one.node_name else ''}"


def row(one: "CardForecast") -> list[str]:
    """A forecast in a person's words: card, whether it fits, memory, how, time."""
    from farm.planning.wording import how

    verdict = "fits" if one.eligible else "fits, but may not take it" if one.fits else "does not fit"
    if not one.fits:
        has = "not known" if one.usable_gib is None else f"has {one.usable_gib:.1f} GiB"
        return [title(one), verdict, f"needs {one.peak_gib:.1f} GiB, {has}", "-", "-"]
    usable = "" if one.usable_gib is None else f" of {one.usable_gib:.1f}"
    memory = f"{one.peak_gib:.1f}{usable} GiB" if one.peak_gib else "no GPU memory"
    time = "-"
    if one.seconds is not None and one.seconds_low is not None and one.seconds_high is not None:
        span = f"{lasting(one.seconds_low)} to {lasting(one.seconds_high)}"
        time = f"about {lasting(one.seconds)} ({span})"
    return [title(one), verdict, memory, how(one.memory_plan) if one.peak_gib else "-", time]


def lasting(seconds: float) -> str:
    """Seconds as "0.6 s", "58 s", "1 min 58 s", "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
