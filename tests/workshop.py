"""A runner whose models do what a test says: everything but the model is the real thing."""

import hashlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import numpy as np
import pytest

from farm import events
from farm.catalogue.models import ModelRow
from farm.clock import SystemClock
from farm.events import Event
from farm.model import MemoryPlan, StageKind
from farm.wire import Order
from node_agent.ladder import Program
from node_agent.pipelines.base import Frame, RenderRequest, Report
from node_agent.runner import Runner
from node_agent.spool import Spool
from tests.storage import SETTINGS

LIMIT_S = 30.0
RESIDENT = MemoryPlan()


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


class AcceleratorError(RuntimeError):
    """Named as torch's is."""


def order(picture: bytes, name: str = "A1", plan: MemoryPlan = RESIDENT, **changes: object) -> Order:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]  # names of fields
    digest = hashlib.sha256(picture).hexdigest()
    return Order(name, "J1", StageKind.GENERATE, settings, plan, digest, draft=True)


def ended(spool: Spool, name: str = "A1") -> list[Event]:
    """All events of an attempt, once it has said its last."""
    after, found = 0, []
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        news = spool.follow(name, after, 1.0)
        found += news
        if news:
            after = news[-1].seq
            if news[-1].kind in events.FINAL_KINDS:
                return found
    raise AssertionError(f"no end in {LIMIT_S} s: {found}")


@dataclass
class Scripted:
    """A model that does what the test says, and remembers what was done to it."""

    row: ModelRow
    device: str
    script: Callable[[RenderRequest, Report], None] = lambda _request, _report: None
    on_load: Callable[[Report], None] = lambda _report: None
    done: list[str] = field(default_factory=list)
    plans: list[MemoryPlan] = field(default_factory=list)
    streams_gib: float = 0.0

    def load(self, plan: MemoryPlan, report: Report) -> None:
        self.done.append("load")
        self.plans.append(plan)
        self.on_load(report)

    def render(self, request: RenderRequest, report: Report) -> Iterator[Frame]:
        self.done.append("render")
        settings = request.settings
        for index in range(settings.frames):
            self.script(request, report)
            report.step(index + 1, settings.frames)
            yield np.full((settings.height, settings.width, 3), index, np.uint8)

    def unload(self) -> None:
        self.done.append("unload")


@dataclass
class Workshop:
    """A runner whose models are scripted; `opened` are those it opened, in order, `ends` how often its process was to end."""

    runner: Runner
    spool: Spool
    opened: list[Scripted] = field(default_factory=list)
    script: Callable[[RenderRequest, Report], None] = lambda _request, _report: None
    on_load: Callable[[Report], None] = lambda _report: None
    ends: list[int] = field(default_factory=list)

    def play(self, request: RenderRequest, report: Report) -> None:
        """What the test says at the time, not when the model was opened."""
        self.script(request, report)

    def make(self, picture: bytes, name: str, model: str = "one", **changes: object) -> list[Event]:
        self.runner.start(order(picture, name, model=model, **changes), picture)  # type: ignore[arg-type]  # fields
        return ended(self.spool, name)


ROWS = {
    name: ModelRow(name, name, "scripted", tensor_needed=False, devices=("cpu",)) for name in ("one", "two")
}


def set_up(
    spool: Spool,
    monkeypatch: pytest.MonkeyPatch,
    device: str = "cpu",
    rows: Mapping[str, ModelRow] = ROWS,
    programs: Callable[[], Sequence[Program]] = tuple,
    *,
    can_spill: bool = False,
) -> Workshop:
    """A workshop on `device`, which knows the models of `rows`."""
    ends: list[int] = []
    runner = Runner(
        spool,
        rows,
        device,
        SystemClock(),
        programs=programs,
        can_spill=can_spill,
        end=lambda: ends.append(1),
    )
    made = Workshop(runner, spool, ends=ends)
    module = ModuleType("node_agent.pipelines.scripted")

    def open_model(row: ModelRow, on: str) -> Scripted:
        made.opened.append(Scripted(row, on, made.play, made.on_load))
        return made.opened[-1]

    module.open_model = open_model  # type: ignore[attr-defined]  # as every pipeline's module has
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return made
