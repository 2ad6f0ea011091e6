"""A card's worker without its transport: renders for real, spools what happens."""

import dataclasses
import errno
import hashlib
import io
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from farm import events
from farm.again import read_recipe
from farm.catalogue.models import builtin_models
from farm.clock import SystemClock
from farm.errors import BadInputError, EncodingFailedError, MissingWeightsError, RenderFailedError
from farm.events import Event
from farm.model import FailureClass, StageKind
from farm.video import read_metadata, verify
from farm.wire import Order
from node_agent import attempt as attempt_module
from node_agent.faults import explain, fault_of
from node_agent.pipelines.base import RenderRequest, Report
from node_agent.runner import Busy, Runner
from node_agent.spool import Spool
from tests.pictures import product
from tests.small_disk import fill, needs_root, small_disk
from tests.storage import SETTINGS
from tests.workshop import (
    LIMIT_S,
    AcceleratorError,
    OutOfMemoryError,
    Scripted,
    Workshop,
    ended,
    order,
    set_up,
)


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


def test_a_worker_that_has_said_its_last_word_is_not_busy_though_the_head_cleared_its_spool_at_once(
    runner: Runner, spool: Spool, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was over was read from the spool, which a quick head had removed: the next attempt was turned away."""
    said, go = threading.Event(), threading.Event()
    append = spool.append

    def slow(event: Event) -> None:
        append(event)
        if event.kind in events.FINAL_KINDS and event.attempt_id == "A1":
            said.set()
            go.wait(LIMIT_S)

    monkeypatch.setattr(spool, "append", slow)  # its thread takes a while to end
    runner.start(order(picture), picture)
    assert said.wait(LIMIT_S)
    spool.forget("A1")
    later = threading.Timer(0.05, go.set)
    later.start()
    runner.start(order(picture, "A2"), picture)
    later.join()
    assert isinstance(ended(spool, "A2")[-1], events.Done)


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


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BadInputError("image", "Empty."), FailureClass.BAD_INPUT),
        (MissingWeightsError("None.", "Fetch them."), FailureClass.MISSING_WEIGHTS),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), FailureClass.OUT_OF_MEMORY),
        (MemoryError(), FailureClass.OUT_OF_MEMORY),
        (AcceleratorError("CUDA error: an illegal memory access was encountered"), FailureClass.CARD_FAULT),
        (RuntimeError("CUDA error: unspecified launch failure"), FailureClass.CARD_FAULT),
        (RuntimeError("CUDA error: out of memory\nCompile with ..."), FailureClass.OUT_OF_MEMORY),
        (AcceleratorError("CUDA error: out of memory"), FailureClass.OUT_OF_MEMORY),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            FailureClass.OUT_OF_MEMORY,
        ),
        (RuntimeError("CUDA driver error: out of memory"), FailureClass.OUT_OF_MEMORY),
        (
            RuntimeError(
                'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/pytorch/c10/cuda/CUDACachingAllocator.cpp":1131, please report a bug'
            ),
            FailureClass.OUT_OF_MEMORY,
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
            FailureClass.OUT_OF_MEMORY,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), FailureClass.OUT_OF_MEMORY),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), FailureClass.CARD_FAULT),
        (
            RuntimeError("GET was unable to find an engine to execute this computation"),
            FailureClass.OUT_OF_MEMORY,
        ),
        (
            RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
            FailureClass.OUT_OF_MEMORY,
        ),
        (RuntimeError("CUDA driver error: unspecified launch failure"), FailureClass.CARD_FAULT),
        (RuntimeError("No CUDA GPUs are available"), FailureClass.CARD_FAULT),
        *(
            (RuntimeError(said), FailureClass.CARD_FAULT)
            for said in (
                "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable",
                "CUDA driver initialization failed, you might not have a CUDA gpu.",
                "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices() that might "
                "have already set an error? Error 803: system has unsupported display driver / cuda driver combination",
                "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and installed a driver from",
                "The NVIDIA driver on your system is too old (found version 11040).",
            )
        ),
        (OutOfMemoryError(), FailureClass.OUT_OF_MEMORY),
        (AcceleratorError(), FailureClass.CARD_FAULT),
        (AssertionError("Torch not compiled with CUDA enabled"), FailureClass.CARD_FAULT),
        (
            AttributeError("module 'torch._C' has no attribute '_cuda_resetPeakMemoryStats'"),
            FailureClass.CARD_FAULT,
        ),
        (EncodingFailedError("The disk is full.", "Make room."), FailureClass.INTERNAL),
        (RenderFailedError("Black frames."), FailureClass.INTERNAL),
        (ZeroDivisionError("division by zero"), FailureClass.INTERNAL),
    ],
)
def test_each_failure_has_its_class(error: Exception, expected: FailureClass) -> None:
    """Memory that the driver itself could not give was taken for a broken card, and an error without words ended in an IndexError.

    A broken cuDNN or driver, and a card that was gone, were errors of the program: the process went on with it and the card was not tested.
    So was an allocator that ran out on a PC whose NVML does not answer, a convolution that found no room for its workspace, and a CUDA that
    did not start any more after the PC had slept or its driver was replaced: job after job failed there.
    """
    kind, message, _ = explain(error)
    assert kind == expected
    assert message
    assert "Traceback" not in message
    assert "\n" not in message


CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 2.00 GiB. "
    "Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError(CPU_ALLOCATOR), OSError(errno.ENOMEM, "Cannot allocate memory")]
)
def test_a_pc_without_memory_is_not_a_card_without(error: Exception) -> None:
    """The PC's memory was the card's, or an error of the program, and nobody was told what to do."""
    fault = fault_of(error)
    assert (fault.kind, fault.host_memory) == (FailureClass.OUT_OF_MEMORY, True)
    assert fault.message.startswith("The card's PC ran out of memory (RAM): ")
    assert fault.remedy == "Close other programs on that PC, or give it more memory."
    assert not fault_of(OutOfMemoryError("CUDA out of memory.")).host_memory


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_what_to_free(number: int) -> None:
    """It was an error of the program."""
    kind, message, remedy = explain(OSError(number, os.strerror(number), "/var/farm/spool/A1/x"))
    assert kind == FailureClass.INTERNAL
    assert message == f"The disk of /var/farm/spool/A1 on the card's PC is full ({os.strerror(number)})."
    assert "farm models rm" in remedy


@pytest.fixture
def workshop(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return set_up(spool, monkeypatch)


def test_a_warm_model_is_used_again_and_another_takes_its_place(workshop: Workshop, picture: bytes) -> None:
    for name in ("A1", "A2"):
        assert workshop.make(picture, name)[-1].kind == "done"
    assert [model.done for model in workshop.opened] == [["load", "render", "load", "render"]]
    assert workshop.opened[0].device == "cpu"
    workshop.make(picture, "A3", model="two")
    assert workshop.opened[0].done[-1] == "unload"
    assert [model.row.name for model in workshop.opened] == ["one", "two"]


def test_a_model_is_dropped_after_a_failure_and_the_next_attempt_opens_it_afresh(
    workshop: Workshop, picture: bytes
) -> None:
    def break_down(_request: RenderRequest, _report: Report) -> None:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    workshop.script = break_down
    last = workshop.make(picture, "A1")[-1]
    assert isinstance(last, events.Failed)
    assert last.failure_class == FailureClass.OUT_OF_MEMORY
    assert "Tried to allocate 2.00 GiB" in last.message
    assert last.remedy == "It will be tried on another card."
    assert "Traceback" in last.detail
    assert workshop.opened[0].done == ["load", "render", "unload"]
    workshop.script = lambda _request, _report: None
    assert workshop.make(picture, "A2")[-1].kind == "done"
    assert len(workshop.opened) == 2


def test_a_model_that_cannot_even_be_unloaded_does_not_hide_its_failure(
    workshop: Workshop, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_model: Scripted) -> None:
        raise RuntimeError("and this too")

    def break_down(_request: RenderRequest, _report: Report) -> None:
        raise MissingWeightsError("No VAE.", "Fetch it.")

    monkeypatch.setattr(Scripted, "unload", broken)
    workshop.script = break_down
    last = workshop.make(picture, "A1")[-1]
    assert isinstance(last, events.Failed)
    assert (last.failure_class, last.message, last.remedy) == (
        FailureClass.MISSING_WEIGHTS,
        "No VAE.",
        "Fetch it.",
    )


def test_a_cancel_takes_hold_at_the_very_next_step_and_keeps_the_model_warm(
    workshop: Workshop, picture: bytes
) -> None:
    workshop.script = lambda _request, _report: workshop.runner.cancel("A1") and None
    told = workshop.make(picture, "A1")
    assert [event.kind for event in told] == ["loading", "rendering", "cancelled"]
    assert not (workshop.spool.directory("A1") / "video.mp4").exists()
    workshop.script = lambda _request, _report: None
    assert workshop.make(picture, "A2")[-1].kind == "done"
    assert len(workshop.opened) == 1
    assert not workshop.runner.cancel("A2"), "an attempt that ended cannot be cancelled"


def test_an_attempt_begins_as_soon_as_the_one_before_has_said_its_last(
    workshop: Workshop, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who heard an attempt's last word and gave the next was told that the card is busy: its thread had not quite ended."""
    real = workshop.spool._changed.notify_all

    def slowly() -> None:
        real()
        if workshop.spool.ended("A1") and not workshop.spool.events("A2", 0):
            workshop.spool._changed.wait(0.2)  # the follower is awake, the attempt's thread is not done

    monkeypatch.setattr(workshop.spool._changed, "notify_all", slowly)
    assert workshop.make(picture, "A1")[-1].kind == "done"
    assert workshop.make(picture, "A2")[-1].kind == "done"


def test_an_attempt_that_the_head_gave_up_stops_at_its_next_step(
    workshop: Workshop, picture: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """After a cut the head removed a lost attempt's spool: the render broke with a trace, and a warm model was thrown away."""
    workshop.script = lambda _request, _report: shutil.rmtree(
        workshop.spool.directory("A1"), ignore_errors=True
    )
    workshop.runner.start(order(picture, model="one"), picture)
    attempt = workshop.runner._current
    assert attempt is not None
    attempt.thread.join(LIMIT_S)
    assert workshop.runner.current is None
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    workshop.script = lambda _request, _report: None
    assert workshop.make(picture, "A2")[-1].kind == "done"
    assert workshop.opened[0].done == ["load", "render", "load", "render"]


def test_an_end_that_cannot_be_written_down_leaves_the_runner_free(
    workshop: Workshop, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the last event ended the thread with an error that nobody had caught."""
    real = workshop.spool.append

    def append(event: Event) -> None:
        if event.kind in events.FINAL_KINDS and event.attempt_id == "A1":
            raise OSError(28, "No space left on device")
        real(event)

    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    monkeypatch.setattr(workshop.spool, "append", append)
    workshop.runner.start(order(picture, model="one"), picture)
    attempt = workshop.runner._current
    assert attempt is not None
    attempt.thread.join(LIMIT_S)
    assert uncaught == []
    last = workshop.spool.events("A1", 0)[-1]
    assert last.kind == "done", "it is told from memory"
    assert workshop.runner.follow("A1", last.seq, 60.0) is None, "nobody is at work on more"
    assert workshop.make(picture, "A2")[-1].kind == "done"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "small") as place:
        yield place


@needs_root
def test_an_attempt_that_a_full_disk_does_not_take_says_so(
    disk: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes
) -> None:
    """It was raised through Ray, and the job said that the scheduler could not go on: OSError."""
    shop = set_up(Spool(disk / "spool"), monkeypatch)
    ballast = fill(disk)
    (last,) = shop.make(picture, "A1")
    assert isinstance(last, events.Failed)
    assert last.failure_class == FailureClass.INTERNAL
    assert last.message == f"The disk of {disk / 'spool'} on the card's PC is full (No space left on device)."
    assert "farm models rm" in last.remedy
    assert shop.spool.attempts() == ()
    ballast.unlink()
    assert shop.make(picture, "A2")[-1].kind == "done"


@needs_root
def test_a_preview_without_room_does_not_end_the_render(
    disk: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes
) -> None:
    """It was an error of the program after hours of work."""
    shop = set_up(Spool(disk / "spool"), monkeypatch)
    ballast: list[Path] = []

    def script(_request: RenderRequest, report: Report) -> None:
        if not ballast:
            ballast.append(fill(disk))
            report.preview(bytes(9000))
            report.preview(bytes(9000))
            ballast[0].unlink()
            report.preview(bytes(9000))

    shop.script = script
    told = shop.make(picture, "A1")
    assert told[-1].kind == "done"
    (note,) = [event for event in told if isinstance(event, events.Note)]
    assert note.text.startswith(f"Its pictures on the way cannot be shown. The disk of {disk / 'spool'}")
    assert [event.kind for event in told].count("preview") == 1
    assert not list(shop.spool.directory("A1").glob("*.half"))


@needs_root
def test_a_disk_that_becomes_full_in_the_middle_is_named(
    disk: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes
) -> None:
    """The last word had no room either: the attempt was lost with its reason. Half a line hid all that came after it."""
    shop = set_up(Spool(disk / "spool"), monkeypatch)

    def script(_request: RenderRequest, report: Report) -> None:
        fill(disk)
        for number in range(100):
            report.note(f"{number} {'x' * 100}")

    shop.script = script
    told = shop.make(picture, "A1")
    last = told[-1]
    assert isinstance(last, events.Failed)
    assert last.message.startswith(f"The disk of {disk / 'spool'} on the card's PC is full")
    assert Spool(shop.spool.root).events("A1", 0) == told[:-1], "and no half line"
    assert (shop.spool.directory("A1") / "events.jsonl").read_bytes().endswith(b"\n")


def test_the_pace_is_seconds_for_each_step_since_the_last_word(
    workshop: Workshop, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ticks(ModuleType):
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    ticks = Ticks("time")
    monkeypatch.setattr(attempt_module, "time", ticks)
    begun: list[int] = []

    def two_seconds(_request: RenderRequest, report: Report) -> None:
        if not begun:
            begun.append(1)
            ticks.now += 6.0
            report.step(4, 8)  # several steps at once
            report.step(4, 8)  # the same again: no step, no pace
            ticks.now += 3.0
            report.step(5, 8)

    workshop.script = two_seconds
    steps = [event for event in workshop.make(picture, "A1") if isinstance(event, events.Step)]
    assert [(step.done, step.seconds_per_step) for step in steps[:3]] == [(4, 1.5), (4, None), (5, 3.0)]


def test_seconds_are_told_apart_by_part(workshop: Workshop, picture: bytes) -> None:
    def busy(_request: RenderRequest, report: Report) -> None:
        with report.part("denoise"):
            time.sleep(0.02)

    workshop.script = busy
    done = workshop.make(picture, "A1")[-1]
    assert isinstance(done, events.Done)
    assert set(done.stage_seconds) == {"denoise", "encode"}
    assert done.stage_seconds["denoise"] >= 0.02 * SETTINGS.frames
    assert done.stage_seconds["encode"] >= 0.0


def test_a_preview_is_whole_in_the_spool_before_it_is_told(workshop: Workshop, picture: bytes) -> None:
    seen: list[bytes] = []

    def show(_request: RenderRequest, report: Report) -> None:
        report.preview(f"picture {len(seen)}".encode())
        seen.append(workshop.spool.read("A1", "preview.jpg"))

    workshop.script = show
    told = workshop.make(picture, "A1")
    assert seen == [f"picture {number}".encode() for number in range(SETTINGS.frames)]
    assert [event.step for event in told if isinstance(event, events.Preview)] == list(range(SETTINGS.frames))
    assert [event.seq for event in told] == list(range(1, len(told) + 1))


def test_a_checkpoint_is_whole_in_the_spool_before_it_is_told(workshop: Workshop, picture: bytes) -> None:
    seen: list[bytes] = []

    def keep(_request: RenderRequest, report: Report) -> None:
        report.checkpoint(len(seen) + 1, f"state {len(seen)}".encode())
        seen.append(workshop.spool.read("A1", "checkpoint.safetensors"))

    workshop.script = keep
    told = workshop.make(picture, "A1")
    assert seen == [f"state {number}".encode() for number in range(SETTINGS.frames)]
    kept = [event.step for event in told if isinstance(event, events.Checkpoint)]
    assert kept == list(range(1, SETTINGS.frames + 1))
    assert not list(workshop.spool.directory("A1").glob("*.half"))


def test_a_worker_that_makes_way_ends_after_the_last_word_of_its_attempt(
    workshop: Workshop, picture: bytes
) -> None:
    """A clip that was complete lost its last word to the end of the process, and was rendered again."""
    ends: list[bool] = []
    workshop.runner.end = lambda: ends.append(workshop.spool.ended("A1"))
    reached = threading.Event()

    def wait_for_the_owner(_request: RenderRequest, report: Report) -> None:
        reached.set()
        while not report.leaving():
            time.sleep(0.001)
        report.checkpoint(1, b"here")

    workshop.script = wait_for_the_owner
    workshop.runner.start(order(picture, model="one"), picture)
    assert reached.wait(LIMIT_S)
    workshop.runner.make_way("The card is kept for its owner: a game.")
    assert ends == [True]
    told = workshop.spool.events("A1", 0)
    assert isinstance(told[-1], events.Yielded)
    assert told[-1].reason == "The card is kept for its owner: a game."
    assert workshop.spool.read("A1", "checkpoint.safetensors") == b"here"
    with pytest.raises(Busy):
        workshop.runner.start(order(picture, "A2", model="one"), picture)
    assert workshop.spool.events("A2", 0) == []


def test_an_idle_worker_makes_way_at_once(workshop: Workshop) -> None:
    workshop.runner.make_way("The card is kept for its owner: a game.")
    assert workshop.ends == [1]


@pytest.mark.parametrize("owner", [True, False], ids=["its owner", "a cancel"])
def test_a_worker_that_loads_a_model_is_stopped_between_two_weights(
    workshop: Workshop, picture: bytes, owner: bool
) -> None:
    """Who cancelled waited until the whole model had been read from an old disk; for a card's owner the worker had to be killed."""
    reached, limit = threading.Event(), time.monotonic() + LIMIT_S

    def read_on(report: Report) -> None:
        reached.set()
        while time.monotonic() < limit:
            report.check()
            time.sleep(0.001)

    workshop.on_load = read_on
    workshop.runner.start(order(picture, model="one"), picture)
    assert reached.wait(LIMIT_S)
    if owner:
        workshop.runner.make_way("The card is kept for its owner: a game.")
    else:
        assert workshop.runner.cancel("A1")
    last = ended(workshop.spool)[-1]
    assert isinstance(last, events.Yielded if owner else events.Cancelled)
    assert workshop.opened[0].done == ["load"]


def test_weights_that_come_in_slowly_are_told_of_and_a_disk_that_hangs_is_not(
    workshop: Workshop, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 GB took more than 15 minutes from a busy disk: no word came meanwhile, and the head took the render for one that stands still."""
    now = [0.0]
    monkeypatch.setattr(attempt_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    still = attempt_module.STILL_S

    def read_on(report: Report) -> None:
        for seconds in (still / 2, still / 2, still / 2, 20 * still):
            now[0] += seconds
            report.check()

    def bring_more(_request: RenderRequest, report: Report) -> None:
        now[0] += still
        report.check()
        now[0] += still
        with report.part("denoise"):  # what waits for another program comes by here too
            pass

    workshop.on_load, workshop.script = read_on, bring_more
    workshop.runner.start(order(picture, model="one", frames=2), picture)
    kinds = [event.kind for event in ended(workshop.spool) if event.kind != "preview"]
    assert kinds == ["loading", "loading", "loading", "rendering", *["rendering", "step"] * 2, "done"]


def test_a_job_that_was_cancelled_stays_cancelled_though_the_owner_came(
    workshop: Workshop, picture: bytes
) -> None:
    reached = threading.Event()

    def wait_for_the_stop(_request: RenderRequest, report: Report) -> None:
        reached.set()
        while workshop.runner._current is not None and not workshop.runner._current.stop.is_set():
            time.sleep(0.001)

    workshop.script = wait_for_the_stop
    workshop.runner.start(order(picture, model="one"), picture)
    assert reached.wait(LIMIT_S)
    assert workshop.runner.cancel("A1")
    workshop.runner.make_way("The card is kept for its owner: a game.")
    assert isinstance(workshop.spool.events("A1", 0)[-1], events.Cancelled)


def stage_order(stage: StageKind, source: bytes, picture: bytes, name: str, **changes: object) -> Order:
    """An order of a smoothed job; `source` is what the stage before left."""
    return dataclasses.replace(
        order(picture, name, **changes), stage=stage, source_sha256=hashlib.sha256(source).hexdigest()
    )


def test_a_smoothed_clip_is_made_in_two_stages_and_says_how(
    runner: Runner, spool: Spool, picture: bytes
) -> None:
    runner.start(order(picture, smooth=24), picture)
    first = ended(spool)[-1]
    assert isinstance(first, events.Done)
    between = spool.read("A1", "video.mp4")
    size = {"width": SETTINGS.width, "height": SETTINGS.height}
    verify(spool.directory("A1") / "video.mp4", **size, frames=8, fps=8, pixel_format="yuv444p")

    runner.start(stage_order(StageKind.INTERPOLATE, between, picture, "A2", smooth=24), between)
    told = ended(spool, "A2")
    assert [event.kind for event in told if event.kind != "step"] == ["rendering", "preview", "done"]
    steps = [event for event in told if isinstance(event, events.Step)]
    assert (steps[0].done, steps[-1].done, steps[-1].total) == (0, 24, 24)
    done = told[-1]
    assert isinstance(done, events.Done)
    assert set(done.stage_seconds) == {"interpolate", "encode"}
    assert done.peak_gib is None  # ffmpeg's memory is not this process's
    video = spool.directory("A2") / "video.mp4"
    verify(video, **size, frames=24, fps=24)
    recipe = read_recipe(video)
    assert recipe.settings == dataclasses.asdict(dataclasses.replace(SETTINGS, smooth=24))
    assert recipe.input_sha256 == hashlib.sha256(picture).hexdigest()
    assert read_metadata(video)["draft"] is True


def test_a_clip_that_changed_on_its_way_is_not_interpolated(
    runner: Runner, spool: Spool, picture: bytes
) -> None:
    runner.start(stage_order(StageKind.INTERPOLATE, b"another", picture, "A1", smooth=24), b"one")
    failed = ended(spool)[-1]
    assert isinstance(failed, events.Failed)
    assert (failed.failure_class, failed.message) == (
        FailureClass.INTERNAL,
        "The clip changed on its way to this card.",
    )


def test_an_interpolation_that_cannot_read_its_clip_fails_with_the_words_of_ffmpeg(
    runner: Runner, spool: Spool, picture: bytes
) -> None:
    runner.start(stage_order(StageKind.INTERPOLATE, b"no clip", picture, "A1", smooth=24), b"no clip")
    failed = ended(spool)[-1]
    assert isinstance(failed, events.Failed)
    assert failed.message.startswith("ffmpeg interpolated 0 of the 24 frames")


def test_a_cancel_stops_an_interpolation_within_a_second(
    runner: Runner, spool: Spool, picture: bytes
) -> None:
    wide = {"width": 960, "height": 544, "frames": 8, "smooth": 60}
    runner.start(order(picture, **wide), picture)
    assert isinstance(ended(spool)[-1], events.Done)
    between = spool.read("A1", "video.mp4")
    runner.start(stage_order(StageKind.INTERPOLATE, between, picture, "A2", **wide), between)
    limit = time.monotonic() + LIMIT_S
    while not any(isinstance(event, events.Step) and event.done for event in spool.events("A2", 0)):
        assert time.monotonic() < limit, "no frame"
        time.sleep(0.01)
    began = time.monotonic()
    assert runner.cancel("A2")
    assert isinstance(ended(spool, "A2")[-1], events.Cancelled)
    assert time.monotonic() - began < 1.0
    assert not (spool.directory("A2") / "video.mp4").exists()
