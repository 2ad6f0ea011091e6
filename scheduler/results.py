"""Brings a finished attempt's files home: fetched from the node, checked by hash, proved by decoding, stored by content."""

import asyncio
import hashlib

from farm.artifacts import ArtifactStore
from farm.errors import RenderFailedError
from farm.events import Done, SpooledFile
from farm.model import Attempt, Job
from farm.store.writer import Result
from farm.video import verify
from scheduler.cluster import Cluster


async def collect(
    cluster: Cluster, artifacts: ArtifactStore, attempt: Attempt, job: Job, done: Done
) -> Result:
    """Fetches, verifies and stores an attempt's video and thumbnail.

    Raises:
        RenderFailedError: a file is not what the worker said, or the video does not decode to what was ordered.
        NodeGoneError: the node stopped answering in between; ask again later.
    """
    video, thumbnail = await asyncio.gather(
        _fetch(cluster, attempt, done.video), _fetch(cluster, attempt, done.thumbnail)
    )
    stored = await asyncio.to_thread(_store_video, artifacts, job, video)
    picture = await asyncio.to_thread(artifacts.put, thumbnail, "image/jpeg")
    return Result(stored, picture.sha256, done.stage_seconds, done.peak_gib, done.at)


async def _fetch(cluster: Cluster, attempt: Attempt, file: SpooledFile) -> bytes:
    data = await cluster.read(attempt.node_id, attempt.id, file.name)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise RenderFailedError(
            f"{file.name} changed on its way from {attempt.card_name}.", "It will be made again."
        )
    return data


def _store_video(artifacts: ArtifactStore, job: Job, video: bytes) -> str:
    stored = artifacts.put(video, "video/mp4")
    settings = job.settings
    try:
        verify(
            artifacts.path(stored.sha256),
            width=settings.width,
            height=settings.height,
            frames=settings.frames,
            fps=settings.fps,
        )
    except RenderFailedError:
        artifacts.delete(stored.sha256)
        raise
    return stored.sha256
