"""What the HTTP API answers, as typed values: the dashboard makes them, `farm.client` reads them. One copy for both.

Times are wall seconds since 1970, durations seconds, sizes GiB and pixels. `None` means "not known".
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from farm.model import (
    Basis,
    CardKind,
    FailureClass,
    JobStatus,
    MemoryPlan,
    PcieLink,
    RenderSettings,
    StageKind,
    Tier,
)
from farm.vitals import CardFacts, Vitals


class Answer(BaseModel):
    """What all answers share: frozen, and a newer head's further fields do not break an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


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


class CardView(Answer):
    """A card and what it does now.

    `state`: idle, busy, starting, kept (for its owner), "not answering", trouble, drained, paused, or "not known" while the scheduler
    cannot be reached.
    `silent_s` is how long nothing was heard of the card; `why` says more in a sentence; `notice` is worth knowing whatever it does.
    `bus_gb_s`: GB/s of a copy to the card; `precision`: what the farm computes in on it. `others_gib` is what other programs hold of it,
    already taken off `usable_gib`. `facts` is what NVML tells beside that, `vitals` how the card is now; None where its PC does not answer.
    `fetching` is its PC's.
    """

    id: str
    node_id: str
    node_name: str
    kind: CardKind
    name: str
    vram_gib: float | None = None
    usable_gib: float | None = None
    band: Tier
    compute_capability: str | None = None
    models: list[str] = []
    state: str
    why: str | None = None
    job_id: str | None = None
    silent_s: float | None = None
    last_seen: float | None = None
    driver: str | None = None
    pcie: PcieLink | None = None
    bus_gb_s: float | None = None
    ram_gib: float | None = None
    precision: str | None = None
    notice: str | None = None
    others_gib: float | None = None
    facts: CardFacts | None = None
    vitals: Vitals | None = None
    fetching: list[str] = []


class TelemetryPoint(Answer):
    """How a card fared from `at` on for `span_s` seconds: means, of the temperature the highest. None: not told.

    Share (0 to 1), GiB, degrees Celsius, watts, MHz of the shaders and of the memory.
    """

    at: float
    span_s: int
    utilization: float | None = None
    memory_used_gib: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    clock_mhz: float | None = None
    memory_clock_mhz: float | None = None


class CardEvent(Answer):
    """A thing that happened to a card at `at`, wall seconds.

    `what`: an attempt "failed" or was "lost" on it, of the job `job_id` and for the reason `why`; "silent": nothing was heard of it up to
    `until`, as its PC or the head was off or away; "paused": since then the farm gives it no work, for the reason `why`; "cleared": its
    last pause ended; "drained": since then a person wants no new work for its PC.
    """

    at: float
    until: float | None = None
    what: Literal["failed", "lost", "silent", "paused", "cleared", "drained"]
    why: str = ""
    job_id: str | None = None


class NodeView(Answer):
    """A PC of the farm and its cards. `drained_at`: since when a person wants no new work for it, None where it takes work.

    `fetching` has a line for each model that it gets from the head, as "i2vgen-xl 43 %, 1.9 GB to go", or why it cannot. `kept_out` is
    why the PC asks to join and cannot, such as a firewall or another version of the farm, with what helps.
    `owner_rules` is what its owner set, as "only while nobody uses the PC; hours 22:00-08:00"; empty where nothing is set.
    """

    id: str
    name: str
    address: str
    last_seen: float | None = None
    versions: dict[str, str] = {}
    cards: list[CardView] = []
    ram_gib: float | None = None
    ram_free_gib: float | None = None
    drained_at: float | None = None
    fetching: list[str] = []
    kept_out: str | None = None
    owner_rules: str = ""


class CardForecast(Answer):
    """What a render would come to on a card, before it runs.

    `fits` speaks of memory alone; `eligible` says that the card would take the job, else `reasons` say why not and `advice` what helps.
    `able`: nothing lasting speaks against it, only what passes, so that the job may wait for the card. `state` is that of `CardView`, None
    for a card that is not of the farm.
    `how_it_fits`: where a card cannot hold everything, what that would need, and what the plan costs in time.
    `tier` is the job's. `peak_gib` is what the caching allocator will reserve, without the CUDA context, as history records it; 0 where no
    GPU memory is needed. Where nothing fits, plan and peak are those that take the least, and no seconds are told. `usable_gib` is what the
    allocator may take, after the CUDA context. `seconds_low` to `seconds_high` hold the truth in four of five cases. `basis`: "measured"
    if attempts of this card with this model taught the prediction, "calibrated" if its own bench did, else "catalogue". `card_id` is None
    for a card that is not of the farm.
    """

    card: str
    card_id: str | None = None
    node_name: str | None = None
    vram_gib: float | None = None
    usable_gib: float | None = None
    fits: bool
    eligible: bool
    able: bool = False
    state: str | None = None
    tier: Tier
    reasons: list[str] = []
    advice: str = ""
    how_it_fits: str = ""
    memory_plan: MemoryPlan
    peak_gib: float
    peak_low_gib: float
    peak_high_gib: float
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    basis: Basis


