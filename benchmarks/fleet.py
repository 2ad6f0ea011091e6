"""A node with more cards than its PC has: fifty CPU cards, each with a worker process of its own. Imported by Ray on the node's side."""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray

from farm.catalogue.models import ModelRow
from farm.wire import CardReport
from node_agent import probe
from node_agent.agent import CONCURRENCY, NodeAgent

_cards = probe.cards
_remote: Any = ray.remote


def many_cards(node_id: str, models: Mapping[str, ModelRow]) -> tuple[CardReport, ...]:
    """The PC's CPU card, so many times over, under ids of their own."""
    (cpu,) = _cards(node_id, models)
    number = int(os.environ["FARM_STRESS_CARDS"])
    return tuple(replace(cpu, id=f"{cpu.id}-{index:02}", name=f"CPU {index:02}") for index in range(number))


class FleetAgent(NodeAgent):
    """The real agent, with many cards."""

    def __init__(self) -> None:
        probe.cards = many_cards
        super().__init__()


FleetAgentActor: Any = _remote(
    num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups=CONCURRENCY
)(FleetAgent)
