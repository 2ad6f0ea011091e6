"""What a card worker says about an attempt: typed events, to and from plain dicts.

Every event carries its attempt's id, a number `seq` that counts up from 1 within the attempt, and the node's wall time `at` in seconds,
which the head translates into its own where it takes them in (`scheduler.clocks`).
Workers spool events on their disk before they send them, so a head that comes back asks for those after the last it has.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from farm.model import FailureClass, MemoryPlan


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being brought in."""

    attempt_id: str
    seq: int
    at: float
    kind: Literal["loading"] = "loading"


@dataclass(frozen=True, slots=True)
class Rendering:
    """The model is there and the render began."""

    attempt_id: str
    seq: int
    at: float
    kind: Literal["rendering"] = "rendering"


@dataclass(frozen=True, slots=True)
class Step:
    """`done` of `total` steps are done, the last ones at `seconds_per_step`."""

    attempt_id: str
    seq: int
    at: float
    done: int
    total: int
    seconds_per_step: float | None = None
    kind: Literal["step"] = "step"


@dataclass(frozen=True, slots=True)
class Preview:
    """There is a new small picture in the spool, under the name `preview.jpg`."""

    attempt_id: str
    seq: int
    at: float
    step: int
    kind: Literal["preview"] = "preview"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """There is a new checkpoint in the spool, under the name `checkpoint.safetensors`, of the render after `step`."""

    attempt_id: str
    seq: int
    at: float
    step: int
    kind: Literal["checkpoint"] = "checkpoint"


@dataclass(frozen=True, slots=True)
class Resumed:
    """The render goes on after `step` of `total`, from a checkpoint.

    `source` is the number of the job's attempt that made it; None: this one, in an earlier try.
    """

    attempt_id: str
    seq: int
    at: float
    step: int
    total: int
    source: int | None = None
    kind: Literal["resumed"] = "resumed"


@dataclass(frozen=True, slots=True)
class Retrying:
    """The attempt is tried again under another memory plan, on the same card; `reason` is for people.

    `Resumed` follows where it goes on from a checkpoint; otherwise it is from the beginning.
    """

    attempt_id: str
    seq: int
    at: float
    plan: MemoryPlan
    reason: str
    kind: Literal["retrying"] = "retrying"


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth knowing about the attempt, which goes on. `disturbed`: what it measures says nothing of the card by itself."""

    attempt_id: str
    seq: int
    at: float
    text: str
    disturbed: bool = False
    kind: Literal["note"] = "note"


@dataclass(frozen=True, slots=True)
class SpooledFile:
    """A file that waits in the worker's spool: its name there, SHA-256 and size in bytes."""

    name: str
    sha256: str
    size: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Done:
    """The clip is complete in the spool. `peak_gib` and `stage_seconds` as in `farm.model.Attempt`."""

    attempt_id: str
    seq: int
    at: float
    video: SpooledFile
    thumbnail: SpooledFile
    stage_seconds: dict[str, float]
    peak_gib: float | None
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed. `message` and `remedy` are for people, `detail` (a traceback) for the log.

    `disturbed`: another program was the cause, so it says nothing of the card by itself. `worker_ends`: the worker's process ends with it,
    and the card is tested by a fresh one before it gets work.
    """

    attempt_id: str
    seq: int
    at: float
    failure_class: FailureClass
    message: str
    remedy: str = ""
    detail: str = ""
    disturbed: bool = False
    worker_ends: bool = False
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The attempt stopped because it was asked to."""

    attempt_id: str
    seq: int
    at: float
    kind: Literal["cancelled"] = "cancelled"


@dataclass(frozen=True, slots=True)
class Yielded:
    """The attempt gave its card back to the card's owner, for `reason`; what it has done is in its last checkpoint."""

    attempt_id: str
    seq: int
    at: float
    reason: str
    kind: Literal["yielded"] = "yielded"


Event = (
    Loading
    | Rendering
    | Step
    | Preview
    | Checkpoint
    | Resumed
    | Retrying
    | Note
    | Done
    | Failed
    | Cancelled
    | Yielded
)
FINAL_KINDS = frozenset({"done", "failed", "cancelled", "yielded"})
"""After one of these an attempt says nothing more."""

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def to_dict(event: Event) -> dict[str, Any]:
    """The event as plain JSON values."""
    found: dict[str, Any] = _EVENT.dump_python(event, mode="json")
    return found


def from_dict(data: dict[str, Any]) -> Event:
    """The event again.

    Raises:
        pydantic.ValidationError: not an event.
    """
    return _EVENT.validate_python(data)
