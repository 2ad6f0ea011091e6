"""Server-sent events: what happens on the farm, as it happens."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header
from starlette.responses import StreamingResponse

from dashboard.parts import Parts, parts
from dashboard.problems import documented

router = APIRouter(tags=["events"])

Farm = Annotated[Parts, Depends(parts)]
LastId = Annotated[str | None, Header(alias="Last-Event-ID", description="the last event that arrived")]
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`snapshot` (all that is live, on a first connection), then `job`, `card` and `link` as they change, and `queue` "
        "when places and times in the queue have (`GET /jobs/{id}` has them); "
        "`reset` says to fetch everything again. A comment every 15 s keeps the line open.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


class EventStream(StreamingResponse):
    """Not FastAPI's class for it: where a route names that, FastAPI takes the handler for a generator of events and calls it itself."""

    media_type = "text/event-stream"


def _stream(events: AsyncIterator[bytes]) -> EventStream:
    # X-Accel-Buffering: nginx in front would otherwise hold events back.
    return EventStream(events, headers={"cache-control": "no-store", "x-accel-buffering": "no"})


@router.get(
    "/events",
    summary="Follow the farm",
    response_class=EventStream,
    response_model=None,
    responses=_STREAM | documented(401),
)
async def all_events(farm: Farm, last_event_id: LastId = None) -> EventStream:
    """Everything that happens; resumable with `Last-Event-ID`."""
    return _stream(farm.live.events(last_id=last_event_id))


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=EventStream,
    response_model=None,
    responses=_STREAM | documented(401, 404),
)
async def job_events(farm: Farm, job_id: str, last_event_id: LastId = None) -> EventStream:
    """What happens to one job; resumable with `Last-Event-ID`."""
    await to_thread.run_sync(farm.reader.job, job_id)
    return _stream(farm.live.events(job_id, last_event_id))
