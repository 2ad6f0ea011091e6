"""Server-sent events: what happens on the farm, as it happens."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Request
from starlette.responses import StreamingResponse

from dashboard import stream
from dashboard.parts import Parts, parts
from dashboard.problems import documented
from dashboard.signin import is_still_good

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


class EventStream(StreamingResponse):
    """Not FastAPI's class for it: where a route names that, FastAPI takes the handler for a generator of events and calls it itself."""

    media_type = "text/event-stream"


def _stream(request: Request, events: AsyncGenerator[bytes]) -> EventStream:
    # X-Accel-Buffering: nginx in front would otherwise hold events back.
    return EventStream(
        _while_good(request, events), headers={"cache-control": "no-store", "x-accel-buffering": "no"}
    )


async def _while_good(request: Request, events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    """The events until whoever asked for them may not see them any more: looked at with each heartbeat, and as often on a busy farm."""
    clock = asyncio.get_running_loop().time
    looked_at = clock()
    async with aclosing(events):
        async for event in events:
            if clock() - looked_at >= stream.HEARTBEAT_S:
                if not await to_thread.run_sync(is_still_good, request):
                    return
                looked_at = clock()
            yield event


@router.get(
    "/events",
    summary="Follow the farm",
    response_class=EventStream,
    response_model=None,
    responses=_STREAM | documented(401),
)
async def all_events(request: Request, farm: Farm, last_event_id: LastId = None) -> EventStream:
    """Everything that happens; resumable with `Last-Event-ID`."""
    return _stream(request, farm.live.events(last_id=last_event_id))


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=EventStream,
    response_model=None,
    responses=_STREAM | documented(401, 404),
)
async def job_events(request: Request, farm: Farm, job_id: str, last_event_id: LastId = None) -> EventStream:
    """What happens to one job; resumable with `Last-Event-ID`."""
    await to_thread.run_sync(farm.reader.job, job_id)
    return _stream(request, farm.live.events(job_id, last_event_id))
