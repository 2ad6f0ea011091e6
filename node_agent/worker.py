"""The card worker: a detached Ray actor in a process of its own, one per card. Ray carries calls; `runner` does the work.

Detached, so that the head's scheduler may die without ending a render. The render runs in a thread that no Ray task owns; control
calls have a concurrency group of their own, so that they are answered while a follower waits.
"""

import logging
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray

from farm.catalogue.models import load_models
from farm.clock import SystemClock
from farm.events import to_dict
from farm.model import CardKind
from farm.settings import FarmSettings
from farm.wire import order_from_dict
from node_agent.apart import end_children
from node_agent.hostram import room_for_weights_gib
from node_agent.look import other_programs
from node_agent.runner import Busy, Runner
from node_agent.selftest import card_trouble_apart
from node_agent.spill import can_spill
from node_agent.spool import Spool

log = logging.getLogger(__name__)

FOLLOWERS = 4
"""Waiting `follow` calls at once: the scheduler's, and after its restart those of the dead one until they time out."""


def spool_root(node_home: Path) -> Path:
    """Where a node's workers and agent keep attempts."""
    return node_home / "spool"


def node_home() -> Path:
    """This node's home, which `farm up` or `farm join` put into the environment of Ray's daemons."""
    home = FarmSettings().node_home
    if home is None:
        raise RuntimeError(
            "FARM_NODE_HOME is not set: card workers are started through `farm up` or `farm join`."
        )
    return home


def _end() -> None:
    """Ends this process at once: a broken CUDA may hang in the clean-up of an ordinary exit. What was said is on the disk."""
    end_children()
    os._exit(1)


class CardWorker:
    """Makes attempts on one card, which it tests first. `name`, `driver` and `capability` are what NVML says of the card."""

    def __init__(
        self,
        card_id: str,
        kind: str,
        name: str = "",
        driver: str | None = None,
        capability: tuple[int, int] | None = None,
        *,
        again: bool = False,
        known: bool = False,
    ) -> None:
        """`again`: the card failed before, so that a CPU too is tested. `known`: a former worker tested it, and only rested since."""
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        if kind == CardKind.CPU:
            os.nice(10)  # a render on the CPU must not make the PC's own work, or the farm's, wait
        self._card_id = card_id
        self._spool = Spool(spool_root(node_home()))
        models = load_models(FarmSettings().models_file)
        self._runner = Runner(
            self._spool,
            models,
            "cpu" if kind == CardKind.CPU else "cuda:0",
            SystemClock(),
            programs=partial(other_programs, card_id) if kind == CardKind.CUDA else tuple,
            ram_gib=room_for_weights_gib,
            can_spill=kind == CardKind.CUDA and can_spill(),
            end=_end,
        )
        self._tested = known or (kind == CardKind.CPU and not again)
        self._trouble: str | None = None
        if not self._tested:  # beside the calls: importing torch takes seconds, and `state` must be answered
            test = partial(card_trouble_apart, name, driver, capability)
            if kind == CardKind.CPU:
                # OpenCV comes with it, 10 MiB of every idle worker and of the agent, for a card that failed before.
                from node_agent.tryout import render_trouble_apart  # noqa: PLC0415

                test = partial(render_trouble_apart, name)
            threading.Thread(target=self._test, args=(name, test), name="test", daemon=True).start()

    def _test(self, name: str, test: Callable[[], str | None]) -> None:
        try:
            self._trouble = test()
        except Exception as error:  # whatever it is, the card did not pass
            log.exception("testing %s failed", name)
            self._trouble = f"{name} could not be tested: {error!r}. The worker's log has the trace."
        if self._trouble is not None:
            log.error("%s", self._trouble)
        self._tested = True

    @ray.method(concurrency_group="ctl")
    def start(self, order: dict[str, Any], picture: bytes, checkpoint: bytes | None = None) -> str | None:
        """Begins an attempt, from a checkpoint where there is one; returns None, or the id of the attempt that holds the card."""
        try:
            kept = None if checkpoint is None else bytes(checkpoint)
            self._runner.start(order_from_dict(order), bytes(picture), kept)
        except Busy as busy:
            return str(busy)
        return None

    @ray.method(concurrency_group="follow")
    def follow(self, attempt_id: str, after: int, wait_s: float) -> list[dict[str, Any]] | None:
        """See `Runner.follow`."""
        found = self._runner.follow(attempt_id, after, wait_s)
        return None if found is None else [to_dict(event) for event in found]

    @ray.method(concurrency_group="ctl")
    def cancel(self, attempt_id: str) -> bool:
        """Asks an attempt to stop at its next step; False if it is not under way."""
        return self._runner.cancel(attempt_id)

    @ray.method(concurrency_group="ctl")
    def make_way(self, why: str) -> None:
        """See `Runner.make_way`. Returns before this process ends, where it can."""
        threading.Thread(target=self._runner.make_way, args=(why,), name="make-way", daemon=True).start()

    @ray.method(concurrency_group="ctl")
    def rest(self) -> bool:
        """See `Runner.rest`; the agent ends this process then."""
        return self._tested and self._trouble is None and self._runner.rest()

    @ray.method(concurrency_group="ctl")
    def read(self, attempt_id: str, name: str) -> bytes:
        """A file of an attempt's spool."""
        return self._spool.read(attempt_id, name)

    @ray.method(concurrency_group="ctl")
    def state(self) -> dict[str, Any]:
        """What `node_agent.standing.WorkerWord` holds."""
        return {
            "pid": os.getpid(),
            "attempt_id": self._runner.current,
            "tested": self._tested and not self._runner.broken,
            "trouble": self._trouble,
            "spills": self._runner.spills,
            "held_gib": self._runner.held_gib,
        }


_remote: Any = ray.remote  # its stubs know no concurrency groups
CardWorkerActor: Any = _remote(
    num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups={"ctl": 4, "follow": FOLLOWERS}
)(CardWorker)
