"""The things the farm speaks of, as frozen values: job, attempt, node, card, memory plan, artifact.

Units: seconds, GiB, pixels. `None` means "not known", never zero.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal

from farm.vitals import CardFacts


class JobStatus(StrEnum):
    """Where a job stands; legal moves are in `farm.states`."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptStatus(StrEnum):
    """Where one try of a job on a card stands; legal moves are in `farm.states`."""

    ASSIGNED = "assigned"
    LOADING = "loading"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"


class StageKind(StrEnum):
    """The stages of a job; `farm.stages` says which a job has. Encoding is a part of each, not one of them yet (docs/decisions/0012)."""

    GENERATE = "generate"
    INTERPOLATE = "interpolate"
    ENCODE = "encode"


class Tier(StrEnum):
    """The kind of work a job is, and the band of work a card keeps to."""

    POST = "post"
    PREVIEW = "preview"
    QUALITY = "quality"


class CardKind(StrEnum):
    """What a card is made of."""

    CUDA = "cuda"
    CPU = "cpu"


class FailureClass(StrEnum):
    """Why an attempt failed; `scheduler.outcomes` has the rule for each."""

    OUT_OF_MEMORY = "out_of_memory"
    BAD_INPUT = "bad_input"
    MISSING_WEIGHTS = "missing_weights"
    CARD_FAULT = "card_fault"
    STALLED = "stalled"
    NODE_LOST = "node_lost"
    INTERNAL = "internal"


