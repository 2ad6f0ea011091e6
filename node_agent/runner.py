"""Makes attempts, one at a time, in a thread of its own: opens the model, renders, encodes, and spools what happens. No Ray.

An attempt is one or more tries: `node_agent.ladder` says what a card does about a failed one before it hands the job back.
"""

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

from farm import events
from farm.catalogue.models import ModelRow
from farm.clock import Clock
from farm.errors import DiskFullError, MissingWeightsError
from farm.model import MemoryPlan
from farm.wire import Order
from node_agent.attempt import Attempt
from node_agent.faults import fault_of
from node_agent.ladder import Program
from node_agent.meter import CardMemory
from node_agent.pipelines.base import OpenModel, VideoModel
from node_agent.spool import Spool

log = logging.getLogger(__name__)


class Busy(Exception):  # noqa: N818 - not an error of anyone: the head learns that another attempt holds the card
    """The runner works on another attempt."""


class Runner:
    """One card's worker, without its transport. `device` as torch names it: "cpu", "cuda:0".

    `programs` names the other programs on the card, `ram_gib` is what a render may take of the PC's memory now. `can_spill`: Windows'
    driver may move its memory to RAM. `end` ends this process: it is called when the process can serve its card no longer, after the
    attempt's last word is on the disk.
    """

    def __init__(
        self,
        spool: Spool,
        models: Mapping[str, ModelRow],
        device: str,
        clock: Clock,
        *,
        programs: Callable[[], Sequence[Program]] = tuple,
        ram_gib: Callable[[], float] = lambda: math.inf,
        can_spill: bool = False,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._spool = spool
        self._models = models
        self._device = device
        self._clock = clock
        self.programs = programs
        self.can_spill = can_spill
        self._ram_gib = ram_gib
        self.spills = 0
        self.end = end
        self.broken = False
        self.leaving = False
        self._lock = threading.Lock()
        self._current: Attempt | None = None
        self._warm: tuple[ModelRow, VideoModel] | None = None

    def start(self, order: Order, picture: bytes, checkpoint: bytes | None = None) -> None:
        """Begins an attempt and returns at once. Starting one that is under way, or ended, changes nothing.

        With a `checkpoint` it goes on from there, if that is one of the same render. Where the disk takes no attempt, it ends at once, and
        says why.

        Raises:
            Busy: another attempt is under way, or this process is about to end.
        """
        with self._lock:
            current = self._current
            if self.broken and not self._spool.events(order.attempt_id, 0):
                raise Busy(current.order.attempt_id if current is not None else order.attempt_id)
            if current is not None and current.over.is_set():
                current.thread.join()  # who heard its last event may be quicker than its thread's last line
            if current is not None and current.thread.is_alive():
                if current.order.attempt_id == order.attempt_id:
                    return
                raise Busy(current.order.attempt_id)
            if self._spool.events(order.attempt_id, 0):
                return
            try:
                self._spool.open(order)
            except (DiskFullError, OSError) as error:
                self._spool.keep(self._never_begun(order, error))
                return
            attempt = Attempt(self, order, picture, checkpoint)
            self._current = attempt
            attempt.thread.start()

    def _never_begun(self, order: Order, error: Exception) -> events.Failed:
        log.error("attempt %s cannot begin: %s", order.attempt_id, error)
        fault = fault_of(error)
        return events.Failed(
            order.attempt_id, 1, self._clock.now(), fault.kind, fault.message, fault.remedy, fault.detail
        )

    def cancel(self, attempt_id: str) -> bool:
        """Asks an attempt to stop at its next step; False if it is not the one under way."""
        with self._lock:
            current = self._current
        if current is None or current.order.attempt_id != attempt_id or not current.thread.is_alive():
            return False
        current.stop.set()
        return True

    def make_way(self, why: str) -> None:
        """Gives the card back to its owner: the attempt under way stops at its next step, after a checkpoint, and this process ends.

        Only the end of the process gives all of the card's memory back. No attempt begins any more. Returns, where `end` does, when the
        attempt's last word is on the disk.
        """
        with self._lock:
            self.broken = self.leaving = True
            current = self._current
            if current is not None:
                current.yield_to = why
        if current is not None:
            current.thread.join()
        self.end()

    def rest(self) -> bool:
        """Whether this process holds nothing, neither attempt nor model, and may end; after True no attempt begins here any more."""
        with self._lock:
            current = self._current
            if self._warm is not None or (current is not None and current.thread.is_alive()):
                return False
            self.broken = self.leaving = True
            return True

    def follow(self, attempt_id: str, after: int, wait_s: float) -> list[events.Event] | None:
        """Events above number `after`, waiting up to `wait_s` for the first while the attempt is under way.

        None when there are none and nobody is at work on more: the attempt is unknown here, or its process ended in the middle.
        """
        under_way = (
            self.current == attempt_id
        )  # asked first: if it ends just now, its last event is on the disk
        found = self._spool.events(attempt_id, after)
        if found or not under_way:
            return found or None
        return self._spool.follow(attempt_id, after, wait_s)

    @property
    def current(self) -> str | None:
        """The attempt under way."""
        with self._lock:
            current = self._current
        return current.order.attempt_id if current is not None and current.thread.is_alive() else None

    def row(self, name: str) -> ModelRow | None:
        """A model's row of the catalogue."""
        return self._models.get(name)

    def model_for(self, order: Order, plan: MemoryPlan, report: Attempt) -> VideoModel:
        """The order's model, warm if it was the last one used, with its weights where `plan` wants them."""
        row = self.row(order.settings.model)
        if row is None:
            raise MissingWeightsError(
                f"This PC does not know the model {order.settings.model}.",
                "Give the node the same models file as the head, or update its farm.",
            )
        if self._warm is not None and self._warm[0] != row:
            self._warm[1].unload()
            self._warm = None
        if self._warm is None:
            open_model: OpenModel = import_module(f"node_agent.pipelines.{row.pipeline}").open_model
            self._warm = (row, open_model(row, self._device))
        model = self._warm[1]
        model.load(plan, report)
        return model

    def drop_model(self) -> None:
        """Forgets the warm model after a failure, which may have left it half moved."""
        if self._warm is not None:
            try:
                self._warm[1].unload()
            except Exception:  # the model is broken already; a second fault must not hide the first
                log.exception("could not unload a model after its failure")
            self._warm = None

    @property
    def ram_gib(self) -> float:
        """What a render may take of the PC's memory for weights that stream, GiB: what is free, and what the warm model holds already."""
        return self._ram_gib() + (0.0 if self._warm is None else self._warm[1].streams_gib)

    @property
    def held_gib(self) -> float | None:
        """GiB that this process's allocator holds of the card; None while it has no context there."""
        return CardMemory(self._device).held_gib()

    @property
    def parts(self) -> tuple[Spool, str, Clock]:
        """What an attempt needs of its runner."""
        return self._spool, self._device, self._clock
