"""The PCs and their cards, and how to add one."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.frame import Farm, page
from dashboard.memory_bar import memory_bar
from dashboard.views import show_calibration, show_nodes
from farm.daemons import is_loopback, own_address_towards

router = APIRouter(include_in_schema=False)


@router.get("/cards")
def cards_page(request: Request, farm: Farm) -> Response:
    """The PCs and their cards, and how to add one."""
    nodes = show_nodes(farm)
    cards = [card for node in nodes for card in node.cards]
    running = farm.reader.running_on([card.id for card in cards])
    planned = {card_id: attempt.predicted_gib for card_id, (attempt, _) in running.items()}
    head, reachable = head_address(request, farm.settings.host, farm.settings.port)
    context = {
        "nodes": nodes,
        "cards": cards,
        "memory": {card.id: memory_bar(card, planned.get(card.id)) for card in cards},
        "head": head,
        "reachable": reachable,
        "calibration": show_calibration(farm),
    }
    return page(request, "cards.html", context)


def head_address(request: Request, host: str, port: int) -> tuple[str, bool]:
    """The address under which other PCs find this head, and whether they can reach it at all.

    Whoever came here by an address that is not loopback's has shown that it works; else the one that `farm up` listens on counts.
    """
    came_by = request.url.hostname or ""
    if came_by and not is_loopback(came_by) and came_by != "::1":
        return f"{request.url.scheme}://{request.url.netloc}", True
    if is_loopback(host) or host == "::1":
        return f"http://ADDRESS:{port}", False
    if host in ("0.0.0.0", "::"):  # noqa: S104  # a comparison
        try:
            host = own_address_towards("192.0.2.1", 9)  # an address for documentation: any way out
        except OSError:
            return f"http://ADDRESS:{port}", False
    return f"http://{host}:{port}", True
