"""The head's only Ray import: nodes, agents and workers as a `Cluster`."""

import asyncio
import logging
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import (
    ActorUnavailableError,
    ActorUnschedulableError,
    GetTimeoutError,
    RayActorError,
    RayError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from farm.clock import Clock, SystemClock
from farm.events import Event, from_dict
from farm.news import told_from_dict, understood
from farm.wire import NodeReport, Order, agent_name, order_to_dict, worker_name
from scheduler.clocks import NodeClocks
from scheduler.cluster import CardBusyError, NodeGoneError, UnknownAttemptError, WorkerGoneError

log = logging.getLogger(__name__)

NAMESPACE = "farm"
NODE_LABEL = "farm-node"
AGENT_CLASS = "node_agent.agent:NodeAgentActor"
"""Named, not imported: Ray too sends an actor's class by its name, and the head's code stays free of the node's."""
WAKE_S = 25.0
"""As `node_agent.agent.WAKE_S`, and the way there and back; less than a lease."""
CALL_S = 10.0
"""How long a short call may take before its node counts as not answering; with the time for which it may hold a question."""


class RayCluster:
    """Speaks to the farm's nodes through Ray. One per scheduler process. Events come with their times by the head's clock."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._clocks = NodeClocks()
        self._ray_ids: dict[str, str] = {}
        self._agents: dict[str, ActorHandle[Any]] = {}
        self._workers: dict[str, ActorHandle[Any]] = {}
        self._told: dict[str, tuple[str, NodeReport]] = {}
        self._silent: set[str] = set()
        self._listed: set[str] = set()

    def connect(self, address: str) -> None:
        """Attaches this process to the farm's Ray as a driver. The token comes from the environment.

        Raises:
            ConnectionError: Ray does not answer there.
        """
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)

    async def nodes(self) -> set[str]:
        """The ids of the nodes that are connected now."""
        found: list[dict[str, Any]] = await asyncio.to_thread(ray.nodes)
        alive: dict[str, list[str]] = {}
        for entry in found:
            if entry["Alive"] and NODE_LABEL in entry["Labels"]:
                alive.setdefault(entry["Labels"][NODE_LABEL], []).append(entry["NodeID"])
        for node_id, ray_ids in alive.items():
            # A PC that came back quickly is listed twice for some seconds, until Ray misses its former self. What was not listed when the
            # life that is known was, is newer: asking the former first would take until it has not answered.
            known = self._ray_ids.get(node_id)
            appeared = [one for one in ray_ids if one not in self._listed]
            if known is not None and appeared:
                self._silent.add(known)
            spoke = [one for one in ray_ids if one not in self._silent]
            # Where none has answered yet, the one that is asked is the newer, whose agent takes its time to start.
            ray_id = known if known in (spoke or ray_ids) else (appeared or spoke or ray_ids)[-1]
            if self._ray_ids.get(node_id) != ray_id:
                self._agents.pop(node_id, None)
            self._ray_ids[node_id] = ray_id
        for node_id in set(self._ray_ids) - set(alive):
            del self._ray_ids[node_id]
            self._told.pop(node_id, None)
        self._listed = {ray_id for ray_ids in alive.values() for ray_id in ray_ids}
        self._silent &= self._listed
        return set(alive)

    async def report(self, node_id: str, hold_s: float = 0.0) -> NodeReport:
        """What a node says of itself; starts its agent where there is none."""
        ray_id = self._ray_ids.get(node_id, "")
        mark, known = self._told.get(node_id, ("", None))
        try:
            said = told_from_dict(await _answer(self._agent(node_id).report.remote(mark, hold_s)))
        except (NodeGoneError, WorkerGoneError):
            self._agents.pop(node_id, None)
            self._silent.add(ray_id)
            raise NodeGoneError(node_id) from None
        self._silent.discard(ray_id)
        report = understood(said, known)
        self._told[node_id] = (said.mark, report)
        self._clocks.hear(node_id, report.at, self._clock.now())
        return report

    async def start(
        self, node_id: str, card_id: str, order: Order, picture: bytes, checkpoint: bytes | None = None
    ) -> None:
        """Begins an attempt. A worker that rests, as on PCs with many cards, is woken for it."""
        given = (order_to_dict(order), picture, checkpoint)
        try:
            holder = await self._ask_worker(node_id, card_id, "start", *given)
        except WorkerGoneError:
            if not await _answer(self._agent(node_id).wake.remote(card_id), patience_s=WAKE_S):
                raise
            holder = await self._ask_worker(node_id, card_id, "start", *given)
        if holder is not None:
            raise CardBusyError(holder)

    async def follow(
        self, node_id: str, card_id: str, attempt_id: str, after: int, wait_s: float
    ) -> list[Event]:
        """Events above number `after`."""
        found = await self._ask_worker(
            node_id, card_id, "follow", attempt_id, after, wait_s, patience_s=wait_s + CALL_S
        )
        if found is None:
            raise UnknownAttemptError(attempt_id)
        return self._events(node_id, found)

    async def replay(self, node_id: str, attempt_id: str, after: int) -> list[Event]:
        """Events from the node's spool."""
        found = await _answer(self._agent(node_id).replay.remote(attempt_id, after))
        return self._events(node_id, found)

    async def cancel(self, node_id: str, card_id: str, attempt_id: str) -> None:
        """Asks an attempt to stop."""
        await self._ask_worker(node_id, card_id, "cancel", attempt_id)

    async def replace_worker(self, node_id: str, card_id: str) -> None:
        """Ends the process of a card's worker."""
        await _answer(self._agent(node_id).replace_worker.remote(card_id))

    async def read(self, node_id: str, attempt_id: str, name: str) -> bytes:
        """A file of an attempt's spool. Through the agent, so that it does not matter whether the worker still lives."""
        return bytes(await _answer(self._agent(node_id).read.remote(attempt_id, name), patience_s=60.0))

    async def forget(self, node_id: str, attempt_ids: list[str]) -> None:
        """Lets the node remove attempts from its spool."""
        await _answer(self._agent(node_id).forget.remote(attempt_ids))

    def _events(self, node_id: str, told: list[dict[str, Any]]) -> list[Event]:
        now = self._clock.now()
        return [
            replace(event, at=self._clocks.ours(node_id, event.at, now)) for event in map(from_dict, told)
        ]

    def _agent(self, node_id: str) -> ActorHandle[Any]:
        agent = self._agents.get(node_id)
        if agent is None:
            ray_id = self._ray_ids.get(node_id)
            if ray_id is None:
                raise NodeGoneError(node_id)
            agent = (
                resolve_name(AGENT_CLASS)
                .options(
                    name=agent_name(node_id, ray_id),
                    namespace=NAMESPACE,
                    lifetime="detached",
                    get_if_exists=True,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(ray_id, soft=False),
                )
                .remote()
            )
            self._agents[node_id] = agent
        return agent

    async def _ask_worker(
        self, node_id: str, card_id: str, method: str, *arguments: Any, patience_s: float = CALL_S
    ) -> Any:
        ray_id = self._ray_ids.get(node_id)
        if ray_id is None:
            raise NodeGoneError(node_id)
        name = worker_name(card_id, ray_id)
        known = self._workers.get(name)
        worker = known if known is not None else await self._find_worker(name)
        try:
            return await _answer(getattr(worker, method).remote(*arguments), patience_s=patience_s)
        except WorkerGoneError:
            self._workers.pop(name, None)
            if known is None:
                raise
        # The worker that was known may have died while it had nothing to do, and its node started another.
        worker = await self._find_worker(name)
        return await _answer(getattr(worker, method).remote(*arguments), patience_s=patience_s)

    async def _find_worker(self, name: str) -> ActorHandle[Any]:
        try:
            worker: ActorHandle[Any] = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
        except ValueError as error:
            raise WorkerGoneError(name) from error
        self._workers[name] = worker
        return worker


async def _answer(reference: Any, patience_s: float = CALL_S) -> Any:
    """Waits for a call's answer; Ray's ways of failing become the cluster's."""
    try:
        # Not wait_for: Python 3.11's swallows a cancel that comes together with the answer.
        async with asyncio.timeout(patience_s):
            return await reference
    except (TimeoutError, GetTimeoutError, ActorUnavailableError, ActorUnschedulableError) as error:
        raise NodeGoneError(str(error) or "no answer") from error
    except RayActorError as error:
        raise WorkerGoneError(str(error)) from error
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, FileNotFoundError):
            raise UnknownAttemptError(str(cause)) from error
        raise
