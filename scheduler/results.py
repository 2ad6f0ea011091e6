"""Brings a finished attempt's files home: fetched from the node, checked by hash, proved by decoding, stored by content."""

import asyncio
import hashlib

from farm.artifacts import ArtifactStore
from farm.errors import RenderFailedError
from farm.events import Done, SpooledFile
from farm.model import Artifact, Attempt, Job
from farm.stages import ClipShape, delivered, stage_after
from farm.store.writer import Result, StageResult
from farm.video import verify
from scheduler.cluster import Cluster


async def collect(
    cluster: Cluster, artifacts: ArtifactStore, attempt: Attempt, job: Job, done: Done
) -> Result:
    """Fetches, verifies and stores the finished clip and its thumbnail.

    Raises:
        RenderFailedError: a file is not what the worker said, or the video does not decode to what was ordered. So too where the attempt
            is of a stage that another one follows: what that leaves is no finished clip.
        NodeGoneError: the node stopped answering in between; ask again later.
    """
    following = stage_after(job.settings, attempt.stage)
    if following is not None:
        raise RenderFailedError(
            f"What {attempt.card_name} made is for the stage {following}, not for people."
        )
    video, thumbnail = await asyncio.gather(
        _fetch(cluster, attempt, done.video), _fetch(cluster, attempt, done.thumbnail)
    )
    shape = delivered(job.settings, attempt.stage)
    stored = await asyncio.to_thread(_store_video, artifacts, shape, video)
    picture = await asyncio.to_thread(artifacts.put, thumbnail, "image/jpeg")
    return Result(stored.sha256, picture.sha256, done.stage_seconds, done.peak_gib, done.at)


async def collect_stage(
    cluster: Cluster, artifacts: ArtifactStore, attempt: Attempt, job: Job, done: Done
) -> StageResult:
    """Fetches, verifies and stores the clip that an attempt leaves for the job's next stage.

    Raises:
        As `collect`.
    """
    video = await _fetch(cluster, attempt, done.video)
    shape = delivered(job.settings, attempt.stage)
    stored = await asyncio.to_thread(_store_video, artifacts, shape, video)
    return StageResult(stored, done.stage_seconds, done.peak_gib, done.at)


async def _fetch(cluster: Cluster, attempt: Attempt, file: SpooledFile) -> bytes:
    data = await cluster.read(attempt.node_id, attempt.id, file.name)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise RenderFailedError(
            f"{file.name} changed on its way from {attempt.card_name}.", "It will be made again."
        )
    return data


def _store_video(artifacts: ArtifactStore, shape: ClipShape, video: bytes) -> Artifact:
    stored = artifacts.put(video, "video/mp4")
    try:
        verify(
            artifacts.path(stored.sha256),
            width=shape.width,
            height=shape.height,
            frames=shape.frames,
            fps=shape.fps,
            pixel_format=shape.pixel_format,
        )
    except RenderFailedError:
        artifacts.delete(stored.sha256)
        raise
    return stored
