"""Many jobs under one name."""

import secrets
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, File, Form, Header, Response, UploadFile

from dashboard.intake import Upload, take_in_all
from dashboard.parts import Parts, parts, who
from dashboard.problems import documented
from farm.answers.jobs import BatchView
from farm.auth import Credential
from farm.errors import BadInputError
from farm.ids import new_id
from farm.model import Job
from farm.states import ENDED_JOBS
from farm.submit import MAX_SEED

router = APIRouter(tags=["batches"])

Farm = Annotated[Parts, Depends(parts)]
Who = Annotated[Credential, Depends(who)]
MAX_PICTURES = 200
"""In one request; its size is limited too. `POST /jobs` with `batch` adds further ones, one by one."""
MAX_KEY = 240
"""Each picture's own key is this one with its number behind it."""


@router.post(
    "/batches",
    status_code=201,
    summary="Submit many pictures",
    responses=documented(400, 401, 409, 413, 422),
)
async def submit_batch(
    farm: Farm,
    me: Who,
    response: Response,
    image: Annotated[list[UploadFile], File(description="PNG, JPEG or WebP files, a clip of each")],
    settings: Annotated[str, Form(description="JSON, as for one job; the same for all")] = "",
    batch: Annotated[
        str | None,
        Form(description="The batch's name, which is its id; one that is there already gets more jobs"),
    ] = None,
    idempotency_key: Annotated[
        str | None, Header(description="Makes a repeat safe: the same key and request give the same jobs")
    ] = None,
) -> BatchView:
    """Stores all pictures and a queued job of each, or none: a picture that cannot be used is named `image[N]`, from 0."""
    if not 1 <= len(image) <= MAX_PICTURES:
        raise BadInputError("image", f"A batch has 1 to {MAX_PICTURES} pictures, not {len(image)}.")
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_KEY:
        raise BadInputError("Idempotency-Key", f"The key must have 1 to {MAX_KEY} characters.")
    # Of a repeat under the same key the batch must be the same too.
    name = batch or (f"batch {idempotency_key[:60]}" if idempotency_key else new_id())
    uploads = [
        Upload(
            picture=await one.read(),
            settings=settings,
            seed=secrets.randbelow(MAX_SEED + 1),
            by=me.owner,
            idempotency_key=f"{idempotency_key} {index}" if idempotency_key else None,
            batch=name,
        )
        for index, one in enumerate(image)
    ]
    names = [one.filename or f"picture {index + 1}" for index, one in enumerate(image)]
    jobs: list[Job] = await to_thread.run_sync(take_in_all, farm, uploads, names, limiter=farm.intake)
    farm.live.wake()
    for job in jobs:
        farm.live.announce(job.id, job.status)
    response.headers["location"] = f"/api/v1/batches/{name}"
    return batch_view(farm, name).model_copy(update={"job_ids": [job.id for job in jobs]})


@router.get("/batches/{batch_id}", summary="Show a batch", responses=documented(401, 404))
def show_batch(farm: Farm, batch_id: str) -> BatchView:
    """How many of its jobs stand where; `GET /jobs?batch=` lists them."""
    return batch_view(farm, batch_id)


def batch_view(farm: Parts, name: str) -> BatchView:
    """A batch as it stands.

    Raises:
        NotFoundError: there is none of this name.
    """
    created_at, counts = farm.reader.batch(name)
    return BatchView(
        id=name,
        jobs=sum(counts.values()),
        counts=counts,
        created_at=created_at,
        ended=all(status in ENDED_JOBS for status, count in counts.items() if count),
    )
