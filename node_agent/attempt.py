"""One attempt under way, in a thread of its own: its tries, what it says, and its end. It is also the `Report` that the model speaks to."""

import hashlib
import io
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from PIL import Image

from farm import events
from farm.again import describe
from farm.errors import CancelledRenderError, DiskFullError, FarmError, StaleCheckpointError
from farm.model import EARLIER_TRIES, FailureClass, MemoryPlan, StageKind
from farm.planning.memory import Room
from farm.planning.plans import streamed_gib
from farm.stages import delivered, stage_after, stage_before
from farm.wire import Order
from node_agent.allowance import Allowance
from node_agent.encode import EncodedClip, encode
from node_agent.faults import Fault, broken_for_good, fault_of, memory_lost, never_an_engine
from node_agent.interpolate.base import InterpolationRequest, interpolate
from node_agent.ladder import (
    TOLERANCE_GIB,
    MemoryReading,
    Retry,
    next_try,
    plan_within,
    stayed_away,
    taken_since,
    too_little_ram,
    what_others_hold,
)
from node_agent.meter import CardMemory, PeakMemory, Stopwatch
from node_agent.pipelines.base import Frame, RenderRequest
from node_agent.spill import find_spill

if TYPE_CHECKING:
    from node_agent.runner import Runner

log = logging.getLogger(__name__)

STILL_S = 60.0
"""So often an attempt says again that it loads, or renders, while weights come in. From a slow disk that is busy they take longer than the
head waits for a word, and it ended the worker in the midst of each try."""


