"""Messages between head and node, as frozen values with plain-dict forms for the wire."""

from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from farm.model import CardKind, Coming, MemoryPlan, PcieLink, RenderSettings, StageKind, Tier
from farm.own_bench import BenchResult
from farm.planning.memory import Room
from farm.vitals import CardFacts, Vitals


@dataclass(frozen=True, slots=True)
class Order:
    """Head to card worker: make this attempt. Bytes travel beside it.

    They are the picture, with `input_sha256`, for a job's first stage; for a later one the clip that the stage before left, with
    `source_sha256`. `predicted_s` and `predicted_gib` (the peak) are what the planner expects of the render, None where it expects nothing.
    `resumes` is the number of the job's attempt whose checkpoint travels too, None where none does. `room` is what the plan was made for,
    None where nothing was planned.
    """

    attempt_id: str
    job_id: str
    stage: StageKind
    settings: RenderSettings
    plan: MemoryPlan
    input_sha256: str
    draft: bool = False
    predicted_s: float | None = None
    predicted_gib: float | None = None
    resumes: int | None = None
    source_sha256: str | None = None
    room: Room | None = None


@dataclass(frozen=True, slots=True)
class CardReport:
    """What a node says of one of its cards: `vram_gib` is nominal, `usable_gib` what the planner may use; the rest as in `farm.model.Card`.

    `tags` and `pinned` (a band in place of its memory's) are its owner's. `tested` is False until the card's worker has run a first
    computation on it; before that it gets no work. `answers`: whether its worker answered just now. `attempt_id`: what the worker is at,
    None if it is idle or does not answer. `vitals` is the newest look at the card, None for a CPU.
    """

    id: str
    kind: CardKind
    name: str
    vram_gib: float | None = None
    usable_gib: float | None = None
    compute_capability: tuple[int, int] | None = None
    models: tuple[str, ...] = ()
    trouble: str | None = None
    driver: str | None = None
    pcie: PcieLink | None = None
    bus_gb_s: float | None = None
    ram_gib: float | None = None
    notice: str | None = None
    tested: bool = True
    answers: bool = True
    attempt_id: str | None = None
    kept: str | None = None
    others_gib: float | None = None
    facts: CardFacts | None = None
    vitals: Vitals | None = None
    coming: tuple[Coming, ...] = ()
    tags: tuple[str, ...] = ()
    pinned: Tier | None = None


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What a node says of itself. `spooled` are the attempts that have a directory on its disk; `at` is its wall time in seconds.

    `owner_rules` are the words of `node_agent.owner.OwnerRules`, empty where its owner set none. `bench` is what
    `farm bench` last measured of its cards; None where it is as it was.
    """

    node_id: str
    name: str
    address: str
    at: float
    versions: dict[str, str]
    cards: tuple[CardReport, ...]
    spooled: tuple[str, ...] = field(default=())
    ram_gib: float | None = None
    ram_free_gib: float | None = None
    bench: tuple[BenchResult, ...] | None = None
    owner_rules: str = ""


@dataclass(frozen=True, slots=True)
class OfferedModel:
    """A model that the head has; `digest` changes with any of its files."""

    name: str
    digest: str
    bytes: int


@dataclass(frozen=True, slots=True)
class WeightsOffer:
    """Head to node: the models that it has, and those that a person removed and that nodes shall remove too."""

    models: tuple[OfferedModel, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JoinTicket:
    """Head to a PC that joins: where Ray is, its token, and the PC's own credential for coming back.

    `epoch` changes whenever the head's Ray starts anew: a node that joined another epoch must join again. `farm_version` is `farm.build`'s
    on the head, empty from a head of before there was one. `certificate` (PEM) answers the request that the PC sent along, on a head with
    TLS; else it is empty.
    """

    farm_id: str
    node_id: str
    node_token: str
    ray_address: str
    ray_token: str
    epoch: str
    ray_version: str
    python_version: str
    farm_version: str = ""
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """Head to node: which of its ports did not answer the head, and why; `seen_as` is the address that its calls come from."""

    failed: dict[int, str]
    seen_as: str


_ORDER: TypeAdapter[Order] = TypeAdapter(Order)
_TICKET: TypeAdapter[JoinTicket] = TypeAdapter(JoinTicket)
_REACH: TypeAdapter[Reach] = TypeAdapter(Reach)


def order_to_dict(order: Order) -> dict[str, Any]:
    """The order as plain JSON values."""
    found: dict[str, Any] = _ORDER.dump_python(order, mode="json")
    return found


def order_from_dict(data: dict[str, Any]) -> Order:
    """The order again."""
    return _ORDER.validate_python(data)


def ticket_to_dict(ticket: JoinTicket) -> dict[str, Any]:
    """The ticket as plain JSON values."""
    found: dict[str, Any] = _TICKET.dump_python(ticket, mode="json")
    return found


def ticket_from_dict(data: dict[str, Any]) -> JoinTicket:
    """The ticket again."""
    return _TICKET.validate_python(data)


def reach_from_dict(data: dict[str, Any]) -> Reach:
    """The answer of the head that dialled."""
    return _REACH.validate_python(data)


def worker_name(card_id: str, ray_node_id: str) -> str:
    """The name under which Ray finds a card's worker.

    With Ray's id of the node in it: a PC that comes back is another Ray node, while Ray may for some seconds still hold the actors of its
    former life for alive.
    """
    return f"worker:{card_id}:{ray_node_id}"


def agent_name(node_id: str, ray_node_id: str) -> str:
    """The name under which Ray finds a node's agent; see `worker_name`."""
    return f"agent:{node_id}:{ray_node_id}"
