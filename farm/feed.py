"""The scheduler's live feed: what is happening right now, as JSON lines over a local socket to the dashboard.

The store tells what was; the feed tells what is. On connecting, a reader gets one `Snapshot`, then `JobChanged` and `CardChanged` as they
happen, and `QueueChanged` every few seconds while the queue moves. A reader may write the line `wake` to say that the store holds
something new for the scheduler.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from farm.vitals import Vitals

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


CardState = Literal["idle", "busy", "starting", "kept", "not answering", "trouble", "drained", "paused"]


@dataclass(frozen=True, slots=True)
class LiveCard:
    """A card as it is now; `why` says more.

    `fetching` is as in `farm.answers.machines.NodeView`.
    "kept": its owner has it for now; "drained": a person wants no new work for its PC; "paused": the farm gives it none until it has passed
    a test. `vitals` and `others_gib`, what other programs hold of it, are of its PC's last report; None while that does not answer.
    """

    id: str
    node_id: str
    node_name: str
    name: str
    state: CardState
    job_id: str | None = None
    silent_s: float | None = None
    why: str | None = None
    vitals: Vitals | None = None
    others_gib: float | None = None
    fetching: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """When a job is expected to be done, wall seconds: `low_at` to `high_at` hold the truth in four of five cases."""

    at: float
    low_at: float
    high_at: float


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """A job's place in the queue, from 1, None for one that runs; `done` is None where no card that answers takes it.

    `card_id` is where it runs or is expected to. `kind` is `farm.planning.kinds.kind_of`'s.
    """

    id: str
    kind: str
    position: int | None = None
    done: Expected | None = None
    card_id: str | None = None


@dataclass(frozen=True, slots=True)
class Knot:
    """A job of some kind at this position of the queue is expected to be done `at` (wall seconds), `factor` off either way.

    Between two knots lies a straight line, behind the last one no more is known.
    """

    position: int
    at: float
    factor: float


@dataclass(frozen=True, slots=True)
class Behind:
    """What jobs of a kind wait for that stand behind as many others as there are cards `idle` for it."""

    idle: int
    why: str


@dataclass(frozen=True, slots=True)
class QueueChanged:
    """What the queue looks like at `made_at` (wall seconds): the running jobs, and all that wait, in order.

    `waiting` counts those that wait. The first of them, `placed`, stand with their times in `places`; the rest by their numbers
    (`Job.seq`) in `order`, and their times are read off the curve of their kind (`curves`). `newest` is the highest number that was known;
    `levels` says up to which position jobs of a level or a higher one stand, the highest level first: so far forward a newer job of
    that priority cannot come at the worst.

    Times are those of a job's present stage. `smoothing` is by how much the farm's cards in the middle take longer than the catalogue says
    for the interpolation that may follow.

    `why` says by kind what jobs of it wait for; `behind` what else is to be said of those that are not next. `apart` names the kind of jobs
    in `order` (by id) that are kept from some card, and so of a kind of their own.
    """

    made_at: float
    waiting: int
    placed: int
    places: tuple[QueuePlace, ...] = ()
    order: tuple[int, ...] = ()
    newest: int = 0
    levels: tuple[tuple[int, int], ...] = ()
    curves: dict[str, tuple[Knot, ...]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    behind: dict[str, Behind] = field(default_factory=dict)
    apart: dict[str, str] = field(default_factory=dict)
    smoothing: float = 1.0
    type: Literal["queue"] = "queue"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is going on: running jobs, known cards, and how the queue looked last."""

    jobs: tuple[LiveJob, ...] = field(default=())
    cards: tuple[LiveCard, ...] = field(default=())
    queue: QueueChanged | None = None
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


FeedMessage = Snapshot | JobChanged | CardChanged | QueueChanged
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
