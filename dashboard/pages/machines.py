"""The PCs and their cards, and how to add one."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.frame import Farm, page
from dashboard.joining.address import head_address
from dashboard.views import show_calibration, show_nodes

router = APIRouter(include_in_schema=False)


@router.get("/cards")
def cards_page(request: Request, farm: Farm) -> Response:
    """The PCs and their cards, and how to add one."""
    nodes = show_nodes(farm)
    cards = [card for node in nodes for card in node.cards]
    head, reachable = head_address(request, farm.settings.host, farm.settings.port)
    context = {
        "nodes": nodes,
        "cards": cards,
        "head": head,
        "reachable": reachable,
        "calibration": show_calibration(farm),
    }
    return page(request, "cards.html", context)
