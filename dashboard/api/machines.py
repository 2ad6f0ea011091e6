"""PCs and cards."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from dashboard.views import show_cards, show_nodes
from farm.answers import CardView, NodeView, TelemetryPoint
from farm.errors import NotFoundError

router = APIRouter(tags=["machines"], responses=documented(401))

Farm = Annotated[Parts, Depends(parts)]
_WINDOWS = {"1h": 3600.0, "24h": 86_400.0, "7d": 7 * 86_400.0, "30d": 30 * 86_400.0, "1y": 365 * 86_400.0}


@router.get("/nodes", summary="List PCs with their cards")
def nodes(farm: Farm) -> list[NodeView]:
    """Every PC that ever joined, by name."""
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
