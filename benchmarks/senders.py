"""What answers for many PCs, each with one graphics card, as the agents of these would. Imports no Ray, which makes actors of it."""

import time
from dataclasses import replace
from importlib import metadata
from typing import Any

from farm.model import CardKind, PcieLink
from farm.vitals import CardFacts, Vitals
from farm.wire import CardReport, NodeReport, report_to_dict

NODES = 200
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
    """Says of a PC what its agent would say."""

    def report(self, number: int) -> dict[str, Any]:
        """As `node_agent.agent.NodeAgent.report`; the card's readings change from one to the next, as they do."""
        now = time.time()
        vitals = Vitals(now, 0.0, 0.4 + now % 1 / 10, 38.0 + now % 3, 12.0 + now % 2, 210, 405, 1, 16)
        return report_to_dict(
            NodeReport(
                node_id=node_id(number),
                name=node_id(number),
                address=f"10.0.{number // 250}.{number % 250}",
                at=now,
                versions={"farm": "0.1.0", "ray": metadata.version("ray"), "python": "3.11.7"},
                cards=(replace(_CARD, id=f"GPU-{number:032x}", vitals=vitals),),
                ram_gib=15.5,
                ram_free_gib=11.0,
            )
        )
