"""Sees one attempt through: hands it to its card, follows what it says, and writes down how it ends.

The same code begins an attempt and takes it up again after the scheduler was restarted: starting twice changes nothing on the worker, and
every word of the attempt carries its number, so nothing is counted twice.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count

from farm.errors import FarmError, NotFoundError, RenderFailedError
from farm.events import (
    Cancelled,
    Checkpoint,
    Done,
    Event,
    Failed,
    Loading,
    Note,
    Preview,
    Rendering,
    Resumed,
    Retrying,
    Step,
    Yielded,
)
from farm.model import Attempt, AttemptStatus, FailureClass, Job, JobStatus
from farm.stages import stage_after
from farm.states import AttemptMove, JobMove
from scheduler.checkpoints import LAST_FETCH_S, Collector
from scheduler.cluster import CardBusyError, NodeGoneError, UnknownAttemptError, WorkerGoneError
from scheduler.desk import Desk, Ended, expected_end
from scheduler.doubts import ENDED, PROBED, STRAY
from scheduler.handover import fetch_preview, handover, preview_of
from scheduler.outcomes import Outcome, after_failure, after_loss
from scheduler.results import collect, collect_stage
from scheduler.stalls import Progress

log = logging.getLogger(__name__)

FOLLOW_S = 5.0
"""How long a worker may hold an answer back while nothing happens. Each answer renews the lease."""
FETCHES = 5
"""How often a result is asked for from a node that answers otherwise. Each time takes up to a minute on a slow network."""
NEWS_S = 5.0
"""How long until a node's next report, at the most, while it answers."""
LAST_ASK_S = 2.0
"""How long a card is asked for once more when its lease is over: a network that works answers in milliseconds."""
AGAIN_S = 0.5
"""Pause before a node that did not answer is asked again, and after a surprise."""
STOPPED = "It was told to stop for making no progress, before the scheduler was started anew."
STORE_AGAIN_S = 10.0
"""Pause before the head tries again to store a result that its disk refused."""


