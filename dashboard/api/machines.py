"""PCs and cards: what there is, and what people want of a PC."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from dashboard.parts import Parts, parts, who
from dashboard.problems import documented
from dashboard.views import show_cards, show_node, show_nodes
from farm.answers import CardView, NodeView, TelemetryPoint
from farm.auth import Credential
from farm.errors import ConflictError, NotFoundError
from farm.store.requests import RequestKind

router = APIRouter(tags=["machines"], responses=documented(401))

Farm = Annotated[Parts, Depends(parts)]
_WINDOWS = {"1h": 3600.0, "24h": 86_400.0, "7d": 7 * 86_400.0, "30d": 30 * 86_400.0, "1y": 365 * 86_400.0}
Who = Annotated[Credential, Depends(who)]

THERE_S = 60.0
"""A PC that was heard from within a minute is there. What a connected one says is noted every ten seconds."""


@router.get("/nodes", summary="List PCs with their cards")
def nodes(farm: Farm) -> list[NodeView]:
    """Every PC that joined and was not forgotten, by name."""
    return show_nodes(farm)


@router.get("/cards", summary="List cards and what they do")
def cards(farm: Farm) -> list[CardView]:
    """Every card that the farm knows. Without word from the scheduler its state is "not known"."""
    return show_cards(farm)


@router.get("/cards/{card_id}/telemetry", summary="How a card fared", responses=documented(401, 404, 422))
def telemetry(
    farm: Farm,
    card_id: str,
    window: Annotated[Literal["1h", "24h", "7d", "30d", "1y"], Query(description="up to now")] = "1h",
) -> list[TelemetryPoint]:
    """Utilization, memory, temperature, power, clocks: every 10 s of the last hour, coarser further back. Empty where nothing was told."""
    if all(card.id != card_id for card in farm.reader.cards()):
        raise NotFoundError(f"There is no card {card_id[:80]}.", "`farm cards` lists the cards there are.")
    now = farm.now()
    rows = farm.reader.telemetry.of(card_id, now - _WINDOWS[window], now)
    return [TelemetryPoint(at=row.at, span_s=row.span_s, **asdict(row.figures)) for row in rows]


@router.post(
    "/nodes/{node_id}/drain",
    status_code=202,
    summary="Give a PC no new work",
    responses=documented(401, 404),
)
def drain(farm: Farm, me: Who, node_id: str) -> NodeView:
    """Its cards end what they are at and take nothing new, until it is resumed; also over restarts of PC and head."""
    return _ask(farm, me, RequestKind.DRAIN, node_id)


@router.post(
    "/nodes/{node_id}/resume",
    status_code=202,
    summary="Give a PC work again",
    responses=documented(401, 404),
)
def resume(farm: Farm, me: Who, node_id: str) -> NodeView:
    """Ends a drain, and the pauses of those of its cards that the farm gives no work because jobs failed on them."""
    return _ask(farm, me, RequestKind.RESUME, node_id)


@router.delete(
    "/nodes/{node_id}",
    status_code=202,
    summary="Forget a PC",
    responses=documented(401, 404, 409),
)
def forget(farm: Farm, me: Who, node_id: str) -> NodeView:
    """Strikes a PC that is gone for good from the lists. The history keeps what it rendered; it comes back only with a new join code."""
    seen = farm.reader.node(node_id).last_seen
    if seen is not None and farm.now() - seen < THERE_S:
        raise ConflictError(
            f"The PC {node_id} was heard from {max(0.0, farm.now() - seen):.0f} s ago; only one that is gone can be forgotten.",
            "Stop `farm join` on it, wait a minute, and ask again. `farm drain` keeps work from a PC that stays.",
        )
    shown = show_node(farm, node_id)
    _wish(farm, me, RequestKind.FORGET, node_id)
    farm.greeted.forget(node_id)  # its token is good no longer
    return shown


def _ask(farm: Parts, me: Credential, kind: RequestKind, node_id: str) -> NodeView:
    farm.reader.node(node_id)
    _wish(farm, me, kind, node_id)
    return show_node(farm, node_id)


def _wish(farm: Parts, me: Credential, kind: RequestKind, node_id: str) -> None:
    farm.requests.ask_node(kind, node_id, farm.now(), by=me.owner)
    farm.live.wake()
