"""Server-sent events: what happens on the farm, as it happens."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse

from dashboard.parts import Parts, parts
from dashboard.problems import documented

router = APIRouter(tags=["events"])

Farm = Annotated[Parts, Depends(parts)]
LastId = Annotated[str | None, Header(alias="Last-Event-ID", description="the last event that arrived")]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`snapshot` (all that is live, on a first connection), then `job`, `card` and `link` as they change, and `queue` "
        "when places and times in the queue have (`GET /jobs/{id}` has them); "
        "`reset` says to fetch everything again. `beat` comes when nothing else has for 15 s: a line without it for longer is dead.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


def _stream(events: AsyncIterator[bytes]) -> EventSourceResponse:
    # X-Accel-Buffering: nginx in front would otherwise hold events back.
    return EventSourceResponse(events, headers={"cache-control": "no-store", "x-accel-buffering": "no"})


@router.get("/events", summary="Follow the farm", response_model=None, responses=_STREAM | documented(401))
async def all_events(farm: Farm, last_event_id: LastId = None) -> EventSourceResponse:
    """Everything that happens; resumable with `Last-Event-ID`."""
    return _stream(farm.live.events(last_id=last_event_id))


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_model=None,
    responses=_STREAM | documented(401, 404),
)
async def job_events(farm: Farm, job_id: str, last_event_id: LastId = None) -> EventSourceResponse:
    """What happens to one job; resumable with `Last-Event-ID`."""
    await to_thread.run_sync(farm.reader.job, job_id)
    return _stream(farm.live.events(job_id, last_event_id))