class Attendant:
    """One attempt's companion. `run` returns when the attempt has ended in the store.

    `ends_at` is when it is expected to be over, wall seconds; None where nobody knows. Its card's next job may count on it.
    """

    def __init__(self, desk: Desk, attempt: Attempt, job: Job, *, handed_over: bool) -> None:
        """`handed_over`: a former scheduler may have given the attempt to its card already."""
        self._handed_over = handed_over
        self._cancel_asked = job.cancel_requested
        self._cancel_told = False
        self._troubled_since: float | None = None
        self.attempt = attempt
        self.job = job
        self._desk = desk
        self._status = attempt.status
        self._after = 0
        self.ends_at = expected_end(attempt)
        self._preview: asyncio.Task[None] | None = None
        self._collector = Collector(desk.cluster, desk.checkpoints, attempt)
        self._progress = Progress(attempt.predicted_s, job.settings.steps)
        self._stalled: tuple[str, float] | None = None
        self._disturbed = False

    async def run(self) -> Ended:
        """From the order to the end. A surprise is tried again for as long as a lease runs; then the attempt has failed."""
        self._hold_lease()
        self._desk.board.running(self.job, self.attempt, phase=str(self._status))
        try:
            while True:
                try:
                    return await self._see_through()
                except Exception as error:  # a surprise of one attempt must not end the others
                    log.exception("attending attempt %s met a surprise", self.attempt.id)
                    ended = await self._surprised(error)
                    if ended is not None:
                        return ended
                await asyncio.sleep(AGAIN_S)
        finally:
            self._desk.leases.end(self.attempt.id)
            self._collector.stop()
            if self._preview is not None:
                self._preview.cancel()
            preview_of(self._desk, self.job.id).unlink(missing_ok=True)

    async def cancel(self) -> None:
        """Asks the card to stop, until it has heard it. The attempt's own last word says whether it did."""
        self._cancel_asked = True
        with suppress(NodeGoneError, WorkerGoneError):
            await self._pass_cancel_on()

    async def _pass_cancel_on(self) -> None:
        """A worker that does not have the attempt yet would not know what to stop."""
        if self._cancel_asked and self._handed_over and not self._cancel_told:
            await self._desk.cluster.cancel(self.attempt.node_id, self.attempt.card_id, self.attempt.id)
            self._cancel_told = True

    async def _see_through(self) -> Ended:
        while True:
            # Asked once more when the lease is over: it may be this process that stood still, and not the card.
            last_time = self._lease_over()
            left_s = self._desk.leases.left(self.attempt.id, self._desk.clock.monotonic())
            still = self._progress.why(self._desk.clock.monotonic())
            try:
                # Not wait_for: Python 3.11's swallows a cancel that comes together with the answer.
                async with asyncio.timeout(LAST_ASK_S if last_time else left_s + AGAIN_S):
                    events = await self._next_events(0.0 if last_time else FOLLOW_S)
            except (NodeGoneError, TimeoutError):
                if last_time:
                    return await self._lost(
                        f"{self.attempt.card_name} did not answer for {self._desk.leases.lease_s:.0f} s.",
                        silent=True,
                    )
                self._progress.unheard()
                await asyncio.sleep(AGAIN_S)
                continue
            except NotFoundError as error:  # no card can help where the head itself lacks what is worked on
                return await self._failed(
                    FailureClass.BAD_INPUT, f"{error.message} {error.remedy}".strip(), ""
                )
            except CardBusyError as busy:
                return await self._turned_away(busy.holder)
            except (WorkerGoneError, UnknownAttemptError):
                return await self._worker_gone()
            self._hold_lease()
            for event in events:
                ended = await self._take(event)
                if ended is not None:
                    return ended
                self._after = max(self._after, event.seq)  # only now: what could not be taken in comes again
                self._progress.hear(event, self._desk.clock.monotonic())
            self._troubled_since = None
            if not events:
                ended = await self._heard_nothing(still)
                if ended is not None:
                    return ended

    async def _heard_nothing(self, still: str | None) -> Ended | None:
        """The worker answers and says nothing. `still` is why it counts as standing still, told before it was asked once more.

        It is told to stop; when it has not within a grace, its process is ended.
        """
        now = self._desk.clock.monotonic()
        self._progress.quiet(now)
        if still is None:
            return None
        if self._stalled is None:
            log.warning("attempt %s stands still, it is told to stop: %s", self.attempt.id, still)
            self._stalled = (still, now)
            with suppress(NodeGoneError, WorkerGoneError):
                await self._desk.cluster.cancel(self.attempt.node_id, self.attempt.card_id, self.attempt.id)
        if now - self._stalled[1] <= self._progress.grace_s:
            return None
        return await self._stood_still(f"{self._stalled[0]} It did not stop when told to.")

    async def _stood_still(self, reason: str) -> Ended:
        """A fresh worker takes the place of the one that stood still, and tests the card before it gets work."""
        with suppress(NodeGoneError, WorkerGoneError):
            await self._desk.cluster.replace_worker(self.attempt.node_id, self.attempt.card_id)
        reason = f"{reason} The worker of {self.attempt.card_name} was started anew."
        return replace(await self._failed(FailureClass.STALLED, reason, ""), doubt=PROBED)

    async def _yielded(self, reason: str) -> Ended:
        """The card's owner wanted it: nothing is held against card or job, which goes on from its last checkpoint."""
        # Before it has ended in the store: after that its node is told to forget it.
        await self._collector.settle(LAST_FETCH_S)
        self._desk.writer.yielded(self.attempt.id, reason, self._desk.clock.now())
        return self._ended_by(None, ENDED)

    async def _worker_gone(self) -> Ended:
        kept = None if self._handed_over else await self._kept_meanwhile()
        if kept is not None:
            return await self._yielded(f"The card is kept for its owner: {kept}.")
        return await self._lost(f"The worker of {self.attempt.card_name} ended in the middle of the render.")

    async def _kept_meanwhile(self) -> str | None:
        """Why the card went to its owner just when it was to begin, as its node's next report tells; None if it did not."""
        for _ in range(round(NEWS_S / AGAIN_S)):
            kept = self._desk.kept(self.attempt.card_id)
            if kept is not None:
                return kept
            await asyncio.sleep(AGAIN_S)
        return None

    def _hold_lease(self) -> None:
        self._desk.leases.hold(self.attempt.id, self._desk.clock.monotonic())

    async def _surprised(self, error: Exception) -> Ended | None:
        now = self._desk.clock.monotonic()
        if self._troubled_since is None:
            self._troubled_since = now
        self._hold_lease()  # the card is not to blame
        if now - self._troubled_since <= self._desk.leases.lease_s:
            return None
        reason = f"The scheduler could not go on with this attempt: {type(error).__name__}."
        return await self._failed(FailureClass.INTERNAL, f"{reason} Its log has the trace.", "")

    def _lease_over(self) -> bool:
        return self.attempt.id in self._desk.leases.expired(self._desk.clock.monotonic())

    async def _next_events(self, wait_s: float) -> Sequence[Event]:
        """What the attempt said since, from its worker, or from the spool when the worker is gone. Waits up to `wait_s` for news."""
        cluster, attempt = self._desk.cluster, self.attempt
        try:
            if not self._handed_over:
                await self._start()
            await self._pass_cancel_on()
            return await cluster.follow(attempt.node_id, attempt.card_id, attempt.id, self._after, wait_s)
        except (WorkerGoneError, UnknownAttemptError) as error:
            spooled = await cluster.replay(attempt.node_id, attempt.id, self._after)
            if spooled:  # what it still said; if that was not its end, the next look finds no more
                return spooled
            unknown = isinstance(error, UnknownAttemptError)
            if self._handed_over and unknown and self._status == AttemptStatus.ASSIGNED and self._after == 0:
                self._handed_over = self._cancel_told = False
                return []
            raise

    async def _start(self) -> None:
        attempt = self.attempt
        order, work_on, state = await handover(self._desk, attempt, self.job)
        await self._desk.cluster.start(attempt.node_id, attempt.card_id, order, work_on, state)
        self._handed_over = True

    async def _take(self, event: Event) -> Ended | None:
        desk, job = self._desk, self.job
        match event:
            case Loading():
                self._move(AttemptMove.LOAD, AttemptStatus.LOADING, event.seq)
            case Rendering():
                self._move(AttemptMove.RUN, AttemptStatus.RUNNING, event.seq)
            case Step(done=done, total=total, seconds_per_step=pace):
                eta = (total - done) * pace if pace is not None else None
                if eta is not None:
                    self.ends_at = desk.clock.now() + eta
                desk.board.change(job.id, done=done, total=total, seconds_per_step=pace, eta_s=eta)
            case Preview():
                if self._preview is None or self._preview.done():
                    self._preview = asyncio.create_task(fetch_preview(self._desk, self.attempt))
            case Checkpoint():
                self._collector.hear(event)
            case Retrying() | Note() | Resumed():
                self._note_down(event)
            case Done() | Failed() | Cancelled() | Yielded():
                return await self._last_word(event)
        return None

    async def _last_word(self, event: Done | Failed | Cancelled | Yielded) -> Ended | None:
        desk, job = self._desk, self.job
        match event:
            case Done():
                return await self._finish(event)
            case Failed():
                reason = f"{event.message} {event.remedy}".strip()
                ended = await self._failed(
                    event.failure_class, reason, event.detail, disturbed=event.disturbed
                )
                return replace(ended, doubt=ENDED) if event.worker_ends else ended
            case Cancelled():
                if not (self._cancel_asked or desk.reader.job(job.id).cancel_requested):
                    return await self._stood_still(self._stalled[0] if self._stalled else STOPPED)
                desk.writer.cancelled(self.attempt.id, desk.clock.now())
                return self._ended_by(None)
            case Yielded(reason=reason):
                return await self._yielded(reason)

    def _move(self, move: AttemptMove, status: AttemptStatus, seq: int) -> None:
        self._desk.writer.progress(self.attempt.id, move, self._desk.clock.now(), seq)
        self._status = status
        self._desk.board.change(self.job.id, phase=str(status))

    def _note_down(self, event: Retrying | Note | Resumed) -> None:
        desk, now = self._desk, self._desk.clock.now()
        match event:
            case Retrying(plan=plan, reason=reason):
                if plan.precision != self.attempt.memory_plan.precision:  # the picture was broken
                    self._collector.distrust()
                self.attempt = replace(self.attempt, memory_plan=plan)
                desk.writer.note(self.attempt.id, event.seq, reason, now, plan=plan)
                desk.board.change(self.job.id, done=0, seconds_per_step=None, eta_s=None)
            case Note(text=text, disturbed=disturbed):
                self._disturbed = self._disturbed or disturbed
                desk.writer.note(self.attempt.id, event.seq, text, now, disturbed=disturbed)
            case Resumed(step=step, total=total, source=source):
                if source is not None:
                    self.attempt = replace(self.attempt, resumed_step=step)
                of = "its earlier try" if source is None else f"attempt {source}"
                text = f"Went on from step {step} of {total} of {of}."
                desk.writer.note(self.attempt.id, event.seq, text, now, resumed_step=step)

    async def _finish(self, done: Done) -> Ended | None:
        desk = self._desk
        desk.board.change(self.job.id, phase="verifying")
        for fetched in count(1):
            try:
                following = stage_after(self.job.settings, self.attempt.stage)
                if following is not None:
                    left = await collect_stage(desk.cluster, desk.artifacts, self.attempt, self.job, done)
                    desk.writer.advance(self.attempt.id, left, following, desk.clock.now())
                    return replace(self._ended_by(None), advanced=True)
                result = await collect(desk.cluster, desk.artifacts, self.attempt, self.job, done)
                break
            except (NodeGoneError, WorkerGoneError):
                answering = desk.leases.answering(self.attempt.node_id, desk.clock.monotonic())
                if self._lease_over() and not (answering and fetched < FETCHES):
                    return await self._lost(
                        f"{self.attempt.card_name} finished, but its video could not be fetched.",
                        silent=True,
                    )
                await asyncio.sleep(AGAIN_S)
            except UnknownAttemptError:
                return await self._lost(
                    f"{self.attempt.card_name} finished, but its video is no longer there."
                )
            except RenderFailedError as error:
                log.exception("the result of attempt %s cannot be used", self.attempt.id)
                return await self._failed(FailureClass.INTERNAL, str(error), "")
            except FarmError as error:  # the head's own disk: the result is good, and waits on its node
                log.error("the result of attempt %s waits: %s", self.attempt.id, error)
                desk.board.change(self.job.id, why=str(error))
                self._hold_lease()
                await asyncio.sleep(STORE_AGAIN_S)
        desk.writer.finish(self.attempt.id, result, desk.clock.now())
        return self._ended(JobStatus.FINISHED)

    async def _failed(
        self, failure_class: FailureClass, reason: str, detail: str, *, disturbed: bool = False
    ) -> Ended:
        desk, attempt = self._desk, self.attempt
        disturbed = disturbed or self._disturbed
        others = desk.rivals(self.job, attempt.card_id)
        larger = desk.larger(self.job, attempt.card_id)
        outcome = after_failure(
            attempt,
            failure_class,
            reason,
            self._earlier(),
            others,
            disturbed=disturbed,
            larger_cards=larger,
        )
        if outcome.anew:
            self._collector.distrust()
        else:
            # Before it has ended in the store: after that its node is told to forget it.
            await self._collector.settle(LAST_FETCH_S)
        desk.writer.fail(
            attempt.id,
            failure_class,
            reason,
            desk.clock.now(),
            then=outcome.then,
            detail=detail,
            disturbed=disturbed,
            verdict=outcome.verdict,
        )
        return self._ended_by(outcome)

    async def _lost(self, reason: str, *, silent: bool = False) -> Ended:
        """`silent`: the node does not answer, so that there is nothing to ask it for."""
        outcome = after_loss(reason, self._earlier())
        if not silent:
            await self._collector.settle(LAST_FETCH_S)
        self._desk.writer.lose(
            self.attempt.id, reason, self._desk.clock.now(), then=outcome.then, verdict=outcome.verdict
        )
        return replace(self._ended_by(outcome, ENDED), lost=True)

    async def _turned_away(self, holder: str) -> Ended:
        """The card is still inside an attempt that was given up: that one is stopped, and the job waits for a free card."""
        reason = f"{self.attempt.card_name} was still busy with an attempt that was given up."
        with suppress(NodeGoneError, WorkerGoneError):
            await self._desk.cluster.cancel(self.attempt.node_id, self.attempt.card_id, holder)
        self._desk.writer.withdraw(self.attempt.id, reason, self._desk.clock.now())
        return self._ended_by(None, STRAY)

    def _earlier(self) -> list[Attempt]:
        return [attempt for attempt in self._desk.reader.tries(self.job.id) if attempt.id != self.attempt.id]

    def _ended_by(self, outcome: Outcome | None, doubt: str | None = None) -> Ended:
        """The store may know better than the outcome: a cancelled job is not queued again."""
        return self._ended(self._desk.reader.job(self.job.id).status, outcome, doubt)

    def _ended(self, status: JobStatus, outcome: Outcome | None = None, doubt: str | None = None) -> Ended:
        why = outcome.verdict if outcome is not None and outcome.then == JobMove.GIVE_UP else None
        self._desk.board.ended(self.job.id, str(status), why)
        return Ended(self.attempt, self.job, status, outcome, doubt)
