"""What seeing an attempt through needs, and how it leaves its job."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farm.artifacts import ArtifactStore
from farm.clock import Clock
from farm.model import Attempt, Job, JobStatus
from farm.planning.memory import Room
from farm.store.reader import Reader
from farm.store.writer import Writer
from scheduler.board import Board
from scheduler.checkpoints import Checkpoints
from scheduler.cluster import Cluster
from scheduler.leases import Leases
from scheduler.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Ended:
    """How the attempt left its job: `outcome` for one that failed or was lost, None for any other.

    `advanced`: its stage is done, and the job waits with its next one. `lost`: nobody answers for it, and its clip may still come. `doubt`
    says why the card's worker must be heard before it gets work again, None where it need not.
    """

    attempt: Attempt
    job: Job
    status: JobStatus
    outcome: Outcome | None = None
    doubt: str | None = None
    lost: bool = False
    advanced: bool = False


@dataclass(frozen=True, slots=True)
class Desk:
    """What attending needs. `rivals` counts the other cards that could take a job, `larger` those that hold more of it.

    `kept` says why a card is its owner's for now. `room` is what a plan for a job may take on a card and its PC.
    """

    cluster: Cluster
    writer: Writer
    reader: Reader
    artifacts: ArtifactStore
    board: Board
    leases: Leases
    clock: Clock
    previews: Path
    checkpoints: Checkpoints
    rivals: Callable[[Job, str], int]
    larger: Callable[[Job, str], int]
    kept: Callable[[str], str | None]
    room: Callable[[Job, str], Room | None]


def expected_end(attempt: Attempt) -> float | None:
    """When the attempt should be over, wall seconds, by what was predicted; None where nothing was."""
    if attempt.predicted_s is None:
        return None
    return (attempt.started_at or attempt.assigned_at) + attempt.predicted_s
