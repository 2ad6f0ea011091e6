"""PCs and cards."""

from typing import Annotated

from fastapi import APIRouter, Depends

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from dashboard.views import show_cards, show_nodes
from farm.answers import CardView, NodeView

router = APIRouter(tags=["machines"], responses=documented(401))

Farm = Annotated[Parts, Depends(parts)]


@router.get("/nodes", summary="List PCs with their cards")
def nodes(farm: Farm) -> list[NodeView]:
    """Every PC that ever joined, by name."""
    return show_nodes(farm)


@router.get("/cards", summary="List cards and what they do")
def cards(farm: Farm) -> list[CardView]:
    """Every card that the farm knows. Without word from the scheduler its state is "not known"."""
    return show_cards(farm)
