"""The node agent: a detached Ray actor, one per PC. Says what the PC has, keeps one card worker per card, and replays the spool."""

import logging
import os
import platform
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import farm
from farm.catalogue.models import load_models
from farm.events import to_dict
from farm.model import CardKind
from farm.settings import FarmSettings
from farm.wire import CardReport, NodeReport, report_to_dict, worker_name
from node_agent import probe
from node_agent.identity import load_identity
from node_agent.spool import Spool
from node_agent.standing import Standing, WorkerWord
from node_agent.worker import CardWorkerActor, node_home, spool_root

_ray: Any = ray  # some of its functions have no types
log = logging.getLogger(__name__)

PROBE_EVERY_S = 10.0
"""Reading the cards takes milliseconds and files of weights may come and go; more often would only warm the PC."""
STATE_TIMEOUT_S = 3.0
"""How long a worker that starts or loads may keep its state to itself; the head's lease judges whether it is stuck."""


class NodeAgent:
    """What the head speaks to on each PC."""

    def __init__(self) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        home = node_home()
        self._identity = load_identity(home)
        self._spool = Spool(spool_root(home))
        self._models = load_models(FarmSettings().models_file)
        self._workers: dict[str, ActorHandle[Any]] = {}
        self._standings: dict[str, Standing] = {}
        self._cards: tuple[CardReport, ...] = ()
        self._probed = float("-inf")

    def report(self) -> dict[str, Any]:
        """What this PC has, with a worker started for each card that had none. As `farm.wire.NodeReport`."""
        if time.monotonic() - self._probed > PROBE_EVERY_S:
            self._cards = probe.cards(self._identity.node_id, self._models)
            self._probed = time.monotonic()
        words = self._ask_workers()
        cards = tuple(self._keep_worker(card, words) for card in self._cards)
        ram_gib, ram_free_gib = probe.ram()
        return report_to_dict(
            NodeReport(
                node_id=self._identity.node_id,
                name=self._identity.name,
                address=str(_ray.util.get_node_ip_address()),
                at=time.time(),
                versions={
                    "farm": farm.__version__,
                    "ray": ray.__version__,
                    "python": platform.python_version(),
                },
                cards=cards,
                spooled=self._spool.attempts(),
                ram_gib=ram_gib,
                ram_free_gib=ram_free_gib,
            )
        )

    def _ask_workers(self) -> dict[str, WorkerWord | None]:
        """What each card's worker says; None for one whose process ended, no entry for one that is busy starting or loading.

        All are asked at once: a PC with eight cards that start together must not keep the head waiting for one after the other.
        """
        asked: dict[Any, str] = {handle.state.remote(): card_id for card_id, handle in self._workers.items()}
        if not asked:
            return {}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=STATE_TIMEOUT_S)
        words: dict[str, WorkerWord | None] = {}
        for answer in ready:
            try:
                words[asked[answer]] = WorkerWord.of(ray.get(answer))
            except RayActorError:
                words[asked[answer]] = None
        return words

    def _keep_worker(self, card: CardReport, words: Mapping[str, WorkerWord | None]) -> CardReport:
        """Makes sure of the card's worker; returns the card as it stands."""
        standing = self._standings.setdefault(card.id, Standing())
        now = time.monotonic()
        if card.id in words:
            word = words[card.id]
            standing.hear(word, now)
            if word is None:
                log.warning("the worker of %s died, starting another", card.name)
                del self._workers[card.id]
        if standing.shall_retest(now):
            log.info("testing %s again", card.name)
            report = standing.of(card)
            standing.renew()
            _ray.kill(self._workers.pop(card.id))
            return report  # in trouble until the fresh worker, started with the next report, says otherwise
        if card.id not in self._workers:
            self._workers[card.id] = self._start_worker(card)
        return standing.of(card)

    def _start_worker(self, card: CardReport) -> ActorHandle[Any]:
        environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        environment["CUDA_VISIBLE_DEVICES"] = card.id if card.kind == CardKind.CUDA else ""
        ray_node_id = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(ray_node_id, soft=False)
        worker: ActorHandle[Any] = CardWorkerActor.options(
            name=worker_name(card.id, ray_node_id),
            namespace="farm",
            lifetime="detached",
            get_if_exists=True,
            scheduling_strategy=here,
            runtime_env={"env_vars": environment},
        ).remote(card.id, card.kind, card.name, card.driver, card.compute_capability)
        return worker

    @ray.method(concurrency_group="io")
    def replay(self, attempt_id: str, after: int) -> list[dict[str, Any]]:
        """Spooled events of an attempt above number `after`, for when its worker is gone."""
        return [to_dict(event) for event in self._spool.events(attempt_id, after)]

    @ray.method(concurrency_group="io")
    def read(self, attempt_id: str, name: str) -> bytes:
        """A file of an attempt's spool."""
        return self._spool.read(attempt_id, name)

    @ray.method(concurrency_group="io")
    def forget(self, attempt_ids: list[str]) -> None:
        """Removes attempts from the spool that the head is done with."""
        for attempt_id in attempt_ids:
            self._spool.forget(attempt_id)

    @ray.method(concurrency_group="io")
    def pid(self) -> int:
        """This process's id."""
        return os.getpid()


NodeAgentActor: Any = _ray.remote(
    num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups={"io": 4}
)(NodeAgent)
