"""The PCs and their cards, and how to add one."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from fastapi import APIRouter, Request
from markupsafe import Markup
from starlette.responses import Response

from dashboard.frame import Farm, page, templates
from dashboard.joining.address import head_address
from dashboard.memory_bar import memory_bar
from dashboard.views import show_calibration, show_nodes
from farm.answers.machines import CardView
from farm.model import CardKind, PcieLink, Tier
from farm.own_bench import BenchResult

router = APIRouter(include_in_schema=False)


class Facts(NamedTuple):
    """What a card is: what its page tells of it that is the same for days. As `CardView` has it, with its own benches."""

    kind: CardKind
    vram_gib: float | None
    usable_gib: float | None
    others_gib: float | None
    band: Tier
    models: tuple[str, ...]
    compute_capability: str | None
    precision: str | None
    driver: str | None
    pcie: PcieLink | None
    bus_gb_s: float | None
    benches: tuple[BenchResult, ...]


@lru_cache(maxsize=1024)
def told(facts: Facts) -> Markup:
    """A card's facts as terms of a list. Kept by what they are, so that a look at a hundred cards puts together only those that changed."""
    text = templates.get_template("card_facts.html").render(card=facts)
    return Markup(text)  # noqa: S704 - the template escapes what it is given


@router.get("/cards")
def cards_page(request: Request, farm: Farm) -> Response:
    """The PCs and their cards, and how to add one."""
    nodes = show_nodes(farm)
    cards = [card for node in nodes for card in node.cards]
    planned = farm.reader.planned_gib()
    benches: dict[str, list[BenchResult]] = {card.id: [] for card in cards}
    for row in reversed(farm.benches.newest()):
        benches.get(row.card_id, []).append(row)
    head, reachable = head_address(request, farm.settings)
    context = {
        "week_of": farm.throughput.window("7d", [card.id for card in cards], farm.now()),
        "nodes": nodes,
        "states_of": {node.id: [card.state for card in node.cards] for node in nodes},
        "cards": cards,
        "states": [card.state for card in cards],
        "facts": {card.id: told(facts_of(card, benches[card.id])) for card in cards},
        "memory": {card.id: memory_bar(card, planned.get(card.id)) for card in cards},
        "head": head,
        "reachable": reachable,
        "calibration": show_calibration(farm),
    }
    return page(request, "cards.html", context)


def facts_of(card: CardView, benches: Sequence[BenchResult]) -> Facts:
    """The facts of a card with its own benches, oldest first."""
    return Facts(
        kind=card.kind,
        vram_gib=card.vram_gib,
        usable_gib=card.usable_gib,
        others_gib=card.others_gib,
        band=card.band,
        models=tuple(card.models),
        compute_capability=card.compute_capability,
        precision=card.precision,
        driver=card.driver,
        pcie=card.pcie,
        bus_gb_s=card.bus_gb_s,
        benches=tuple(benches),
    )
