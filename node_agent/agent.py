"""The node agent: a detached Ray actor, one per PC. Says what the PC has, keeps one card worker per card, and replays the spool."""

import logging
import os
import platform
import time
from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError
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
        cards = self._ask_workers(self._cards)
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

    def _ask_workers(self, cards: tuple[CardReport, ...]) -> tuple[CardReport, ...]:
        """The cards, with what their workers say. Asks all at once, so that several slow ones take no longer than one."""
        asked: dict[str, Any] = {}
        for card in cards:
            if card.id not in self._workers:
                self._workers[card.id] = self._start_worker(card)
            asked[card.id] = self._workers[card.id].state.remote()
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=STATE_TIMEOUT_S)
        return tuple(self._heard(card, asked[card.id]) for card in cards)

    def _heard(self, card: CardReport, answer: Any) -> CardReport:
        standing, now = self._standings.setdefault(card.id, Standing()), time.monotonic()
        try:
            word = WorkerWord.of(ray.get(answer, timeout=0))
        except GetTimeoutError:  # starting, or stuck: the head counts how long
            return replace(standing.of(card), answers=False)
        except RayActorError:
            log.warning("the worker of %s died, starting another", card.name)
            standing.hear(None, now)
            self._workers[card.id] = self._start_worker(card)
            return replace(standing.of(card), answers=False)
        standing.hear(word, now)
        report = replace(standing.of(card), attempt_id=word.attempt_id)
        if standing.shall_retest(now):
            log.info("testing %s again", card.name)
            self._end_worker(card.id)  # the card stays in trouble until the fresh worker says otherwise
        return report

    def replace_worker(self, card_id: str) -> None:
        """Ends a card's worker, whatever it is at. The next report starts another."""
        log.warning("the worker of %s is replaced, as the head asked", card_id)
        self._end_worker(card_id)

    def _end_worker(self, card_id: str) -> None:
        worker = self._workers.pop(card_id, None)
        if worker is not None:
            ray.kill(worker, no_restart=True)
            self._standings.setdefault(card_id, Standing()).renew()

    def _start_worker(self, card: CardReport) -> ActorHandle[Any]:
        environment = {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
        }
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
