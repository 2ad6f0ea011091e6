"""Jobs: submit, list, show, and what people ask of them."""

import secrets
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, File, Form, Header, Query, Response, UploadFile
from pydantic import BaseModel, Field

from dashboard.access import own_job
from dashboard.intake import Upload, take_in
from dashboard.parts import Parts, parts, who
from dashboard.problems import documented
from dashboard.views import show_job, show_jobs, stored_view
from farm.answers.jobs import JobPage, JobView
from farm.auth import Credential
from farm.errors import BadInputError, ConflictError
from farm.model import JobStatus
from farm.states import ENDED_JOBS
from farm.store.reader import JobSort
from farm.store.requests import RequestKind
from farm.submit import MAX_PRIORITY, MAX_SEED

router = APIRouter(tags=["jobs"])

Farm = Annotated[Parts, Depends(parts)]
Who = Annotated[Credential, Depends(who)]
MAX_KEY = 255


class Rating(BaseModel):
    """A person's opinion of a clip."""

    rating: Annotated[int, Field(ge=1, le=5, description="1 (useless) to 5 (just right)")]


class Priority(BaseModel):
    """Where in the queue a job stands."""

    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="higher goes first")]


@router.post(
    "/jobs",
    status_code=201,
    summary="Submit a picture",
    responses=documented(400, 401, 409, 413, 422, s200="The job that this key and request made before"),
)
async def submit(
    farm: Farm,
    me: Who,
    response: Response,
    image: Annotated[
        UploadFile | None, File(description="A PNG, JPEG or WebP file; needed unless `input_sha256` is sent")
    ] = None,
    settings: Annotated[
        str, Form(description='JSON, such as {"preset": "draft", "prompt": "slow zoom"}; all optional')
    ] = "",
    input_sha256: Annotated[
        str | None,
        Form(
            description="The SHA-256 of a picture as the farm keeps it (`input_sha256` of a job, and in each clip's metadata). "
            "Without `image`: the picture to take, which must be some job's input. With it: what the picture must come to"
        ),
    ] = None,
    batch: Annotated[
        str | None, Form(description="A name for many jobs; `GET /batches/{id}` counts them")
    ] = None,
    idempotency_key: Annotated[
        str | None, Header(description="Makes a repeat safe: the same key and request give the same job")
    ] = None,
) -> JobView:
    """Stores the picture and a queued job, also while the scheduler is down.

    201 once both are on the disk. A repeat under the same `Idempotency-Key` gives 200 with the first job, another request under that
    key 409. On an error nothing is stored.
    """
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= MAX_KEY:
        raise BadInputError("Idempotency-Key", f"The key must have 1 to {MAX_KEY} characters.")
    upload = Upload(
        picture=None if image is None else await image.read(),
        settings=settings,
        seed=secrets.randbelow(MAX_SEED + 1),
        by=me.owner,
        idempotency_key=idempotency_key,
        input_sha256=input_sha256,
        batch=batch,
    )
    stored, is_new = await to_thread.run_sync(_take_in, farm, upload, limiter=farm.intake)
    if is_new:
        farm.live.wake()
        farm.live.announce(stored.id, stored.status)
    else:
        response.status_code = 200
    response.headers["location"] = f"/api/v1/jobs/{stored.id}"
    return stored


def _take_in(farm: Parts, upload: Upload) -> tuple[JobView, bool]:
    job, is_new = take_in(farm, upload)
    return stored_view(farm, job), is_new


