"""What passes between the head and a card beside an attempt's words: the order with its files, and the pictures on the way."""

import asyncio
from contextlib import suppress
from pathlib import Path

from farm.errors import NotFoundError
from farm.model import Attempt, Job, StageKind
from farm.stages import stage_before
from farm.wire import Order
from scheduler.cluster import NodeGoneError, UnknownAttemptError, WorkerGoneError
from scheduler.desk import Desk


async def handover(desk: Desk, attempt: Attempt, job: Job) -> tuple[Order, bytes, bytes | None]:
    """The order of an attempt, what it works on (the picture, or the clip of the stage before), and the checkpoint that it goes on from.

    Raises:
        NotFoundError: what is worked on is not on the head.
    """
    source = _source_sha256(desk, attempt, job)
    work_on = await asyncio.to_thread(desk.artifacts.read, source or job.input_sha256)
    kept = None
    if attempt.stage is StageKind.GENERATE:
        kept = await asyncio.to_thread(desk.checkpoints.of, job.id)
    order = Order(
        attempt_id=attempt.id,
        job_id=job.id,
        stage=attempt.stage,
        settings=job.settings,
        plan=attempt.memory_plan,
        input_sha256=job.input_sha256,
        draft=job.draft,
        predicted_s=attempt.predicted_s,
        predicted_gib=attempt.predicted_gib,
        resumes=None if kept is None else kept.attempt,
        source_sha256=source,
        room=desk.room(job, attempt.card_id),
    )
    return order, work_on, None if kept is None else kept.state


def _source_sha256(desk: Desk, attempt: Attempt, job: Job) -> str | None:
    """The clip that the stage before left, None where the attempt works on the picture."""
    before = stage_before(job.settings, attempt.stage)
    if before is None:
        return None
    left = desk.reader.stage_artifacts(job.id).get(before)
    if left is None:
        raise NotFoundError(f"What the stage {before} left is not in the farm's store.", "Retry the job.")
    return left.sha256


def has_lost_its_clip(desk: Desk, job_id: str) -> bool:
    """Whether what the stage before a job's present one left is gone: from the disk, or let go of since the job ended."""
    job = desk.reader.job(job_id)
    before = stage_before(job.settings, job.stage)
    left = None if before is None else desk.reader.stage_artifacts(job.id).get(before)
    return before is not None and (left is None or not desk.artifacts.exists(left.sha256))


async def fetch_preview(desk: Desk, attempt: Attempt) -> None:
    """Brings the newest small picture of a render, for whoever looks at the job; one that cannot be had is left out."""
    with suppress(NodeGoneError, WorkerGoneError, UnknownAttemptError):
        picture = await desk.cluster.read(attempt.node_id, attempt.id, "preview.jpg")
        await asyncio.to_thread(_replace_file, preview_of(desk, attempt.job_id), picture)
        desk.board.change(attempt.job_id, preview=desk.board.preview_count(attempt.job_id) + 1)


def preview_of(desk: Desk, job_id: str) -> Path:
    """Where the newest small picture of a running job is."""
    return desk.previews / f"{job_id}.jpg"


def _replace_file(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".half")
    half.write_bytes(data)
    half.replace(path)
