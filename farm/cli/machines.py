"""Verbs about machines: nodes, cards, drain, resume, forget."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from farm.cli.show import Head, Json, Token, ago, gib, table

if TYPE_CHECKING:
    from farm.answers.machines import NodeView
    from farm.client import Farm

Named = Annotated[str, typer.Argument(metavar="NODE", help="A PC's name or id, as `farm nodes` lists them.")]


def nodes(head: Head = None, token: Token = None, as_json: Json = False) -> None:
    """List the PCs of the farm."""
    from farm.client import Farm

    with Farm.local(head, token) as farm:
        found = farm.nodes()
    if as_json:
        _print_json([node.model_dump(mode="json") for node in found])
    elif not found:
        typer.echo("No PC has joined yet. `farm up` brings this one in; `farm join` brings others.")
    else:
        rows = [
            [
                node.name,
                node.address or "-",
                ", ".join(f"{card.name} ({card.state})" for card in node.cards) or "no cards",
                ago(node.last_seen) + (", drained" if node.drained_at is not None else ""),
                "; ".join(node.fetching) or "-",
                node.id,
            ]
            for node in found
        ]
        table(["PC", "Address", "Cards", "Last seen", "Fetches", "Id"], rows)
        for node in found:
            if node.kept_out:
                typer.echo(f"{node.name} asks to join and cannot: {node.kept_out}")
            if node.owner_rules:
                typer.echo(f"{node.name}'s owner lets it work so: {node.owner_rules}")


def cards(head: Head = None, token: Token = None, as_json: Json = False) -> None:
    """List the cards and what they do."""
    from farm.client import Farm

    with Farm.local(head, token) as farm:
        found = farm.cards()
    if as_json:
        _print_json([card.model_dump(mode="json") for card in found])
    elif not found:
        typer.echo("No card has joined yet. `farm up` brings this PC's in; `farm join` brings others.")
    else:
        rows = [
            [
                card.name,
                card.node_name,
                gib(card.vram_gib),
                card.band,
                card.state,
                card.job_id or card.why or "-",
                card.id,
            ]
            for card in found
        ]
        table(["Card", "PC", "Memory", "Band", "State", "Job or reason", "Id"], rows)


def drain(node: Named, head: Head = None, token: Token = None) -> None:
    """Give a PC no new work; its cards end what they are at."""
    _ask(node, head, token, lambda farm, node_id: farm.drain(node_id), "gets no new work")


def resume(node: Named, head: Head = None, token: Token = None) -> None:
    """Give a PC work again, and its cards that the farm had paused."""
    _ask(node, head, token, lambda farm, node_id: farm.resume(node_id), "gets work again")


def forget(node: Named, head: Head = None, token: Token = None) -> None:
    """Strike a PC that is gone for good from the lists; the history stays."""
    _ask(node, head, token, lambda farm, node_id: farm.forget(node_id), "is forgotten")


def _ask(
    named: str,
    head: str | None,
    token: str | None,
    do: "Callable[[Farm, str], NodeView]",
    done: str,
) -> None:
    from farm.client import Farm

    with Farm.local(head, token) as farm:
        shown = do(farm, farm.node(named).id)
    typer.echo(f"{shown.name} {done}.")


def _print_json(found: object) -> None:
    import json

    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
