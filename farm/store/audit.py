"""Holds the store, and the files it names, to what the farm promises. For tests and benchmarks, and for whoever doubts a farm."""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.engine import Engine, RowMapping

from farm.artifacts import ArtifactStore
from farm.errors import FarmError
from farm.model import AttemptStatus, JobStatus, StageKind
from farm.stages import delivered, stage_before, stages_of
from farm.states import ENDED_JOBS, LIVE_ATTEMPTS
from farm.store import schema
from farm.store.rows import settings_from_json
from farm.video import verify


def audit(engine: Engine, artifacts: ArtifactStore, submitted: Collection[str] = ()) -> list[str]:
    """What is wrong, a sentence each. An empty list means that all of this holds.

    - No job of `submitted` (ids) is missing. Every job has the attempts of its status: one live one while it runs, else none.
    - A card has one live attempt at most, and none that ended took more than the card's memory, or was planned to.
    - A finished job has exactly one finished attempt of its last stage and one at least of those before, was told finished once, and its
      video is there, whole, and as ordered, unless retention has removed it.
    - An open job that is beyond its first stage has the clip that the stage before left.

    Decodes every video: a second for some twenty clips.
    """
    with engine.connect() as connection:
        jobs = {row["id"]: row for row in connection.execute(sa.select(schema.jobs)).mappings()}
        attempts = list(connection.execute(sa.select(schema.attempts)).mappings())
        cards = {row["id"]: row for row in connection.execute(sa.select(schema.cards)).mappings()}
        between = {
            (row.job_id, row.stage): str(row.sha256)
            for row in connection.execute(sa.select(schema.stage_artifacts))
        }
        told = Counter(
            connection.scalars(sa.select(schema.story.c.job_id).where(schema.story.c.what == "finished"))
        )
    of_job: dict[str, list[RowMapping]] = {job_id: [] for job_id in jobs}
    for attempt in attempts:
        of_job[attempt["job_id"]].append(attempt)
    wrong = [f"job {job_id} was submitted and is not there" for job_id in submitted if job_id not in jobs]
    wrong += _of_cards(attempts, cards)
    for job_id, job in jobs.items():
        wrong += _of_job(job, of_job[job_id], told[job_id])
        if job["status"] in (JobStatus.QUEUED, JobStatus.RUNNING):
            wrong += _of_source(job, between, artifacts)
        if job["status"] == JobStatus.FINISHED and job["removed_at"] is None:
            wrong += _of_video(job, artifacts)
    return wrong


def _of_cards(attempts: Collection[RowMapping], cards: dict[str, RowMapping]) -> list[str]:
    live = Counter(attempt["card_id"] for attempt in attempts if attempt["status"] in LIVE_ATTEMPTS)
    wrong = [f"card {card_id} has {number} live attempts" for card_id, number in live.items() if number > 1]
    for attempt in attempts:
        has = cards[attempt["card_id"]]["vram_gib"]
        for what, gib in (("took", attempt["peak_gib"]), ("was planned to take", attempt["predicted_gib"])):
            if has is not None and gib is not None and gib > has:
                wrong.append(
                    f"attempt {attempt['id']} {what} {gib:.2f} GiB of {has:.2f} on {attempt['card_name']}"
                )
    return wrong


def _of_job(job: RowMapping, attempts: Collection[RowMapping], told_finished: int) -> list[str]:
    name, status = f"job {job['id']}", JobStatus(job["status"])
    live = sum(attempt["status"] in LIVE_ATTEMPTS for attempt in attempts)
    stages = stages_of(settings_from_json(job["settings"]))
    last = stages[-1]
    finished = sum(
        attempt["status"] == AttemptStatus.FINISHED for attempt in attempts if attempt["stage"] == last
    )
    is_finished = status == JobStatus.FINISHED
    wrong = []
    if live != (status == JobStatus.RUNNING):
        wrong.append(f"{name} is {status} and has {live} live attempts")
    if finished != is_finished or told_finished != is_finished:
        made = f"{finished} finished attempts of its stage {last}"
        wrong.append(f"{name} is {status}, has {made}, told so {told_finished} times")
    done = {attempt["stage"] for attempt in attempts if attempt["status"] == AttemptStatus.FINISHED}
    missing = set(stages) - done
    if is_finished and missing:
        wrong.append(f"{name} is {status} without a finished attempt of {', '.join(sorted(missing))}")
    if (job["video_sha256"] is not None) != is_finished:
        wrong.append(f"{name} is {status} and has {'a' if job['video_sha256'] else 'no'} video")
    if (job["finished_at"] is not None) != (status in ENDED_JOBS):
        wrong.append(f"{name} is {status}, its end is {job['finished_at']}")
    if sorted(attempt["number"] for attempt in attempts) != list(range(1, len(attempts) + 1)):
        wrong.append(f"{name} has attempts without their own numbers")
    return wrong


def _of_source(
    job: RowMapping, between: Mapping[tuple[str, str], str], artifacts: ArtifactStore
) -> list[str]:
    before = stage_before(settings_from_json(job["settings"]), StageKind(job["stage"]))
    if before is None:
        return []
    clip = between.get((job["id"], before))
    if clip is not None and artifacts.exists(clip):
        return []
    at = f"job {job['id']} is {job['status']} at its stage {job['stage']}"
    return [f"{at}, and the clip of its stage {before} is not there"]


def _of_video(job: RowMapping, artifacts: ArtifactStore) -> list[str]:
    """The clip that the job names is there, has its hash, and is what was ordered."""
    settings, sha256 = settings_from_json(job["settings"]), job["video_sha256"] or ""
    shape = delivered(settings, stages_of(settings)[-1])
    try:
        if hashlib.sha256(artifacts.read(sha256)).hexdigest() != sha256:
            return [f"the video of job {job['id']} is not the one that was stored"]
        verify(
            artifacts.path(sha256),
            width=shape.width,
            height=shape.height,
            frames=shape.frames,
            fps=shape.fps,
            pixel_format=shape.pixel_format,
        )
    except FarmError as error:
        return [f"the video of job {job['id']}: {error}"]
    return []
