"""Makes attempts, one at a time, in a thread of its own: opens the model, renders, encodes, and spools what happens. No Ray."""

import hashlib
import io
import logging
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module

from PIL import Image

from farm import events
from farm.again import describe
from farm.catalogue.models import ModelRow
from farm.clock import Clock
from farm.errors import BadInputError, CancelledRenderError, FarmError, MissingWeightsError, RenderFailedError
from farm.model import FailureClass
from farm.wire import Order
from node_agent.encode import EncodedClip, encode
from node_agent.meter import PeakMemory, Stopwatch
from node_agent.pipelines.base import OpenModel, RenderRequest, VideoModel
from node_agent.spool import Spool

log = logging.getLogger(__name__)


class Busy(Exception):  # noqa: N818 - not an error of anyone: the head learns that another attempt holds the card
    """The runner works on another attempt."""


class Runner:
    """One card's worker, without its transport. `device` as torch names it: "cpu", "cuda:0"."""

    def __init__(self, spool: Spool, models: Mapping[str, ModelRow], device: str, clock: Clock) -> None:
        self._spool = spool
        self._models = models
        self._device = device
        self._clock = clock
        self._lock = threading.Lock()
        self._current: _Attempt | None = None
        self._warm: tuple[ModelRow, VideoModel] | None = None

    def start(self, order: Order, picture: bytes) -> None:
        """Begins an attempt and returns at once. Starting one that is under way, or ended, changes nothing.

        Raises:
            Busy: another attempt is under way.
        """
        with self._lock:
            current = self._current
            if current is not None and current.over.is_set():
                current.thread.join()  # who heard its last event may be quicker than its thread's last line
            if current is not None and current.thread.is_alive():
                if current.order.attempt_id == order.attempt_id:
                    return
                raise Busy(current.order.attempt_id)
            if self._spool.events(order.attempt_id, 0):
                return
            self._spool.open(order)
            attempt = _Attempt(self, order, picture)
            self._current = attempt
            attempt.thread.start()

    def cancel(self, attempt_id: str) -> bool:
        """Asks an attempt to stop at its next step; False if it is not the one under way."""
        with self._lock:
            current = self._current
        if current is None or current.order.attempt_id != attempt_id or not current.thread.is_alive():
            return False
        current.stop.set()
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

    def model_for(self, order: Order, report: "_Attempt") -> VideoModel:
        """The order's model, warm if it was the last one used."""
        row = self._models.get(order.settings.model)
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
        model.load(order.plan, report)
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
    def parts(self) -> tuple[Spool, str, Clock]:
        """What an attempt needs of its runner."""
        return self._spool, self._device, self._clock


