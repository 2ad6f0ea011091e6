"""What the cards got done."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from dashboard.work import throughput
from farm.answers.figures import Throughput

router = APIRouter(tags=["statistics"])

Farm = Annotated[Parts, Depends(parts)]


@router.get("/stats/throughput", summary="What each card got done", responses=documented(401, 404, 422))
def show_throughput(
    farm: Farm,
    card: Annotated[str | None, Query(description="the id of one card; without it all cards")] = None,
    window: Annotated[Literal["1h", "24h", "7d", "30d"], Query(description="up to now")] = "24h",
) -> list[Throughput]:
    """Clips per hour, frames per minute, seconds per step, Wh per clip, success rate and utilization of each card, from stored attempts.

    A card that did nothing in the window has no figures (null), which is not the same as 0.
    """
    return throughput(farm, window, card)
