"""A card's worker without its transport: renders for real, spools what happens."""

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from farm import events
from farm.catalogue.models import builtin_models
from farm.clock import SystemClock
from farm.errors import BadInputError, MissingWeightsError, RenderFailedError
from farm.events import Event
from farm.model import FailureClass, MemoryPlan, StageKind
from farm.video import read_metadata, verify
from farm.wire import Order
from node_agent.runner import Busy, Runner, explain
from node_agent.spool import Spool
from tests.pictures import product
from tests.storage import SETTINGS

LIMIT_S = 30.0


@pytest.fixture(scope="module")
def picture() -> bytes:
    file = io.BytesIO()
    product(320, 240).image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def runner(spool: Spool) -> Iterator[Runner]:
    made = Runner(spool, builtin_models(), "cpu", SystemClock())
    yield made
    if made.current is not None:
        made.cancel(made.current)


def order(picture: bytes, name: str = "A1", **changes: object) -> Order:
    settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]  # names of fields
    digest = hashlib.sha256(picture).hexdigest()
    return Order(name, "J1", StageKind.GENERATE, settings, MemoryPlan(), digest, draft=True)


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


def test_a_picture_becomes_a_spooled_clip(runner: Runner, spool: Spool, picture: bytes) -> None:
    runner.start(order(picture), picture)
    told = ended(spool)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    kinds = [event.kind for event in told if event.kind not in ("step", "preview")]
    assert kinds == ["loading", "rendering", "done"]
    steps = [event for event in told if isinstance(event, events.Step)]
    assert (steps[-1].done, steps[-1].total) == (SETTINGS.frames, SETTINGS.frames)
    done = told[-1]
    assert isinstance(done, events.Done)
    video = spool.directory("A1") / done.video.name
    assert hashlib.sha256(video.read_bytes()).hexdigest() == done.video.sha256
    verify(video, width=SETTINGS.width, height=SETTINGS.height, frames=SETTINGS.frames, fps=SETTINGS.fps)
    assert read_metadata(video)["prompt"] == SETTINGS.prompt
    assert read_metadata(video)["draft"] is True
    assert {"depth", "render", "encode"} <= set(done.stage_seconds)
    assert done.peak_gib is not None
    assert 0.01 < done.peak_gib < 8


def test_starting_an_attempt_again_changes_nothing_also_when_it_has_ended(
    runner: Runner, spool: Spool, picture: bytes
) -> None:
    """A restarted scheduler that handed an ended attempt over once more had it rendered a second time."""
    runner.start(order(picture), picture)
    first = ended(spool)
    runner.start(order(picture), picture)
    assert runner.current is None
    assert spool.events("A1", 0) == first


def test_an_attempt_whose_process_ended_in_the_middle_is_not_waited_for(
    runner: Runner, spool: Spool, picture: bytes
) -> None:
    """After a kill of the whole head, the new worker found the old one's half spool and followed it for ever."""
    spool.open(order(picture))
    spool.append(events.Loading("A1", 1, 1.0))
    assert [event.seq for event in runner.follow("A1", 0, 60.0) or []] == [1]
    assert runner.follow("A1", 1, 60.0) is None
    assert runner.follow("A2", 0, 60.0) is None


def test_a_card_makes_one_attempt_at_a_time_and_a_cancel_stops_it_at_its_next_step(
    runner: Runner, spool: Spool, picture: bytes
) -> None:
    runner.start(order(picture, frames=240, width=640, height=480), picture)
    while not any(isinstance(event, events.Step) for event in spool.events("A1", 0)):
        spool.follow("A1", 2, 1.0)
    with pytest.raises(Busy, match="A1"):
        runner.start(order(picture, "A2"), picture)
    assert not runner.cancel("A2")
    assert runner.cancel("A1")
    told = ended(spool)
    assert told[-1].kind == "cancelled"
    assert len([event for event in told if isinstance(event, events.Step)]) < 200
    deadline = time.monotonic() + LIMIT_S
    while runner.current is not None and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    runner.start(order(picture, "A2"), picture)
    assert ended(spool, "A2")[-1].kind == "done"


def test_a_picture_that_changed_on_its_way_is_not_rendered(
    runner: Runner, spool: Spool, picture: bytes
) -> None:
    runner.start(order(picture), picture + b"x")
    last = ended(spool)[-1]
    assert isinstance(last, events.Failed)
    assert "changed on its way" in last.message


def test_a_model_this_pc_does_not_know_says_what_to_do(runner: Runner, spool: Spool, picture: bytes) -> None:
    runner.start(order(picture, model="dreams"), picture)
    last = ended(spool)[-1]
    assert isinstance(last, events.Failed)
    assert last.failure_class == FailureClass.MISSING_WEIGHTS
    assert "dreams" in last.message
    assert last.remedy


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


class AcceleratorError(RuntimeError):
    """Named as torch's is."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadInputError("image", "Empty."), FailureClass.BAD_INPUT),
        (MissingWeightsError("None.", "Fetch them."), FailureClass.MISSING_WEIGHTS),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), FailureClass.OUT_OF_MEMORY),
        (MemoryError(), FailureClass.OUT_OF_MEMORY),
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), FailureClass.CARD_FAULT),
        (RuntimeError("CUDA error: unspecified launch failure"), FailureClass.CARD_FAULT),
        (RenderFailedError("Black frames."), FailureClass.INTERNAL),
        (ZeroDivisionError("division by zero"), FailureClass.INTERNAL),
    ],
)
def test_each_failure_has_its_class(error: Exception, expected: FailureClass) -> None:
    kind, message, _ = explain(error)
    assert kind == expected
    assert message
    assert "Traceback" not in message