class _Attempt:
    """One attempt under way; also the `Report` that its model speaks to."""

    def __init__(self, runner: Runner, order: Order, picture: bytes) -> None:
        self.order = order
        self.stop = threading.Event()
        # Only the last event is left to write. Not read from the spool, which the head may have had removed already.
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"attempt-{order.attempt_id}", daemon=True)
        self._runner = runner
        self._picture = picture
        self._spool, device, self._clock = runner.parts
        self._watch = Stopwatch()
        self._peak = PeakMemory(device)
        self._seq = 0
        self._last_step: tuple[float, int] | None = None

    # --- Report ---
    def part(self, name: str) -> AbstractContextManager[None]:
        self._check()
        return self._watch.part(name)

    def step(self, done: int, total: int) -> None:
        self._check()
        now = time.perf_counter()
        pace = None
        if self._last_step is not None and done > self._last_step[1]:
            pace = (now - self._last_step[0]) / (done - self._last_step[1])
        self._last_step = (now, done)
        seq, at = self._next()
        self._say(events.Step(self.order.attempt_id, seq, at, done, total, pace))

    def preview(self, jpeg: bytes) -> None:
        self._check()
        target = self._spool.directory(self.order.attempt_id) / "preview.jpg"
        half = target.with_suffix(".half")
        with _unless_forgotten():
            half.write_bytes(jpeg)
            half.replace(target)
        seq, at = self._next()
        self._say(
            events.Preview(self.order.attempt_id, seq, at, self._last_step[1] if self._last_step else 0)
        )

    def _check(self) -> None:
        if self.stop.is_set():
            raise CancelledRenderError("The render was cancelled.")

    def _say(self, event: events.Event) -> None:
        with _unless_forgotten():
            self._spool.append(event)

    def _next(self) -> tuple[int, float]:
        self._seq += 1
        return self._seq, self._clock.now()

    # --- the thread ---
    def _run(self) -> None:
        attempt_id = self.order.attempt_id
        try:
            final = self._render()
        except CancelledRenderError:
            seq, at = self._next()
            final = events.Cancelled(attempt_id, seq, at)
        except (
            Exception
        ) as error:  # every failure becomes an event with its class; the traceback goes to the log
            log.exception("attempt %s failed", attempt_id)
            self._runner.drop_model()
            kind, message, remedy = explain(error)
            seq, at = self._next()
            final = events.Failed(attempt_id, seq, at, kind, message, remedy, traceback.format_exc())
        self.over.set()
        try:
            self._spool.append(final)
        except FileNotFoundError:
            log.info("attempt %s ended after the head had given it up", attempt_id)
        except OSError:  # the head sees that nobody works on it any more, and tries elsewhere
            log.exception("the end of attempt %s could not be written down", attempt_id)

    def _render(self) -> events.Event:
        order = self.order
        self._peak.reset()
        seq, at = self._next()
        self._say(events.Loading(order.attempt_id, seq, at))
        image = self._open_picture()
        model = self._runner.model_for(order, self)
        seq, at = self._next()
        self._say(events.Rendering(order.attempt_id, seq, at))
        self._last_step = (time.perf_counter(), 0)
        began = time.perf_counter()
        frames = self._watch.waiting(
            iter(model.render(RenderRequest(order.settings, image, order.plan), self))
        )
        clip = encode(
            frames,
            self._spool.directory(order.attempt_id) / "video.mp4",
            fps=order.settings.fps,
            width=order.settings.width,
            height=order.settings.height,
            count=order.settings.frames,
            metadata=describe(order.settings, input_sha256=order.input_sha256, draft=order.draft),
        )
        total = time.perf_counter() - began
        self._watch.add("encode", max(0.0, total - self._watch.seconds.pop("frames", 0.0)))
        return self._done(clip)

    def _open_picture(self) -> Image.Image:
        found = hashlib.sha256(self._picture).hexdigest()
        if found != self.order.input_sha256:
            raise FarmError("The picture changed on its way to this card.", "The job will be tried again.")
        return Image.open(io.BytesIO(self._picture)).convert("RGB")

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
            peak_gib=self._peak.gib(),
        )


@contextmanager
def _unless_forgotten() -> Iterator[None]:
    """The head lets go of attempts it holds for lost by having their directory removed: then there is no more to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise CancelledRenderError("The head no longer waits for this attempt.") from error


_OUT_OF_MEMORY = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
"""How the driver and NVIDIA's libraries say it where torch's allocator was not asked."""


def explain(error: Exception) -> tuple[FailureClass, str, str]:
    """The class, message and remedy of a failure. torch's errors are known by name: this module must do without torch."""
    name = type(error).__name__
    said = (str(error).strip().splitlines() or [name])[0]
    if isinstance(error, BadInputError):
        return FailureClass.BAD_INPUT, error.message, error.remedy
    if isinstance(error, MissingWeightsError):
        return FailureClass.MISSING_WEIGHTS, error.message, error.remedy
    if (
        name == "OutOfMemoryError"
        or isinstance(error, MemoryError)
        or any(words in said for words in _OUT_OF_MEMORY)
    ):
        return (
            FailureClass.OUT_OF_MEMORY,
            f"The card ran out of memory: {said}",
            "It will be tried on another card.",
        )
    if name == "AcceleratorError" or "CUDA error" in said:
        return FailureClass.CARD_FAULT, f"The card reported a fault: {said}", ""
    if isinstance(error, RenderFailedError | FarmError):
        return FailureClass.INTERNAL, error.message, error.remedy
    return (
        FailureClass.INTERNAL,
        f"The render stopped with an error of the program: {name}.",
        "The log has its trace.",
    )
