"""`farm join`: this PC as a node."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from node_agent.owner import OwnerRules


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
    only_idle: Annotated[
        bool | None,
        typer.Option(
            "--only-idle/--always",
            help="Work only while nobody uses the PC: no other program on the card, no keyboard or mouse, no load.",
        ),
    ] = None,
    hours: Annotated[
        str | None,
        typer.Option(
            help="When it may work, by this PC's clock: 'mon-fri 22:00-08:00, sat-sun all'; 'all' lifts it."
        ),
    ] = None,
    max_temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=120.0, help="Degrees Celsius above which a card takes no new work; 0 lifts it."
        ),
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(
            help="A word by which jobs may ask for this PC; may be given several times. 'none' takes all away."
        ),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(
            metavar="BAND",
            help="What work its cards keep to, whatever their memory: post, preview or quality; 'memory' lifts it.",
        ),
    ] = None,
    card: Annotated[
        list[str] | None,
        typer.Option(help="Only this card (its UUID); may be given several times. 'all' lifts it."),
    ] = None,
    pin: Annotated[
        str,
        typer.Option(
            help="The head has TLS: the SHA-256 of its authority, as `farm up` prints it. FARM_CA may name a copy of that file instead."
        ),
    ] = "",
    as_user: Annotated[
        str,
        typer.Option(help="Started by root: the user to become. 'root' only if it must be. FARM_AS_USER."),
    ] = "",
    enroll: Annotated[
        bool, typer.Option("--enroll", help="Use the code and end; a later `farm join` needs none.")
    ] = False,
) -> None:
    """Makes this PC a node of a farm and keeps it one: it comes back after every interruption. Ctrl-C ends it."""
    import os

    from rich.console import Console

    from farm.cli.here import check_models
    from farm.settings import FarmSettings
    from farm.single import only_one
    from farm.supervise import Bell
    from farm.unprivileged import step_down
    from node_agent.identity import default_home
    from node_agent.join import Membership, Node, NodeOptions

    settings = FarmSettings()
    console = Console(highlight=False, soft_wrap=True, markup=False)
    check_models(settings)
    step_down(as_user or settings.as_user, console.print)
    place = (home or settings.node_home or default_home()).expanduser().absolute()
    _check_cards(card or [])
    rules = _rules(place, only_idle, hours, max_temperature, card)
    rules = _marked(rules, tag, tier)
    node = Node(
        NodeOptions(
            head=head,
            home=place,
            token=token,
            name=name,
            first_port=ray_port or settings.ray_port,
            object_store_mib=settings.object_store_mib,
            rules=rules,
            enroll=enroll,
            ca=settings.ca,
            pin=pin,
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
        if enroll:
            return
        if Membership.load(place) is None:
            console.print("This PC has not joined; its code is still good, if it has not run out.")
        else:
            console.print("This PC has left the farm for now; `farm join` without a token brings it back.")


def _rules(
    home: Path,
    only_idle: bool | None,
    hours: str | None,
    max_temperature: float | None,
    cards: list[str] | None,
) -> "OwnerRules":
    """The owner's rules: those kept from the last time, with what was said now in their place."""
    from dataclasses import replace

    from farm.hours import parse_hours
    from node_agent.owner import OwnerRules

    rules = OwnerRules.load(home)
    if only_idle is not None:
        rules = replace(rules, only_idle=only_idle)
    if hours is not None:
        parse_hours(hours)
        rules = replace(rules, hours=None if hours.strip().lower() == "all" else hours)
    if max_temperature is not None:
        rules = replace(rules, max_temperature_c=max_temperature or None)
    if cards:
        rules = replace(rules, cards=() if cards == ["all"] else tuple(cards))
    return rules


def _check_cards(wanted: list[str]) -> None:
    """Before it joins: with a card that is not there it would be a PC without any.

    Raises:
        BadInputError: field "card": this PC has none of that id.
    """
    from farm.errors import BadInputError
    from farm.model import CardKind
    from node_agent.probe import cards

    if not wanted or wanted == ["all"]:
        return
    found = {card.id: card.name for card in cards("", {}) if card.kind is CardKind.CUDA}
    wrong = [card for card in wanted if card not in found and not card.startswith("CPU-")]
    if wrong:
        names = ", ".join(f"{card} ({name})" for card, name in found.items())
        raise BadInputError(
            "card",
            f"This PC has no card {wrong[0]}.",
            f"It has {names}." if found else "No NVIDIA card answers here; `farm doctor` says why.",
        )


def _marked(rules: "OwnerRules", tags: list[str] | None, tier: str | None) -> "OwnerRules":
    """The rules with the tags and the band that were said now."""
    from dataclasses import replace

    from farm.errors import BadInputError
    from farm.model import Tier
    from farm.tags import read_tags

    if tags:
        rules = replace(rules, tags=() if tags == ["none"] else read_tags(tags, "tag"))
    if tier is not None:
        bands = {band.value: band for band in Tier}
        if tier != "memory" and tier not in bands:
            raise BadInputError(
                "tier", f"There is no band {tier!r}.", f"Name one of {', '.join(bands)}, or memory."
            )
        rules = replace(rules, tier=bands.get(tier))
    return rules