class CalibrationView(Answer):
    """How often renders took as long as was foretold: shares of 0 to 1 of the last `renders` finished ones.

    `aim` is what `within` should be. `by_basis` has the same for what the predictions rested on. None where there is nothing to tell.
    """

    aim: float
    renders: int
    within: float | None = None
    quicker: float | None = None
    slower: float | None = None
    median_error: float | None = None
    by_basis: dict[Basis, "CalibrationView"] = {}


class ThroughputPart(Answer):
    """Part of a span: when it begins, and the clips per hour in it. Parts without a clip are left out."""

    at: float
    clips_per_hour: float


class Throughput(Answer):
    """What a card got done from `since` to `until`, from stored attempts. None where nothing was done to tell it from.

    `frames_per_minute` counts frames of finished clips; `seconds_per_step` is the mean over denoising steps; `success_rate` and
    `utilization` are 0 to 1; `part_s` is the length of a part. A card that joined within the span is measured from then on.
    """

    card_id: str
    card_name: str
    node_name: str
    window: str
    since: float
    until: float
    clips: int = 0
    clips_per_hour: float | None = None
    frames_per_minute: float | None = None
    seconds_per_step: float | None = None
    wh_per_clip: float | None = None
    success_rate: float | None = None
    utilization: float | None = None
    part_s: float
    parts: list[ThroughputPart] = []


class BenchSettingView(Answer):
    """What a row of the evaluation renders; pixels."""

    name: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float


class BenchView(Answer):
    """One card under one setting, measured by `farm bench`, or published by the article (`published`).

    Seconds from a fresh process to the loaded model, from there to the first frame and to the finished clip; `peak_gib` as the
    allocator reserved it, of a published row in the article's GB. `rating`: a person's, 1 to 5. `at`: UTC, when it was measured.
    """

    card: str
    model: str
    setting: BenchSettingView
    published: bool = False
    at: str | None = None
    card_id: str | None = None
    startup_s: float | None = None
    first_frame_s: float | None = None
    total_s: float | None = None
    peak_gib: float | None = None
    rating: float | None = None
    predicted_s: float | None = None
    predicted_gib: float | None = None
    failure: str | None = None


class PresetView(Answer):
    """A named set of settings; `fps` is what the model makes, `smooth` the rate that the clip is interpolated to."""

    name: str
    title: str
    model: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    fps: int
    smooth: int | None = None
    draft: bool


class ModelView(Answer):
    """A model and what it accepts; sides in pixels and multiples of `multiple`.

    `download_gib` is the size of its weights; `weights_bytes` that of those which the head has, None while it has none.
    """

    name: str
    title: str
    licence: str
    source: str = ""
    download_gib: float | None = None
    weights_bytes: int | None = None
    draft: bool
    devices: list[str]
    multiple: int
    min_side: int
    max_side: int
    max_pixels: int
    max_frames: int
    max_steps: int


class SettingView(Answer):
    """A setting of the farm that can be changed while it runs.

    `source`: "environment" if `variable` was given to `farm up`, so that it cannot be changed here; "page" if an admin set it, else
    "default". `changed_at` and `changed_by` are of the last change by an admin, also back to the default.
    """

    name: str
    value: str | float | None
    default: str | float | None
    source: Literal["environment", "page", "default"]
    variable: str
    changed_at: float | None = None
    changed_by: str | None = None


class RetentionView(Answer):
    """What limits of storage would delete now: picture and clip of so many jobs, so many bytes. Files that other jobs need stay."""

    jobs: int
    bytes: int


class EndedView(Answer):
    """A token was ended, and with it so many browser `sessions` that it had opened. `this_pc`: the head's own PC came in by it."""

    name: str
    sessions: int
    this_pc: bool


class TokenView(Answer):
    """A fresh token, shown this once; the farm keeps only its hash.

    `linux` and `windows` are the lines to paste on a PC that is to join; empty where this head has no package to give.
    """

    token: str
    kind: str
    expires_at: float | None = None
    linux: str = ""
    windows: str = ""