class Attempt:
    """One attempt under way; also the `Report` that its model speaks to."""

    def __init__(
        self, runner: "Runner", order: Order, work_on: bytes, checkpoint: bytes | None = None
    ) -> None:
        """`work_on`: the picture, or for a later stage the clip that the stage before left.

        With a `checkpoint`, that of the job's attempt number `order.resumes`, the render goes on from there.
        """
        self.order = order
        self.stop = threading.Event()
        self.yield_to: str | None = None
        """Why the card's owner wants it, once that is so: the attempt ends at its next step, after a checkpoint."""
        # Only the last event is left to write. Not read from the spool, which the head may have had removed already.
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"attempt-{order.attempt_id}", daemon=True)
        self._runner = runner
        self._work_on = work_on
        self._spool, device, self._clock = runner.parts
        self._watch = Stopwatch()
        self._peak = PeakMemory(device)
        self._memory = CardMemory(device)
        # A later stage works on the PC's processor, whatever the card: no memory plan, no spill, no peak of the card's memory.
        self._on_gpu = device.startswith("cuda") and order.stage is StageKind.GENERATE
        self._seq = 0
        self._phase: type[events.Loading | events.Rendering] | None = None
        self._said_at = time.perf_counter()
        self._last_step: tuple[float, int] | None = None
        self._checkpoint = checkpoint
        self._checkpoint_of = order.resumes
        self._going_on = False
        self._paces: list[float] = []
        self._spilled = False
        self._predicted_s = order.predicted_s
        self._blind = False
        # A CPU's memory is the PC's own, and it computes in single precision: plans make no difference there.
        self._row = runner.row(order.settings.model) if self._on_gpu else None
        self._allowance = Allowance(order, self._row)

    # --- Report ---
    def part(self, name: str) -> AbstractContextManager[None]:
        """Times a part of the work; see `Report`."""
        self._heed()
        return self._watch.part(name)

    def check(self) -> None:
        """Ends the render where it was asked to stop, or the card's owner wants it; see `Report`."""
        self._heed()
        if self._phase is not None and time.perf_counter() - self._said_at >= STILL_S:
            self._enter(self._phase)

    def _heed(self) -> None:
        if self.stop.is_set() or self.yield_to is not None:
            raise CancelledRenderError("The render was asked to stop.")

    def step(self, done: int, total: int) -> None:
        """Spools how far the render is, with its pace; see `Report`."""
        self._heed()
        now = time.perf_counter()
        pace = None
        if (
            self._going_on
        ):  # the first word after a checkpoint: no step was made here yet, so there is no pace
            self._going_on = False
            seq, at = self._next()
            self._say(events.Resumed(self.order.attempt_id, seq, at, done, total, self._checkpoint_of))
        elif self._last_step is not None and done > self._last_step[1]:
            pace = (now - self._last_step[0]) / (done - self._last_step[1])
        self._last_step = (now, done)
        seq, at = self._next()
        self._say(events.Step(self.order.attempt_id, seq, at, done, total, pace))
        if pace is not None and self._on_gpu and self._runner.can_spill and not self._spilled:
            self._look_for_spill(pace, total)

    def preview(self, jpeg: bytes) -> None:
        """Spools a small picture; see `Report`. Where it cannot be written the render goes on, and says so once."""
        self._heed()
        try:
            self._put("preview.jpg", jpeg)
        except (DiskFullError, OSError) as error:
            self._no_preview(error)
            return
        seq, at = self._next()
        self._say(
            events.Preview(self.order.attempt_id, seq, at, self._last_step[1] if self._last_step else 0)
        )

    def _no_preview(self, error: DiskFullError | OSError) -> None:
        if self._blind:
            return
        self._blind = True
        log.warning("attempt %s cannot show its pictures: %s", self.order.attempt_id, error)
        with suppress(DiskFullError, OSError):
            self.note(f"Its pictures on the way cannot be shown. {error}")

    def note(self, text: str) -> None:
        """Says something worth knowing; see `Report`."""
        seq, at = self._next()
        self._say(events.Note(self.order.attempt_id, seq, at, text))

    def leaving(self) -> bool:
        """Whether the card's owner wants it; see `Report`."""
        return self.yield_to is not None and not self.stop.is_set()

    def checkpoint(self, step: int, state: bytes) -> None:
        """Spools what another card, or the next try here, needs to go on; see `Report`. Also for an attempt that leaves its card."""
        if not self.leaving():
            self._heed()
        self._checkpoint, self._checkpoint_of = state, None
        self._put("checkpoint.safetensors", state)
        seq, at = self._next()
        self._say(events.Checkpoint(self.order.attempt_id, seq, at, step))

    def _put(self, name: str, data: bytes) -> None:
        with _unless_forgotten():
            self._spool.put(self.order.attempt_id, name, data)

    def _look_for_spill(self, pace: float, steps: int) -> None:
        self._paces.append(pace)
        predicted = self._predicted_s
        expected = predicted / steps if predicted is not None and steps else None
        spill = find_spill(self._paces, expected, self._memory.reading())
        if spill is not None:
            self._spilled = True
            self._runner.spills += 1
            seq, at = self._next()
            self._say(events.Note(self.order.attempt_id, seq, at, spill.told, disturbed=True))

    def _say(self, event: events.Event) -> None:
        with _unless_forgotten():
            self._spool.append(event)
        self._said_at = time.perf_counter()

    def _enter(self, phase: type[events.Loading | events.Rendering]) -> None:
        self._phase = phase
        seq, at = self._next()
        self._say(phase(self.order.attempt_id, seq, at))

    def _next(self) -> tuple[int, float]:
        self._seq += 1
        return self._seq, self._clock.now()

    # --- the thread ---
    def _run(self) -> None:
        try:
            final = self._see_through()
        except Exception as error:  # a fault of this module itself must not leave the attempt without an end
            log.exception("attempt %s failed outside of its render", self.order.attempt_id)
            final = self._failed(fault_of(error))
        ends = isinstance(final, events.Failed) and final.worker_ends
        # Before the last word is out: who hears it must not be told that all is well.
        self._runner.broken = ends or self._runner.leaving
        self.over.set()
        try:
            self._spool.append(final)
        except FileNotFoundError:
            log.info("attempt %s ended after the head had given it up", self.order.attempt_id)
        except (DiskFullError, OSError):
            log.exception("the end of attempt %s could not be written down", self.order.attempt_id)
            self._spool.keep(final)
        if ends:
            log.error("this worker ends, another takes its place: %s", final)
            self._runner.end()

    def _see_through(self) -> events.Event:
        """Tries, and tries again under another plan, until there is a clip or nothing more to try here."""
        try:
            plan = self._plan_beside_others()
            while True:
                before = self._memory.reading()
                began = time.perf_counter()
                told = self._try(plan)
                if not isinstance(told, Fault):
                    return told
                # Out here the exception is gone, and with its frames the tensors that they held.
                after = self._after(told, plan, before)
                if not isinstance(after, Retry):
                    return after
                plan = after.plan
                if (
                    told.broken_picture
                ):  # its latents are not to be trusted, nor those that another precision gave
                    self._checkpoint = None
                    self._predicted_s = None  # in single precision a step may take four times as long
                spent = self._watch.seconds.get(EARLIER_TRIES, 0.0) + time.perf_counter() - began
                self._watch.seconds = {EARLIER_TRIES: spent}
                self._last_step, self._paces = None, []
                self._heed()
                self._retrying(plan, after.reason)
        except CancelledRenderError:
            seq, at = self._next()
            if self.leaving():
                return events.Yielded(self.order.attempt_id, seq, at, self.yield_to or "")
            return events.Cancelled(self.order.attempt_id, seq, at)

    def _try(self, plan: MemoryPlan) -> events.Event | Fault:
        """One try: the clip, or what went wrong as plain values.

        Raises:
            CancelledRenderError: it was asked to stop, and did.
        """
        try:
            return self._render(plan)
        except CancelledRenderError:
            raise
        except Exception as error:  # noqa: BLE001 - every failure becomes an event with its class
            fault = fault_of(error)
        # As text: a log handler that keeps its records would keep the exception, and with it the tensors of its frames.
        log.error("attempt %s failed under %s:\n%s", self.order.attempt_id, plan, fault.detail)
        return fault

    def _plan_beside_others(self) -> MemoryPlan:
        """The order's plan, or another where other programs hold memory that it counts on: better than to run out first."""
        plan, settings = self.order.plan, self.order.settings
        row = self._row
        if row is None:
            return plan
        memory = self._memory.first_reading()
        room = self._room_now(memory)
        other = plan_within(row, settings, plan, memory, room)
        if other == plan:
            return plan
        if too_little_ram(row, plan, room):
            why = (
                f"This PC has {room.ram_gib or 0.0:.1f} GiB of memory to spare, and {streamed_gib(row, plan):.1f} GiB of weights were to "
                "stream from there. The card takes a memory plan that streams less."
            )
        else:
            missing = 0.0 if memory is None else memory.missing_gib
            held = what_others_hold(missing, self._runner.programs()) or ""
            why = f"{held} The card takes a leaner memory plan beside them."
        self._retrying(other, why)
        return other

    def _after(self, fault: Fault, plan: MemoryPlan, before: MemoryReading | None) -> Retry | events.Failed:
        """Makes the card ready for another try, or says how the attempt ends.

        The model is dropped, since the failure may have left it half moved. Where CUDA itself is broken nothing more is asked of it:
        every call would fail, or hang.
        """
        if fault.cuda_is_broken:
            return self._failed(fault, worker_ends=True)
        self._runner.drop_model()
        self._memory.release()
        # What a plan takes of the PC's memory was there to be had when it was made: others hold it now, and the card teaches nothing.
        disturbed = self._on_gpu and fault.host_memory
        if fault.kind is FailureClass.OUT_OF_MEMORY and not fault.host_memory and before is not None:
            after, programs = self._memory.reading(), self._runner.programs()
            if after is None or (away := stayed_away(before, after, programs)):
                what = "CUDA no longer answered" if after is None else f"{away:.1f} GiB did not come back"
                return self._failed(memory_lost(fault, what), worker_ends=True)
            # First: what ran out of what it was held to, while the card has more, had nobody in its way.
            if (more := self._allowance.held_too_low(fault, plan, after)) is not None:
                return more
            if fault.no_engine and 2 * self._allowance.by_law(plan) <= after.available_gib:
                return self._failed(never_an_engine(fault), worker_ends=True)
            gone = before.missing_gib + taken_since(before, after, programs)
            counted_on = gone - self._allowance.left_to_others_gib(before) > TOLERANCE_GIB
            held = what_others_hold(gone, programs) if counted_on else None
            if held is not None:
                disturbed, fault = True, fault.with_message(held)
        room = self._room_now(self._memory.reading())
        retry = next_try(fault, self._row, self.order.settings, plan, room)
        if retry is not None:
            return retry
        if fault.broken_picture:
            fault = broken_for_good(fault, plan)
        return self._failed(
            fault, disturbed=disturbed, worker_ends=self._on_gpu and fault.kind is FailureClass.CARD_FAULT
        )

    def _room_now(self, memory: MemoryReading | None) -> Room:
        """What card and PC have for a plan now."""
        return self._allowance.room(memory, self._runner.ram_gib)

    def _retrying(self, plan: MemoryPlan, reason: str) -> None:
        seq, at = self._next()
        self._say(events.Retrying(self.order.attempt_id, seq, at, plan, reason))

    def _failed(self, fault: Fault, *, disturbed: bool = False, worker_ends: bool = False) -> events.Failed:
        seq, at = self._next()
        return events.Failed(
            self.order.attempt_id,
            seq,
            at,
            fault.kind,
            fault.message,
            fault.remedy,
            fault.detail,
            disturbed=disturbed,
            worker_ends=worker_ends,
        )

    def _render(self, plan: MemoryPlan) -> events.Event:
        if self.order.stage is StageKind.INTERPOLATE:
            self._peak.reset()
            return self._interpolate()
        if self._checkpoint is not None:
            try:
                return self._render_from(plan, self._checkpoint)
            except StaleCheckpointError as error:
                self._checkpoint = None
                said = f"{error.message} {error.remedy}"
            self.note(said)
        return self._render_from(plan, None)

    def _render_from(self, plan: MemoryPlan, checkpoint: bytes | None) -> events.Event:
        self._peak.reset()
        order = self.order
        self._enter(events.Loading)
        image = self._open_picture()
        model = self._runner.model_for(order, plan, self)
        self._rendering()
        self._going_on = checkpoint is not None
        request = RenderRequest(order.settings, image, plan, checkpoint, self._allowance.expected_gib(plan))
        return self._deliver(iter(model.render(request, self)))

    def _interpolate(self) -> events.Event:
        order = self.order
        before = stage_before(order.settings, order.stage)
        if before is None or order.source_sha256 is None:
            raise FarmError("There is no clip to interpolate.", "Update the farm on the head and on this PC.")
        self._check_source(order.source_sha256, "clip")
        self._put("source.mp4", self._work_on)
        source = self._spool.directory(order.attempt_id) / "source.mp4"
        request = InterpolationRequest(
            source, delivered(order.settings, before), delivered(order.settings, order.stage)
        )
        self._rendering()
        return self._deliver(interpolate(request, self))

    def _rendering(self) -> None:
        self._enter(events.Rendering)
        self._last_step = (time.perf_counter(), 0)

    def _deliver(self, frames: Iterator[Frame]) -> events.Event:
        """Encodes what the stage gives: the finished clip after the last one, before that one to be worked on."""
        order = self.order
        shape = delivered(order.settings, order.stage)
        began = time.perf_counter()
        clip = encode(
            self._watch.waiting(frames),
            self._spool.directory(order.attempt_id) / "video.mp4",
            fps=shape.fps,
            width=shape.width,
            height=shape.height,
            count=shape.frames,
            metadata=describe(order.settings, input_sha256=order.input_sha256, draft=order.draft),
            between_stages=stage_after(order.settings, order.stage) is not None,
        )
        total = time.perf_counter() - began
        self._watch.add("encode", max(0.0, total - self._watch.seconds.pop("frames", 0.0)))
        return self._done(clip)

    def _open_picture(self) -> Image.Image:
        self._check_source(self.order.input_sha256, "picture")
        return Image.open(io.BytesIO(self._work_on)).convert("RGB")

    def _check_source(self, sha256: str, what: str) -> None:
        if hashlib.sha256(self._work_on).hexdigest() != sha256:
            raise FarmError(f"The {what} changed on its way to this card.", "The job will be tried again.")

    def _done(self, clip: EncodedClip) -> events.Done:
        seq, at = self._next()
        return events.Done(
            self.order.attempt_id,
            seq,
            at,
            video=events.SpooledFile(clip.video.name, clip.video_sha256, clip.video_size, "video/mp4"),
            thumbnail=events.SpooledFile(
                clip.thumbnail.name, clip.thumbnail_sha256, clip.thumbnail_size, "image/jpeg"
            ),
            stage_seconds={name: round(seconds, 4) for name, seconds in self._watch.seconds.items()},
            peak_gib=self._peak.gib() if self.order.stage is StageKind.GENERATE else None,
        )


@contextmanager
def _unless_forgotten() -> Iterator[None]:
    """The head lets go of attempts it holds for lost by having their directory removed: then there is no more to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise CancelledRenderError("The head no longer waits for this attempt.") from error
