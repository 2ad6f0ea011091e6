"""Jobs and batches: what was asked, where each stands, and what was tried."""

from farm.answers.base import Answer
from farm.model import Basis, FailureClass, JobStatus, MemoryPlan, RenderSettings, StageKind, Tier


class ProgressView(Answer):
    """How far a running job is: `done` of `total` steps, or frames where `stage` interpolates."""

    done: int = 0
    total: int = 0
    seconds_per_step: float | None = None
    eta_s: float | None = None
    phase: str = ""
    stage: StageKind = StageKind.GENERATE


class StageView(Answer):
    """A stage of a job. `status` as of a job, or "not begun" while an earlier one is not done.

    `attempts` counts its tries; card and `seconds` (from assigned to its end) are of the one that gave its clip, or the newest.
    `sha256` names that clip as the farm keeps it, once there is one.
    """

    stage: StageKind
    status: str
    attempts: int = 0
    card_id: str | None = None
    card_name: str | None = None
    seconds: float | None = None
    sha256: str | None = None


class EtaView(Answer):
    """When a job is expected to be done, wall seconds since 1970: `low_at` to `high_at` hold the truth in four of five cases.

    `exact`: the queue was played forward to this job; else it stands so far behind that its time is told from the queue's pace.
    """

    at: float
    low_at: float
    high_at: float
    exact: bool = True


class AttemptView(Answer):
    """One try of a job on a card. `resumed_step`: the step after which it went on, from a checkpoint of an earlier try."""

    id: str
    number: int
    stage: StageKind
    node_id: str
    card_id: str
    card_name: str
    status: str
    memory_plan: MemoryPlan
    assigned_at: float
    started_at: float | None = None
    finished_at: float | None = None
    stage_seconds: dict[str, float] = {}
    peak_gib: float | None = None
    failure_class: FailureClass | None = None
    reason: str | None = None
    notes: list[str] = []
    predicted_s: float | None = None
    predicted_gib: float | None = None
    energy_wh: float | None = None
    predicted_low_s: float | None = None
    predicted_high_s: float | None = None
    predicted_basis: Basis | None = None
    resumed_step: int | None = None


class JobUrls(Answer):
    """Where a job's files are, as paths on the head; None for a file that is not there (yet).

    `thumbnail` is of the clip once there is one, else of the picture.
    """

    video: str | None = None
    thumbnail: str | None = None
    preview: str | None = None
    input: str
    log: str
    page: str


class JobView(Answer):
    """A job as people see it: what was asked, where it stands, and why.

    `draft` says that the clip is a camera move and no diffusion render. `position` counts from 1 and is known of every queued job that was
    asked for by itself, in a list of the first some hundred; so is `eta`, which running jobs have too. `why_pending` says what a queued job
    waits for. `input_sha256` names the picture as the farm keeps it; `POST /jobs` takes it in place of an upload. `stages` are known of a
    job that was asked for by itself. `energy_wh`: what all its attempts drew, watt-hours, None where no card told its power.
    The files of a `starred` job are kept for ever; `removed_at` is when picture and clip were deleted to make room.
    """

    id: str
    status: JobStatus
    settings: RenderSettings
    preset: str | None = None
    tier: Tier
    draft: bool = False
    model: str
    prompt: str = ""
    priority: int = 0
    anywhere: bool = False
    needs: list[str] = []
    submitted_by: str = ""
    input_sha256: str | None = None
    created_at: float
    finished_at: float | None = None
    progress: ProgressView | None = None
    position: int | None = None
    eta: EtaView | None = None
    why_pending: str | None = None
    unplaceable: str | None = None
    failure: str | None = None
    cancel_requested: bool = False
    rating: int | None = None
    starred: bool = False
    removed_at: float | None = None
    batch: str | None = None
    card_id: str | None = None
    card_name: str | None = None
    energy_wh: float | None = None
    attempts: list[AttemptView] = []
    stages: list[StageView] = []
    urls: JobUrls

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the job by itself."""
        return self.status in (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELLED)


class JobPage(Answer):
    """A page of jobs, newest first; `cursor` leads to the next page, None at the end."""

    jobs: list[JobView]
    cursor: int | None = None


class BatchView(Answer):
    """Many jobs under one name: how many there are, by status, since when, and whether all have ended.

    `job_ids` are those that this call made, in the order of the pictures; empty where none were sent.
    """

    id: str
    jobs: int
    counts: dict[JobStatus, int]
    created_at: float
    ended: bool
    job_ids: list[str] = []
