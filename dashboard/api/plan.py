"""What each card would make of a render, before any job runs."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from dashboard.examples import names
from dashboard.forecast import forecast
from dashboard.parts import Parts, parts
from dashboard.problems import Responses, documented
from farm.answers.forecasts import CardForecast
from farm.submit import SubmittedSettings

router = APIRouter(tags=["planning"])

Farm = Annotated[Parts, Depends(parts)]

EXAMPLE: dict[str, Any] = {
    "card": names.CARD,
    "card_id": names.CARD_ID,
    "node_name": names.NODE,
    "vram_gib": 6.0,
    "usable_gib": 5.4,
    "fits": True,
    "eligible": True,
    "able": True,
    "state": "idle",
    "tier": "quality",
    "reasons": [],
    "advice": "",
    "how_it_fits": "needs 14.0 GiB whole, RTX 2060 has 5.4 usable; fits so: 53 % of the weights stay, the rest streams, "
    "large layers in pieces; 1.02 times the seconds",
    "memory_plan": {
        "parts": "by_stage",
        "guidance": "together",
        "weights_on_card": 0.53,
        "ring_mib": 181,
        "piece_mib": 1024,
        "decode": "frame",
        "precision": "fp16",
    },
    "peak_gib": 4.758,
    "peak_low_gib": 4.425,
    "peak_high_gib": 4.996,
    "seconds": 542.48,
    "seconds_low": 259.08,
    "seconds_high": 1135.9,
    "basis": "catalogue",
}
"""The preset `native` on an RTX 2060 with 6 GB, as the planner tells it; a test holds it to that."""

ANSWER: Responses = {
    200: {
        "description": "A forecast for each card, the best first",
        "content": {"application/json": {"example": [EXAMPLE]}},
    }
}
BODY: dict[str, Any] = {
    "requestBody": {
        "description": "Settings as for a job; all optional, and no prompt is needed",
        "content": {
            "application/json": {
                "schema": SubmittedSettings.model_json_schema(),
            }
        },
    }
}
"""For the description: `farm.submit` reads the body, whose errors name the field as those of `POST /jobs` do."""


async def body(request: Request) -> bytes:
    """FastAPI dependency: the body as it came."""
    return await request.body()


@router.post(
    "/plan",
    summary="Foresee a render on each card",
    responses=ANSWER | documented(401, 413, 422),
    openapi_extra=BODY,
)
def plan(farm: Farm, sent: Annotated[bytes, Depends(body)]) -> list[CardForecast]:
    """Whether it fits, the memory plan, the peak and the seconds, with what attempts of the card have taught. Nothing is queued."""
    return forecast(farm, sent)
