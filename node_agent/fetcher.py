"""Keeps this PC's models as the head's are: one thread that fetches what some card here could run, one model at a time."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from farm.catalogue.models import ModelRow
from farm.errors import DiskFullError, FarmError, HeadUnreachableError, MissingWeightsError
from farm.model import Coming
from farm.weights import KEPT_FREE, Shelf
from farm.wire import OfferedModel
from node_agent.fetch import (
    BecameFullError,
    DamagedError,
    Pace,
    PausedError,
    drop_half,
    fetch_model,
    half_there,
)
from node_agent.head_shelf import ChangedMeanwhileError, HeadShelf
from node_agent.pipelines.weights import check_weights

log = logging.getLogger(__name__)

LOOK_EVERY_S = 10.0
"""How often the head is asked for what it has: a question of one short answer."""
DAMAGED_TRIES = 3
"""A bit that flips once is fetched anew; what comes damaged so often in a row, or does not come at all, is said."""
UNKNOWN = "that PC's catalogue has no such model. Update the farm there, or give it the models file that the head has (FARM_MODELS_FILE)."
WHILE_WORKING = 20.0 * 2**20
"""Bytes a second while a card here works or its owner has one: a fifth of a gigabit line, and little of an old disk."""
REST_S = 600.0
"""How long a model is left alone that could not be taken."""


@dataclass(slots=True)
class _Trial:
    """How often in a row a model came damaged, or not a byte of it, and until when it is left alone (monotonic seconds).

    `refused`: the version that came whole and is not one of this PC's model; fetching it again would change nothing.
    """

    damaged: int = 0
    silent: int = 0
    not_before: float = float("-inf")
    refused: str = ""


def allowed_pace(kept: Sequence[bool], *, at_work: bool, limit: float | None) -> float | None:
    """How fast weights may come, bytes a second: 0 while the owner has the whole PC, little beside work, else all that the line gives.

    `kept`: of each card, whether it is kept for its owner; `limit` is the owner's own, None for none.
    """
    if kept and all(kept):
        return 0.0
    if at_work or any(kept):
        return min(limit or WHILE_WORKING, WHILE_WORKING)
    return limit


class Fetcher:
    """One per PC; `look` is one look, `watch` a thread that looks for ever.

    `connect` opens the head's shelf (None on the head's own PC, which needs nothing fetched); `wanted` are the models that some card here
    could run and that lie nowhere else on this PC; `fetched` is called when the shelf has changed. `known` are the models of this PC's
    catalogue, whether it can run them or not.
    """

    def __init__(
        self,
        shelf: Shelf,
        connect: Callable[[], HeadShelf | None],
        wanted: Callable[[], Mapping[str, ModelRow]],
        pace: Pace,
        fetched: Callable[[], None],
        known: Collection[str],
        kept_free: int = KEPT_FREE,
    ) -> None:
        self._shelf = shelf
        self._connect = connect
        self._wanted = wanted
        self._pace = pace
        self._fetched = fetched
        self._known = known
        self._kept_free = kept_free
        self._coming: dict[str, Coming] = {}
        self._trials: dict[str, _Trial] = {}

    @property
    def coming(self) -> tuple[Coming, ...]:
        """What is on its way to this PC, by name."""
        return tuple(sorted(self._coming.copy().values(), key=lambda one: one.model))

    def watch(self) -> None:
        """Looks again and again, in a thread of its own, for as long as this process lives."""
        threading.Thread(target=self._run, name="fetch", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # a surprise must not end the fetching for good
                log.exception("looking for the head's models failed")
            time.sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Asks the head once, and fetches what is missing."""
        line = self._connect()
        if line is None:
            return
        with line:
            try:
                offer = line.offer()
            except FarmError as error:  # away, or this PC has just left: what is known stays
                log.info("%s", error)
                return
            self._drop(offer.removed)
            wanted = self._wanted()
            due = self._due([model for model in offer.models if model.name in wanted])
            strange = [model for model in offer.models if model.name not in self._known]
            self._coming = {model.name: self._as_known(model) for model in due} | {
                model.name: Coming(model.name, 0, model.bytes, UNKNOWN) for model in strange
            }
            for model in due:
                trial = self._trials.setdefault(model.name, _Trial())
                if time.monotonic() < trial.not_before or trial.refused == model.digest:
                    continue
                if not self._fetch(line, model, wanted[model.name]):
                    return

    def _due(self, offered: Iterable[OfferedModel]) -> list[OfferedModel]:
        """What is to be fetched, the one that is nearest to its end first."""
        due = []
        for model in offered:
            here = self._shelf.manifest(model.name)
            if here is None or here.digest != model.digest or not self._shelf.has_all(here):
                due.append(model)
        return sorted(due, key=lambda model: (model.bytes - half_there(self._shelf, model.name), model.name))

    def _as_known(self, model: OfferedModel) -> Coming:
        before = self._coming.get(model.name)
        here = min(model.bytes, half_there(self._shelf, model.name))
        return Coming(model.name, here, model.bytes, before.trouble if before is not None else None)

    def _drop(self, removed: tuple[str, ...]) -> None:
        for name in removed:
            drop_half(self._shelf, name)
            if self._shelf.directory(name) is not None:
                log.info("%s was removed from the farm, and is removed here", name)
                self._shelf.remove(name)
                self._fetched()

    def _fetch(self, line: HeadShelf, model: OfferedModel, row: ModelRow) -> bool:
        """Fetches one; False if no other should be tried now."""
        trial, before = self._trials[model.name], half_there(self._shelf, model.name)
        try:
            if self._pace() == 0:
                return False
            fetch_model(
                self._shelf,
                line,
                line.manifest(model.name),
                lambda directory: check_weights(directory, row),
                self._pace,
                lambda here: self._told(model.name, here),
                self._kept_free,
            )
        except PausedError:
            log.info("fetching %s stopped: its owner has the PC", model.name)
            return False
        except HeadUnreachableError as error:
            log.info("fetching %s stopped: %s", model.name, error)
            # A head that said what it has a moment ago, and gives nothing of this one, must not let the others wait for ever.
            trial.silent = 0 if half_there(self._shelf, model.name) > before else trial.silent + 1
            if trial.silent < DAMAGED_TRIES:
                return False
            self._trouble(model.name, error, rest_s=REST_S)
        except ChangedMeanwhileError:
            return False
        except DamagedError as error:
            log.warning("%s", error)
            trial.damaged += 1
            if trial.damaged >= DAMAGED_TRIES:
                self._trouble(model.name, error, rest_s=REST_S)
        except BecameFullError as error:
            self._trouble(model.name, error, rest_s=REST_S)  # an owner's quota is seen only by filling it
        except DiskFullError as error:
            self._trouble(model.name, error, rest_s=0.0)  # looking whether there is room now costs nothing
        except MissingWeightsError as error:
            self._trouble(model.name, error, rest_s=0.0)
            self._trials[model.name].refused = model.digest
        except FarmError as error:
            self._trouble(model.name, error, rest_s=REST_S)
        else:
            log.info("%s is here", model.name)
            self._trials.pop(model.name, None)
            self._fetched()
            # Last: between the two nobody may hear that it neither is here nor comes.
            self._coming.pop(model.name, None)
        return True

    def _told(self, name: str, here: int) -> None:
        self._coming[name] = replace(self._coming[name], done_bytes=here, trouble=None)

    def _trouble(self, name: str, error: FarmError, rest_s: float) -> None:
        if self._coming[name].trouble is None:
            log.warning("%s cannot be fetched: %s", name, error)
        self._coming[name] = replace(self._coming[name], trouble=str(error))
        self._trials[name] = _Trial(not_before=time.monotonic() + rest_s)
