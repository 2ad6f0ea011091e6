"""A PC that comes back is listed by Ray twice for some seconds: which of its lives is asked."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
import ray

from farm.news import Told, told_to_dict
from farm.wire import NodeReport
from scheduler import ray_cluster
from scheduler.cluster import NodeGoneError
from scheduler.ray_cluster import NODE_LABEL, RayCluster


class Agents:
    """Ray at its edge: a list of nodes, and agents of which those of `alive` answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listed: list[str] = []
        self.alive: set[str] = set()
        self.asked: list[str] = []
        self.cluster = RayCluster()
        monkeypatch.setattr(ray, "nodes", self._nodes)
        monkeypatch.setattr(
            self.cluster, "_agent", lambda node_id: Agent(self, self.cluster._ray_ids[node_id])
        )
        monkeypatch.setattr(ray_cluster, "_answer", self._answer)

    def _nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "NodeID": one, "Labels": {NODE_LABEL: "attic"}} for one in self.listed]

    async def _answer(self, life: str) -> dict[str, Any]:
        self.asked.append(life)
        if life not in self.alive:
            raise NodeGoneError(life)
        return told_to_dict(Told("m", NodeReport("attic", "attic", "10.0.0.2", 1.0, {}, ())))

    def round(self, *listed: str) -> str:
        """One round of watching; returns the life that was asked."""

        async def look() -> None:
            await self.cluster.nodes()
            await self.cluster.report("attic")

        self.listed = list(listed)
        with suppress(NodeGoneError):
            asyncio.run(look())
        return self.asked[-1]


class Agent:
    """An agent's handle: `report.remote()` is the life it belongs to."""

    def __init__(self, agents: Agents, life: str) -> None:
        self.report = self
        self._life = life

    def remote(self, _mark: str, _hold_s: float) -> str:
        return self._life


def test_the_newer_life_is_asked_at_once_in_whatever_order_they_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The former was asked first where it was listed first, and ten seconds went by until it had not answered."""
    for lives in (("old", "new"), ("new", "old")):
        ray_s = Agents(monkeypatch)
        ray_s.alive = {"old"}
        assert ray_s.round("old") == "old"
        ray_s.alive = {"new"}
        assert [ray_s.round(*lives) for _ in range(3)] == ["new"] * 3
        assert ray_s.round("new") == "new"


def test_a_newer_life_whose_agent_starts_slowly_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The former one was asked in its stead, for as long as Ray listed it: a minute after a cut cable."""
    for lives in (("old", "new"), ("new", "old")):
        ray_s = Agents(monkeypatch)
        ray_s.alive = {"old"}
        assert ray_s.round("old") == "old"
        ray_s.alive = set()
        assert [ray_s.round(*lives) for _ in range(3)] == ["new"] * 3
        ray_s.alive = {"new"}
        assert ray_s.round(*lives) == "new"


def test_a_scheduler_that_has_just_begun_finds_the_life_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    for lives in (("old", "new"), ("new", "old")):
        ray_s = Agents(monkeypatch)
        ray_s.alive = {"new"}
        assert [ray_s.round(*lives) for _ in range(2)][-1] == "new"
        assert [ray_s.round(*lives) for _ in range(3)] == ["new"] * 3
