"""PCs and cards: what there is, and what people want of a PC."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from dashboard.history import card_history, no_card
from dashboard.parts import Parts, parts, who
from dashboard.problems import Responses, documented
from dashboard.views import show_cards, show_node, show_nodes
from farm.answers.machines import CardEvent, CardView, NodeView, TelemetryPoint
from farm.auth import Credential
from farm.errors import ConflictError
from farm.store.requests import RequestKind

router = APIRouter(tags=["machines"], responses=documented(401))

Farm = Annotated[Parts, Depends(parts)]
_WINDOWS = {
    "1h": (3600.0, 10),
    "24h": (86_400.0, 300),
    "7d": (7 * 86_400.0, 1800),
    "30d": (30 * 86_400.0, 7200),
    "1y": (365 * 86_400.0, 86_400),
}
"""Seconds up to now, and of how many of them a point tells: some three hundred points, as many as a chart can show."""
_HISTORY: Responses = {
    200: {
        "description": "What happened to the card, newest first",
        "content": {
            "application/json": {
                "example": [
                    {
                        "at": 1760003600.0,
                        "until": None,
                        "what": "failed",
                        "why": "RTX 2060 ran out of memory while decoding: 5.4 GiB were usable, 7.9 were needed.",
                        "job_id": "01K72M4Q8ZC3V5N6T7W8X9Y0AB",
                    },
                    {"at": 1759990200.0, "until": 1759997400.0, "what": "silent", "why": "", "job_id": None},
                ]
            }
        },
    },
    **documented(401, 404),
}
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
    """Share in use (0 to 1), GiB of memory, degrees Celsius, watts, MHz of shaders and memory: means, of the temperature the highest.

    A point for every 10 s of the last hour, 5 minutes of 24 hours, 30 minutes of 7 days, 2 hours of 30 days, and day of a year: 370 at the
    most. Where nothing was told there is none.
    """
    if card_id not in farm.reader.card_ids():
        raise no_card(card_id)
    now = farm.now()
    length, part_s = _WINDOWS[window]
    rows = farm.reader.telemetry.parts(card_id, now - length, now, part_s)
    return [TelemetryPoint(at=row.at, span_s=row.span_s, **asdict(row.figures)) for row in rows]


@router.get("/cards/{card_id}/history", summary="What happened to a card", responses=_HISTORY)
def history(farm: Farm, card_id: str) -> list[CardEvent]:
    """The last ten attempts that failed or were lost on it, the last five silences of seven days, and since when it gets no work."""
    return card_history(farm, card_id)


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