@router.get("/jobs", summary="List jobs", responses=documented(401, 422))
def list_jobs(
    farm: Farm,
    status: Annotated[JobStatus | None, Query()] = None,
    model: Annotated[str | None, Query()] = None,
    card: Annotated[str | None, Query(description="the id of a card that tried the job")] = None,
    q: Annotated[str | None, Query(max_length=200, description="words of the prompt")] = None,
    batch: Annotated[str | None, Query(description="the id of a batch")] = None,
    ended_since: Annotated[
        float | None, Query(ge=0, le=2**40, description="ended at or after, seconds since 1970")
    ] = None,
    sort: Annotated[
        JobSort,
        Query(
            description="`ended`: last ended first, only ended ones; `rating`: best first, only rated ones"
        ),
    ] = "newest",
    cursor: Annotated[int | None, Query(ge=1, le=2**53, description="from the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> JobPage:
    """Jobs with their newest attempt. A page's `cursor` asks for the next of the same sort; it stays right while jobs are added."""
    return show_jobs(
        farm,
        status=status,
        model=model,
        card=card,
        q=q,
        batch=batch,
        ended_since=ended_since,
        sort=sort,
        cursor=cursor,
        limit=limit,
    )


@router.get("/jobs/{job_id}", summary="Show a job", responses=documented(401, 404))
def one_job(farm: Farm, job_id: str) -> JobView:
    """A job with its place in the queue, why it waits, and all its attempts."""
    return show_job(farm, job_id)


@router.post(
    "/jobs/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=documented(401, 404, 409)
)
def cancel(farm: Farm, me: Who, job_id: str) -> JobView:
    """Asks the scheduler to stop the job; until it has, the job shows `cancel_requested`."""
    status = own_job(farm, me, job_id).status
    if status in ENDED_JOBS:
        raise ConflictError(f"Job {job_id} is {status} already; there is nothing to cancel.")
    return _ask(farm, me, RequestKind.CANCEL, job_id)


@router.post(
    "/jobs/{job_id}/retry", status_code=202, summary="Try a job again", responses=documented(401, 404, 409)
)
def retry(farm: Farm, me: Who, job_id: str) -> JobView:
    """Asks the scheduler to queue a failed or cancelled job again."""
    job = own_job(farm, me, job_id)
    status = job.status
    if status not in (JobStatus.FAILED, JobStatus.CANCELLED):
        remedy = "Submit the picture again for another clip." if status == JobStatus.FINISHED else ""
        raise ConflictError(
            f"Job {job_id} is {status}; only failed and cancelled jobs can be tried again.", remedy
        )
    if job.removed_at is not None:
        raise ConflictError(f"The picture of job {job_id} was deleted to make room.", "Submit it again.")
    return _ask(farm, me, RequestKind.RETRY, job_id)


@router.post(
    "/jobs/{job_id}/priority",
    status_code=202,
    summary="Move a job in the queue",
    responses=documented(401, 404, 409, 422),
)
def set_priority(farm: Farm, me: Who, job_id: str, wish: Priority) -> JobView:
    """Asks the scheduler to move a waiting job in the queue."""
    status = own_job(farm, me, job_id).status
    if status in ENDED_JOBS:
        raise ConflictError(f"Job {job_id} is {status}; it is not in the queue any more.")
    return _ask(farm, me, RequestKind.PRIORITY, job_id, wish.priority)


@router.post("/jobs/{job_id}/rating", summary="Rate a clip", responses=documented(401, 404, 409, 422))
def rate(farm: Farm, me: Who, job_id: str, opinion: Rating) -> JobView:
    """Stores a rating of a finished clip; a later one replaces it."""
    job = own_job(farm, me, job_id)
    if not farm.requests.rate(job_id, opinion.rating):
        raise ConflictError(f"Job {job_id} is {job.status}; only a finished clip can be rated.")
    farm.live.announce(job_id, job.status)
    return show_job(farm, job_id)


class Star(BaseModel):
    """Whether a job's picture and clip are kept for ever."""

    starred: bool = True


_KEEP = Star()


@router.post("/jobs/{job_id}/star", summary="Keep a job's files", responses=documented(401, 404, 409, 422))
def star(farm: Farm, me: Who, job_id: str, wish: Star = _KEEP) -> JobView:
    """Keeps the job's picture and clip for ever, whatever the farm's retention is; `starred: false` ends that."""
    job = own_job(farm, me, job_id)
    if not farm.requests.star(job_id, starred=wish.starred):
        raise ConflictError(f"The files of job {job_id} are deleted already; there is nothing to keep.")
    farm.live.announce(job_id, job.status)
    return show_job(farm, job_id)


def _ask(farm: Parts, me: Credential, kind: RequestKind, job_id: str, value: int | None = None) -> JobView:
    farm.requests.ask(kind, job_id, farm.now(), by=me.owner, value=value)
    farm.live.wake()
    shown = show_job(farm, job_id)
    farm.live.announce(job_id, shown.status)
    return shown
