"""A worker goes on from a checkpoint, another card's or its own, in the real runner; the model is a script of steps, torch a fake."""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from farm import events
from farm.catalogue.models import builtin_models
from farm.errors import BrokenPictureError, StaleCheckpointError
from farm.events import Event
from farm.model import FailureClass, MemoryPlan
from farm.planning.memory import HELD, peak_gib
from farm.planning.plans import leaner
from farm.wire import order_from_dict, order_to_dict
from node_agent import attempt as attempt_module
from node_agent.pipelines.base import Frame, RenderRequest, Report
from node_agent.spool import Spool
from tests.fake_torch import FakeTorch
from tests.pictures import product
from tests.workshop import LIMIT_S, AcceleratorError, OutOfMemoryError, Workshop, ended, order, set_up

STEPS = 8
ROW = replace(builtin_models()["i2vgen-xl"], name="one", pipeline="scripted", tensor_needed=False)
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


class Ticks(ModuleType):
    """Time that passes only when a step is made, two seconds each."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@dataclass
class Stepping:
    """A diffusion model in steps, with a checkpoint after every second one. `fails[n]` is raised before step `n`, once."""

    ticks: Ticks
    fails: dict[int, Exception] = field(default_factory=dict)
    given: list[bytes | None] = field(default_factory=list)
    plans: list[MemoryPlan] = field(default_factory=list)
    made: list[int] = field(default_factory=list)
    streams_gib: float = 0.0

    def load(self, plan: MemoryPlan, _report: Report) -> None:
        self.ticks.now += 30.0

    def render(self, request: RenderRequest, report: Report) -> Iterator[Frame]:
        self.given.append(request.resume)
        self.plans.append(request.plan)
        done = 0
        if request.resume is not None:
            if not request.resume.startswith(b"after "):
                raise StaleCheckpointError(
                    "The checkpoint is damaged.", "The render starts from the beginning."
                )
            done = int(request.resume.removeprefix(b"after "))
            report.step(done, STEPS)
        for number in range(done + 1, STEPS + 1):
            if number in self.fails:
                raise self.fails.pop(number)
            self.ticks.now += 2.0
            self.made.append(number)
            report.step(number, STEPS)
            if number % 2 == 0:
                report.checkpoint(number, b"after %d" % number)
        settings = request.settings
        for index in range(settings.frames):
            yield np.full((settings.height, settings.width, 3), index, np.uint8)

    def unload(self) -> None:
        """Nothing to give back."""


@dataclass
class Card:
    """A card under test and its model."""

    shop: Workshop
    model: Stepping
    torch: FakeTorch
    picture: bytes

    def make(self, checkpoint: bytes | None = None, resumes: int | None = None) -> list[Event]:
        asked = replace(order(self.picture, model="one", guidance=9.0, steps=STEPS), resumes=resumes)
        self.shop.runner.start(order_from_dict(order_to_dict(asked)), self.picture, checkpoint)
        return ended(self.shop.spool)


@pytest.fixture(scope="module")
def picture() -> bytes:
    file = io.BytesIO()
    product(160, 120).image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes) -> Iterator[Card]:
    torch = FakeTorch(total_gib=12.0)
    monkeypatch.setitem(sys.modules, "torch", torch.module())
    ticks = Ticks("time")
    monkeypatch.setattr(attempt_module, "time", ticks)
    shop = set_up(Spool(tmp_path / "spool"), monkeypatch, "cuda:0", {"one": ROW})
    model = Stepping(ticks)
    monkeypatch.setattr(sys.modules["node_agent.pipelines.scripted"], "open_model", lambda _row, _on: model)
    yield Card(shop, model, torch, picture)
    attempt = shop.runner._current
    if attempt is not None:
        attempt.stop.set()
        attempt.thread.join(LIMIT_S)


def steps(told: list[Event]) -> list[tuple[int, float | None]]:
    return [(event.done, event.seconds_per_step) for event in told if isinstance(event, events.Step)]


def resumed(told: list[Event]) -> list[tuple[int, int, int | None]]:
    return [(event.step, event.total, event.source) for event in told if isinstance(event, events.Resumed)]


def notes(told: list[Event]) -> list[str]:
    return [event.text for event in told if isinstance(event, events.Note)]


def test_an_order_with_a_checkpoint_goes_on_from_there_and_says_so(card: Card) -> None:
    told = card.make(b"after 4", resumes=2)
    assert told[-1].kind == "done"
    assert card.model.given == [b"after 4"]
    assert card.model.made == [5, 6, 7, 8]
    assert resumed(told) == [(4, STEPS, 2)]
    assert [event.seq for event in told] == list(range(1, len(told) + 1))


def test_after_a_checkpoint_the_pace_is_that_of_the_steps_made_here(card: Card) -> None:
    """The steps that were skipped would have made the card look several times as fast as it is."""
    told = card.make(b"after 4", resumes=1)
    assert steps(told) == [(4, None), (5, 2.0), (6, 2.0), (7, 2.0), (8, 2.0)]


def test_out_of_memory_goes_on_from_the_last_checkpoint_with_a_leaner_plan(card: Card) -> None:
    """Each step down the ladder began at step 0 again."""
    asked = order(card.picture, guidance=9.0).settings
    card.torch.total_gib = (
        HELD * peak_gib(ROW, asked, MemoryPlan()) + card.torch.context_gib
    )  # no more than it is held to
    card.model.fails[6] = OutOfMemoryError(OUT_OF_MEMORY)
    told = card.make()
    assert told[-1].kind == "done"
    assert card.model.given == [None, b"after 4"]
    assert card.model.made == [1, 2, 3, 4, 5, 5, 6, 7, 8]
    assert card.model.plans[1] == leaner(ROW, asked, card.model.plans[0])
    assert resumed(told) == [(4, STEPS, None)]
    assert steps(told)[5:7] == [(4, None), (5, 2.0)]


def test_out_of_memory_before_its_own_first_checkpoint_goes_on_from_the_order_s(card: Card) -> None:
    card.model.fails[5] = OutOfMemoryError(OUT_OF_MEMORY)
    told = card.make(b"after 4", resumes=3)
    assert told[-1].kind == "done"
    assert card.model.given == [b"after 4", b"after 4"]
    assert resumed(told) == [(4, STEPS, 3), (4, STEPS, 3)]


@pytest.mark.parametrize("ran_out_first", [False, True])
def test_a_checkpoint_that_does_not_fit_is_never_used_and_the_render_begins_anew(
    card: Card, ran_out_first: bool
) -> None:
    """Also where the next try comes before the first checkpoint of its own."""
    if ran_out_first:
        card.model.fails[1] = OutOfMemoryError(OUT_OF_MEMORY)
    told = card.make(b"of another render", resumes=1)
    assert told[-1].kind == "done"
    assert card.model.given == [b"of another render", *[None] * (2 if ran_out_first else 1)]
    assert card.model.made == list(range(1, STEPS + 1))
    assert notes(told) == ["The checkpoint is damaged. The render starts from the beginning."]
    assert resumed(told) == []
    assert steps(told)[0] == (1, 2.0)


def test_a_broken_picture_is_made_from_the_beginning_in_single_precision(card: Card) -> None:
    """The latents of the checkpoint were computed in the precision that broke the picture."""
    card.model.fails[6] = BrokenPictureError("Step 6 gave no numbers.", "It will be tried on another card.")
    told = card.make(b"after 2", resumes=1)
    assert told[-1].kind == "done"
    assert card.model.given == [b"after 2", None]
    assert card.model.plans[1].precision == "fp32"
    assert card.model.made == [3, 4, 5, *range(1, STEPS + 1)]


def test_a_fault_of_cuda_ends_the_attempt_and_its_checkpoint_stays_in_the_spool(card: Card) -> None:
    card.model.fails[6] = AcceleratorError("CUDA error: an illegal memory access was encountered")
    last = card.make()[-1]
    assert isinstance(last, events.Failed)
    assert (last.failure_class, last.worker_ends) == (FailureClass.CARD_FAULT, True)
    assert card.shop.spool.read("A1", "checkpoint.safetensors") == b"after 4"
