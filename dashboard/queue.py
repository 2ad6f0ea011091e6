"""Where jobs stand in the queue, when they should be done and why they wait: what the scheduler told, and what is said until it has."""

from collections.abc import Sequence

from dashboard.parts import Parts
from farm.answers.jobs import EtaView
from farm.feed import LiveJob
from farm.model import Job, JobStatus
from farm.states import ENDED_JOBS

SCHEDULER_DOWN = (
    "The scheduler is not running at the moment; the job is stored and will be taken up when it is back."
)


def eta(parts: Parts, job: Job, position: int | None) -> EtaView | None:
    """By the job's own place in the queue as it was played forward, or, far behind, by the curve of its kind."""
    told = parts.live.told
    if not parts.live.connected or told is None or job.status in ENDED_JOBS:
        return None
    done, exact = told.expected(job, position)
    return (
        None if done is None else EtaView(at=done.at, low_at=done.low_at, high_at=done.high_at, exact=exact)
    )


def why_pending(parts: Parts, job: Job, live: LiveJob | None, position: int | None) -> str | None:
    """Why a queued job waits; None for any other."""
    if job.status != JobStatus.QUEUED:
        return None
    if not parts.live.connected:
        return SCHEDULER_DOWN
    known = job.unplaceable or (live.why if live else None)
    if known is None and parts.live.told is not None:
        known = parts.live.told.why(job, position)
    return known or parts.reasons.why(job)


def positions(parts: Parts, jobs: Sequence[Job]) -> dict[str, int]:
    """The position in the queue of each of these jobs that waits, by id.

    As the scheduler told it. A job that came since stands behind all of its priority until the next telling, seconds later; one that the
    scheduler has not told of otherwise, as while it is down, stands as the store has it: by priority, then by submission.
    """
    told = parts.live.told
    found: dict[str, int] = {}
    unheard: list[str] = []
    for job in jobs:
        if job.status != JobStatus.QUEUED:
            continue
        position = None if told is None else told.position(job)
        if position is not None:
            found[job.id] = position
        elif told is not None and job.seq is not None and job.seq > told.queue.newest:
            came = parts.reader.came_before(job, told.queue.newest)
            found[job.id] = told.last_of(job.priority) + came + 1
        else:
            unheard.append(job.id)
    return found | (parts.reader.positions(unheard) if unheard else {})
