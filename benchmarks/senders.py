"""What answers for many PCs, each with one graphics card, as the agents of these would. Imports no Ray, which makes actors of it."""

import time
from dataclasses import replace
from functools import partial
from importlib import metadata
from typing import Any

from farm.clock import SystemClock
from farm.model import CardKind, Coming, PcieLink
from farm.vitals import CardFacts, Vitals
from farm.wire import CardReport, NodeReport
from node_agent.telling import Telling

NODES = 200
WITH_OWNERS, STAYS_S = 10, 15.0
"""Of every tenth PC the owner takes the card, and lets it go again, every so many seconds: real ones do so a few times a day."""
WITH_MODELS = 50
"""Every fiftieth PC fetches a model, and has something new to say of that at every look."""
_CARD = CardReport(
    id="",
    kind=CardKind.CUDA,
    name="NVIDIA GeForce RTX 3060",
    vram_gib=12.0,
    usable_gib=11.2,
    compute_capability=(8, 6),
    models=("animatic", "i2vgen-xl", "svd"),
    driver="535.183.01",
    pcie=PcieLink(3, 16, 16),
    ram_gib=15.5,
    facts=CardFacts("00000000:01:00.0", (12, 2), 170.0, ecc=False, retired_pages=None, mig=False),
)
"""As `node_agent.probe` tells of an ordinary card."""


def node_id(number: int) -> str:
    """What a PC is called."""
    return f"pc{number}"


class Spokesman:
    """Says of PCs what their agents would say, each when it would: with the agent's own rule, and a thread for each PC as the agent has."""

    def __init__(self) -> None:
        clock = SystemClock()
        self._telling = [Telling(partial(_report, number), clock) for number in range(NODES)]

    def report(self, number: int, known: str, hold_s: float) -> dict[str, Any]:
        """As `node_agent.agent.NodeAgent.report`."""
        return self._telling[number].answer(known, hold_s)


def _report(number: int) -> NodeReport:
    """What a PC's agent sees at a look. The card's readings change from one to the next, as they do."""
    now = time.time()
    vitals = Vitals(now, 0.0, 0.4 + now % 1 / 10, 38.0 + now % 3, 12.0 + now % 2, 210, 405, 1, 16)
    card = replace(_CARD, id=f"GPU-{number:032x}", vitals=vitals)
    if number % WITH_OWNERS == 0 and (now + number) % (2 * STAYS_S) < STAYS_S:
        card = replace(card, usable_gib=6.95, others_gib=4.25, kept="space.x86_64 uses the card")
    if number % WITH_MODELS == 1:
        card = replace(card, coming=(Coming("svd-xt", int(now % 1000 * 2e6), 4_200_000_000),))
    return NodeReport(
        node_id=node_id(number),
        name=node_id(number),
        address=f"10.0.{number // 250}.{number % 250}",
        at=now,
        versions={"farm": "0.1.0", "ray": metadata.version("ray"), "python": "3.11.7"},
        cards=(card,),
        ram_gib=15.5,
        ram_free_gib=11.0 + now % 1,
        bench=(),
    )