Basis = Literal["measured", "calibrated", "catalogue"]
"""What a prediction rests on: renders of this card with this model, the card's own bench, or its data sheet."""


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """All that decides what a clip looks like, besides its picture.

    `width` and `height` in pixels. The model makes `frames` at `fps` (frames per second); `smooth` is the rate that the finished clip is
    interpolated to, None for one that stays as the model made it. `motion` and `strength` steer models that move a camera
    (`animatic`); diffusion models read the prompt.
    """

    model: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float
    fps: int
    seed: int
    prompt: str = ""
    negative_prompt: str = ""
    motion: str = "auto"
    strength: float = 1.0
    smooth: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """How a render keeps within a card's memory. No field changes the mathematics of the result, `precision` only its rounding.

    `parts`: "resident" keeps every part (text encoder, image encoder, denoiser, VAE) on the card; "by_stage" brings each only for
    its stage. `weights_on_card`: the share (0 to 1) of the denoiser's weights that stays on the card while it works; the rest is
    streamed through a ring of `ring_mib` MiB, 0 where nothing is. `piece_mib`: the largest working set of one layer, MiB; a layer
    that would take more runs in pieces; 0 runs all layers whole. `guidance`: the two guidance passes of a step "together" in one
    batch, or "in_turn" at half the activations. `decode`: the VAE a whole "frame" at a time, or in exact "tiles" of it.
    `precision`: what is computed in; weights are always stored in fp16. The allocator's settings are no field, they follow: segments
    that can grow for every process of a card (`node_agent.card_process`), and a limit at the plan's predicted peak
    (`node_agent.engine.allocator`).
    """

    parts: Literal["resident", "by_stage"] = "resident"
    guidance: Literal["together", "in_turn"] = "together"
    weights_on_card: float = 1.0
    ring_mib: int = 0
    piece_mib: int = 0
    decode: Literal["frame", "tiles"] = "frame"
    precision: Literal["fp16", "fp32"] = "fp16"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A stored file, named by the SHA-256 of its bytes."""

    sha256: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class PcieLink:
    """How a card hangs on its PC.

    `generation` is the best that card and slot have in common: the present one drops whenever the card is idle and says nothing. `lanes`
    are those in use now, `lanes_most` those that card and slot could use: fewer in use tells of a riser or of a shared slot.
    """

    generation: int
    lanes: int
    lanes_most: int | None = None


@dataclass(frozen=True, slots=True)
class Coming:
    """A model that the head has and a PC is fetching. `trouble` says why it cannot; then it is not on its way.

    `damaged`: it lies on the PC, nobody fetches it, and `trouble` says why it cannot be used.
    """

    model: str
    done_bytes: int
    total_bytes: int
    trouble: str | None = None
    damaged: bool = False

    @property
    def percent(self) -> int:
        """What is there of it, rounded down."""
        return 100 * self.done_bytes // self.total_bytes if self.total_bytes else 0


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, or a node's CPU as a card of its own kind. `id` is the GPU's UUID, or `CPU-<node id>`.

    `usable_gib` is what a render's allocator may reserve. `driver` is the driver's version, `bus_gb_s` what a copy from the PC's memory
    reaches (GB/s, one direction), `ram_gib` its share of its PC's memory. `trouble` keeps it from work; `notice` is worth knowing and does
    not. `kept` says why its owner has it for now; `others_gib` is what other programs hold of it, already taken off `usable_gib`.
    `paused` is why the farm itself gives it no work until it has passed a test. `tags` are the words with which its owner marked its PC.
    `coming` are models on their way there.
    """

    id: str
    node_id: str
    kind: CardKind
    name: str
    vram_gib: float | None = None
    usable_gib: float | None = None
    band: Tier = Tier.POST
    compute_capability: tuple[int, int] | None = None
    models: frozenset[str] = frozenset()
    trouble: str | None = None
    last_seen: float | None = None
    driver: str | None = None
    pcie: PcieLink | None = None
    bus_gb_s: float | None = None
    ram_gib: float | None = None
    notice: str | None = None
    kept: str | None = None
    others_gib: float | None = None
    facts: CardFacts | None = None
    paused: str | None = None
    coming: tuple[Coming, ...] = ()
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Node:
    """A PC of the farm. `ram_gib` is all its memory, `ram_free_gib` what was to be had when it was last heard.

    `drained_at` is since when a person wants no new work for it, None where it takes work. `kept_out` is why it asks to join and cannot,
    with what helps. `owner_rules` is when and for what its owner lets it work, for people; empty where it always may.
    """

    id: str
    name: str
    address: str
    last_seen: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    ram_gib: float | None = None
    ram_free_gib: float | None = None
    drained_at: float | None = None
    kept_out: str | None = None
    owner_rules: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A picture that someone wants moved. `tier` is that of its first stage; `stage` is the one that it is at, or has ended with.

    `batch` names the many that it was submitted with, if any; `needs` the tags that its card's PC must have. The files of a `starred`
    job are kept for ever; `removed_at` is when picture and clip were deleted, wall seconds. `seq` is its number in the order of
    submission, as the store counts them; None for a job that is not from there.
    """

    id: str
    status: JobStatus
    settings: RenderSettings
    tier: Tier
    input_sha256: str
    created_at: float
    preset: str | None = None
    priority: int = 0
    anywhere: bool = False
    submitted_by: str = ""
    cancel_requested: bool = False
    unplaceable: str | None = None
    finished_at: float | None = None
    video_sha256: str | None = None
    thumbnail_sha256: str | None = None
    failure: str | None = None
    draft: bool = False
    rating: int | None = None
    stage: StageKind = StageKind.GENERATE
    batch: str | None = None
    needs: tuple[str, ...] = ()
    starred: bool = False
    removed_at: float | None = None
    seq: int | None = None


EARLIER_TRIES: Final = "earlier_tries"
"""The part of an attempt's seconds that it spent on tries that failed on its card."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of a job's stage on a card. Every message about the try carries `id`.

    `stage_seconds` maps the parts of the work ("load", "encode_image", "denoise", "decode", ...) to seconds; `peak_gib`
    is the caching allocator's reserved memory on a GPU, the process's resident set on a CPU. `memory_plan` is what really ran; `notes` say
    what happened on the way, such as a step down to a leaner plan. `disturbed`: another program had its hand in the outcome, so that
    nothing is learned from it. `predicted_s` and `predicted_gib` are what the planner said when it chose the card, for the whole render,
    `predicted_low_s` to `predicted_high_s` the interval that holds the seconds in four of five cases, `predicted_basis` what that rested
    on; `resumed_step` is after which of its steps this attempt went on from a checkpoint, None where it began at the beginning. `energy_wh`
    is what the card drew for it, watt-hours; None where the card tells no power.
    """

    id: str
    job_id: str
    number: int
    node_id: str
    card_id: str
    card_name: str
    status: AttemptStatus
    assigned_at: float
    stage: StageKind = StageKind.GENERATE
    memory_plan: MemoryPlan = MemoryPlan()
    last_seq: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_gib: float | None = None
    failure_class: FailureClass | None = None
    reason: str | None = None
    notes: tuple[str, ...] = ()
    disturbed: bool = False
    predicted_s: float | None = None
    predicted_gib: float | None = None
    energy_wh: float | None = None
    predicted_low_s: float | None = None
    predicted_high_s: float | None = None
    predicted_basis: Basis | None = None
    resumed_step: int | None = None
