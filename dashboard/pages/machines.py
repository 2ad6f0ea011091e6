"""The PCs and their cards, and how to add one."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.frame import Farm, page
from dashboard.joining.address import head_address
from dashboard.memory_bar import memory_bar
from dashboard.views import show_calibration, show_nodes
from farm.own_bench import BenchResult

router = APIRouter(include_in_schema=False)


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
        "benches": benches,
        "memory": {card.id: memory_bar(card, planned.get(card.id)) for card in cards},
        "head": head,
        "reachable": reachable,
        "calibration": show_calibration(farm),
    }
    return page(request, "cards.html", context)
