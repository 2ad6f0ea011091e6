"""Nodes and cards: what they are, what they do now, and what befell them."""

from typing import Literal

from farm.answers.base import Answer
from farm.model import CardKind, PcieLink, Tier
from farm.vitals import CardFacts, Vitals


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
