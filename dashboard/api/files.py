"""A job's files: video, thumbnail, preview, input, and its story as text."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import FileResponse, PlainTextResponse, Response

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from dashboard.views import preview_path
from farm.animation import MOST_LOOPS, ClipFormat
from farm.errors import BadInputError, NotFoundError
from farm.model import Attempt, Job, JobStatus
from farm.stages import clip_fps
from farm.store.reader import StoryLine

router = APIRouter(tags=["files"])

Farm = Annotated[Parts, Depends(parts)]
FOR_EVER = "private, max-age=31536000, immutable"
"""A file is named by its hash and a finished job keeps its files, so these never change; `private` keeps them out of shared caches."""
A_DAY = "private, max-age=86400"
"""For what is made from a file that never changes: a newer farm may make it better."""
ASK_AGAIN = "private, no-cache"
"""For what another file takes the place of one day: kept, but asked for with its tag each time."""
_SUFFIX = {"image/png": "png", "image/jpeg": "jpg", "image/webp": "webp"}


def _stored(farm: Parts, request: Request, sha256: str, media_type: str, name: str | None = None) -> Response:
    """A stored file, whole or by Range; 304 where the browser has it."""
    return _file(request, _path(farm, sha256), sha256, media_type, name, FOR_EVER)


def _path(farm: Parts, sha256: str) -> Path:
    path = farm.artifacts.path(sha256)
    if not path.is_file():
        raise NotFoundError(
            "The file is not in the farm's store any more.", "It was deleted or not restored."
        )
    return path


def _file(
    request: Request, path: Path, sha256: str, media_type: str, name: str | None, kept: str
) -> Response:
    headers = {"etag": f'"{sha256}"', "cache-control": kept}
    if _has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    return FileResponse(path, media_type=media_type, filename=name, headers=headers)


def _has(request: Request, tag: str) -> bool:
    """Whether the browser has the file of this tag."""
    known = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    return bool(known & {tag, "*"})


@router.get(
    "/jobs/{job_id}/video",
    summary="The clip (MP4, GIF or WebP)",
    response_class=FileResponse,
    responses=documented(401, 404, 416, 422, 503, s206="The asked range of bytes", s304="Not modified"),
)
async def video(
    farm: Farm,
    request: Request,
    job_id: str,
    format: Annotated[
        ClipFormat, Query(description="gif and webp are made from the MP4 when they are first asked for")
    ] = ClipFormat.MP4,
    loop: Annotated[
        int, Query(ge=0, le=MOST_LOOPS, description="how often a GIF or WebP plays; 0 for ever")
    ] = 0,
    download: Annotated[bool, Query(description="as a file to save")] = False,
) -> Response:
    """The finished clip; answers Range requests, so that browsers can seek.

    As a GIF its frames keep their times to the hundredth of a second (above 50 fps it has 50 frames a second), as a WebP to the
    thousandth. Making one takes seconds, for the largest clips a minute; 503 when it fails or too many wait for theirs.
    """
    job = await to_thread.run_sync(farm.reader.job, job_id)
    _there(job)
    if job.video_sha256 is None:
        waits = job.status in (JobStatus.QUEUED, JobStatus.RUNNING)
        remedy = "Ask again when it is finished." if waits else f"`farm retry {job_id}` tries again."
        raise NotFoundError(f"Job {job_id} has no video: it is {job.status}.", remedy)
    name = f"{job.id}{'-draft' if job.draft else ''}.{format}" if download else None
    if format is ClipFormat.MP4:
        if loop:
            raise BadInputError("loop", "An MP4 does not say how often it plays.", "Ask for a GIF or WebP.")
        return await to_thread.run_sync(_stored, farm, request, job.video_sha256, format.media_type, name)
    clip = await to_thread.run_sync(_path, farm, job.video_sha256)
    made = await farm.animations.of(clip, job.video_sha256, format, fps=clip_fps(job.settings), loop=loop)
    return _file(request, made.path, made.sha256, format.media_type, name, A_DAY)


@router.get(
    "/jobs/{job_id}/thumbnail",
    summary="A still of the clip or of the picture (JPEG)",
    response_class=FileResponse,
    responses=documented(401, 404, 422, 503, s304="Not modified"),
)
async def thumbnail(
    farm: Farm,
    request: Request,
    job_id: str,
    of: Annotated[
        Literal["clip", "input"] | None,
        Query(description="without it the clip once there is one, else the picture"),
    ] = None,
) -> Response:
    """A small still of the finished clip, or of the picture that was sent: 320 pixels wide, or on its longer side."""
    job = await to_thread.run_sync(farm.reader.job, job_id)
    _there(job)
    if of != "input" and job.thumbnail_sha256 is not None:
        return await to_thread.run_sync(_stored, farm, request, job.thumbnail_sha256, "image/jpeg")
    if of == "clip":
        raise NotFoundError(f"Job {job_id} has no clip to show: it is {job.status}.")
    picture = await to_thread.run_sync(_path, farm, job.input_sha256)
    headers = {
        "etag": f'"{farm.stills.name(job.input_sha256)}"',
        "cache-control": A_DAY if of == "input" else ASK_AGAIN,
    }
    if _has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    made = await farm.stills.of(picture, job.input_sha256)
    return Response(made, media_type="image/jpeg", headers=headers)


@router.get(
    "/jobs/{job_id}/preview",
    summary="What a running job looks like now (JPEG)",
    response_class=Response,
    responses=documented(401, 404),
)
def preview(farm: Farm, job_id: str) -> Response:
    """The newest small picture of a render that is going on."""
    path = preview_path(farm, farm.reader.job(job_id).id)
    try:
        data = path.read_bytes()  # a few KB, replaced as a whole with each new one
    except FileNotFoundError as error:
        raise NotFoundError(f"Job {job_id} has no preview.", "Only running jobs have one.") from error
    return Response(data, media_type="image/jpeg", headers={"cache-control": "no-store"})


@router.get(
    "/jobs/{job_id}/input",
    summary="The picture that was sent",
    response_class=FileResponse,
    responses=documented(401, 404, s304="Not modified"),
)
def input_picture(
    farm: Farm,
    request: Request,
    job_id: str,
    download: Annotated[bool, Query(description="as a file to save")] = False,
) -> Response:
    """The picture as the farm keeps it: upright, 8-bit sRGB, without metadata."""
    job = farm.reader.job(job_id)
    _there(job)
    media_type = farm.reader.artifact_media_type(job_id)
    name = f"{job.id}.{_SUFFIX.get(media_type, 'bin')}" if download else None
    return _stored(farm, request, job.input_sha256, media_type, name)


@router.get(
    "/jobs/{job_id}/log",
    summary="What happened to a job",
    response_class=PlainTextResponse,
    responses=documented(401, 404),
)
def job_log(farm: Farm, job_id: str) -> PlainTextResponse:
    """The job's story as plain text, with each attempt's reasons and details. Times are UTC."""
    job = farm.reader.job(job_id)
    attempts = {attempt.id: attempt for attempt in farm.reader.attempts(job_id)}
    lines = [
        f"job {job.id}  {job.status}",
        f"{_time(job.created_at)}  submitted by {job.submitted_by or 'nobody known'}: {_settings(job)}",
        *(_story_line(line, attempts) for line in farm.reader.story(job_id)),
    ]
    if job.unplaceable:
        lines.append(f"no card can serve it: {job.unplaceable}")
    if job.failure:
        lines.append(f"failed: {job.failure}")
    return PlainTextResponse("\n".join(lines) + "\n")


def _there(job: Job) -> None:
    if job.removed_at is not None:
        raise NotFoundError(
            f"Picture and clip of job {job.id} were deleted on {_time(job.removed_at)}, to make room.",
            "A star on a job's page keeps its files for ever.",
        )


def _settings(job: Job) -> str:
    """The settings as JSON that can be sent again, the preset first."""
    preset = {"preset": job.preset} if job.preset else {}
    return json.dumps(preset | asdict(job.settings), ensure_ascii=False)


def _story_line(line: StoryLine, attempts: dict[str, Attempt]) -> str:
    attempt = attempts.get(line.attempt_id or "")
    where = f"  [attempt {attempt.number} on {attempt.card_name}]" if attempt else ""
    detail = line.detail.replace("\n", "\n    ")
    return f"{_time(line.at)}{where}  {line.what}{': ' if detail else ''}{detail}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
