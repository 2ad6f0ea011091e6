"""The scheduler's live feed: what is happening right now, as JSON lines over a local socket to the dashboard.

The store tells what was; the feed tells what is. On connecting, a reader gets one `Snapshot`, then `JobChanged` and `CardChanged` as they
happen. A reader may write the line `wake` to say that the store holds something new for the scheduler.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

WAKE = b"wake\n"


@dataclass(frozen=True, slots=True)
class LiveJob:
    """A job as it is now. `preview` counts up with each new small picture; seconds for times.

    `done` of `total` steps, or of frames where `stage` interpolates.
    """

    id: str
    status: str
    done: int = 0
    total: int = 0
    seconds_per_step: float | None = None
    eta_s: float | None = None
    card_id: str | None = None
    card_name: str | None = None
    attempt_id: str | None = None
    phase: str = ""
    preview: int = 0
    why: str | None = None
    stage: str = "generate"


CardState = Literal["idle", "busy", "starting", "not answering", "trouble", "drained", "paused"]


@dataclass(frozen=True, slots=True)
class LiveCard:
    """A card as it is now; `why` says more.

    "drained": a person wants no new work for its PC; "paused": the farm gives it none until it has passed a test.
    """

    id: str
    node_id: str
    node_name: str
    name: str
    state: CardState
    job_id: str | None = None
    silent_s: float | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is going on: running jobs and known cards."""

    jobs: tuple[LiveJob, ...] = field(default=())
    cards: tuple[LiveCard, ...] = field(default=())
    type: Literal["snapshot"] = "snapshot"


@dataclass(frozen=True, slots=True)
class JobChanged:
    """A job is now so."""

    job: LiveJob
    type: Literal["job"] = "job"


@dataclass(frozen=True, slots=True)
class CardChanged:
    """A card is now so."""

    card: LiveCard
    type: Literal["card"] = "card"


FeedMessage = Snapshot | JobChanged | CardChanged
_MESSAGE: TypeAdapter[FeedMessage] = TypeAdapter(Annotated[FeedMessage, Field(discriminator="type")])


def to_line(message: FeedMessage) -> bytes:
    """The message as one line of JSON, with its newline."""
    return _MESSAGE.dump_json(message) + b"\n"


def from_line(line: bytes) -> FeedMessage:
    """The message again.

    Raises:
        pydantic.ValidationError: not a message of the feed.
    """
    return _MESSAGE.validate_json(line)
