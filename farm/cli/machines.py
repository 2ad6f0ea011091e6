"""Verbs about machines: nodes, cards."""

import typer

from farm.cli.show import Head, Json, Token, ago, gib, table


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
                ago(node.last_seen),
                node.id,
            ]
            for node in found
        ]
        table(["PC", "Address", "Cards", "Last seen", "Id"], rows)


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


def _print_json(found: object) -> None:
    import json

    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
