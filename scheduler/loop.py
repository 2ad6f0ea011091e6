"""The scheduler's loop: intake -> leases -> plan -> write -> dispatch. Woken by the feed, and once a second by itself."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from farm.artifacts import ArtifactStore
from farm.catalogue.models import ModelRow
from farm.clock import Clock
from farm.errors import NotFoundError
from farm.feed import FeedMessage, JobChanged, LiveJob
from farm.model import Attempt, Job, JobStatus
from farm.own_bench import BenchResult
from farm.planning.eligibility import TiersMode, room_for
from farm.planning.learned import worked_by
from farm.planning.memory import Room
from farm.retention import Limits
from farm.settings import FarmSettings
from farm.stages import stages_of
from farm.store.reader import Reader
from farm.store.registry import Registry
from farm.store.requests import Request, RequestKind, Requests
from farm.store.writer import Writer
from farm.wire import NodeReport
from scheduler.attend import Attendant
from scheduler.attendance import Attendance
from scheduler.benched import Benched
from scheduler.board import Board
from scheduler.checkpoints import Checkpoints
from scheduler.cluster import Cluster, NodeGoneError, WorkerGoneError
from scheduler.desk import Desk, Ended
from scheduler.exclusions import Exclusions
from scheduler.feed_server import FeedServer
from scheduler.handover import has_lost_its_clip
from scheduler.knowledge import Knowledge
from scheduler.late import LateResults
from scheduler.leases import Leases
from scheduler.outcomes import given_up_for_want_of_cards, ran_out, why_to_pause
from scheduler.outlook import Outlook
from scheduler.placing import Placing
from scheduler.policy import Policy
from scheduler.prospects import Prospects
from scheduler.retention import Retention
from scheduler.telemetry import Telemetry
from scheduler.watch import Watch

log = logging.getLogger(__name__)

TICK_S = 1.0
"""The longest the loop sleeps; whatever wakes it comes sooner."""


class Scheduler:
    """All of the head's deciding, on one thread. Started once per process, ended by `stop`."""

    def __init__(
        self,
        cluster: Cluster,
        writer: Writer,
        reader: Reader,
        requests: Requests,
        registry: Registry,
        artifacts: ArtifactStore,
        models: dict[str, ModelRow],
        clock: Clock,
        *,
        feed_socket: Path,
        previews: Path,
        checkpoints: Path,
        lease_s: float,
        tiers: TiersMode,
        benched: Benched | None = None,
        retention: Retention | None = None,
        settings: Callable[[], FarmSettings] | None = None,
    ) -> None:
        """Without `benched` no card has a bench of its own; without `retention` everything is kept.

        `settings` reads those that hold, and is asked when an admin has changed one.
        """
        self._retention = retention
        self._settings = settings
        self._cluster = cluster
        self._writer = writer
        self._reader = reader
        self._requests = requests
        self._clock = clock
        self._benched = benched
        self._known = Knowledge(reader, models, tiers, benched)
        self._wake = asyncio.Event()
        self._stopping = False
        self._fault: BaseException | None = None
        self._policy = Policy(self._known.judge, self._known.loading)
        self._exclusions = Exclusions(self._policy)
        self._placing = Placing(self._policy, self._exclusions, self._known.unplaceable)
        self._attendance = Attendance()
        self._prospects = Prospects(
            self._policy,
            self._exclusions,
            self._known.judge,
            lambda card: self._watch.gone(card),  # noqa: PLW0108 - the watch is made below
        )
        self._chores: set[asyncio.Task[None]] = set()
        self._last_seq = 0
        self._placed_with: object = None
        self._unjudged: list[str] = []
        self._board = Board(self._publish)
        self._feed = FeedServer(feed_socket, self._board.snapshot, self._wake.set)
        self._leases = leases = Leases(lease_s)
        self._checkpoints = Checkpoints(checkpoints)
        self._desk = Desk(
            cluster,
            writer,
            reader,
            artifacts,
            self._board,
            leases,
            clock,
            previews,
            self._checkpoints,
            rivals=self._prospects.rivals,
            larger=self._prospects.larger,
            kept=lambda card_id: self._watch.kept(card_id),  # noqa: PLW0108 - the watch is made below
            room=self._room,
        )
        self._late = LateResults(
            cluster,
            writer,
            reader,
            artifacts,
            clock,
            hold=self._hold,
            free=self._queue_again,
            taken=self._taken_late,
            over=self._forget,
        )
        self._telemetry = Telemetry(
            writer, reader, clock, lambda card_id: self._attendance.holder(card_id) is not None
        )
        self._outlook = Outlook(
            self._policy,
            self._board,
            clock,
            judge=self._known.judge,
            view=lambda: self._known.view,
            running=lambda: self._attendance.running,
        )
        self._watch = Watch(
            cluster,
            registry,
            self._policy,
            self._board,
            leases,
            clock,
            holder=self._attendance.holder,
            work=self._attendance.work,
            attended=lambda: self._attendance.attempts,
            spooled=self._heard,
            changed=self._wake.set,
        )

    async def run(self) -> None:
        """Recovers what the store remembers, then works until `stop`. Whatever it raises is for a new process to mend."""
        self._recover()
        await self._feed.start()
        watching = asyncio.create_task(self._watch.run())
        try:
            while not self._stopping:
                self._wake.clear()
                if self._fault is not None:
                    raise self._fault
                self.tick()
                # Not wait_for: Python 3.11's swallows a cancel that comes together with the wake.
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK_S):
                        await self._wake.wait()
        finally:
            tasks = [watching, *self._chores, *self._attendance.tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._feed.stop()

    def _publish(self, message: FeedMessage) -> None:
        self._feed.publish(message)

    def stop(self) -> None:
        """Lets the loop end. Renders go on: their workers do not belong to this process."""
        self._stopping = True
        self._wake.set()

    def tick(self) -> None:
        """One turn: takes in what is new, decides, writes, dispatches."""
        self._take_requests()
        self._take_new_jobs()
        for job_id in self._exclusions.end_rests(self._clock.monotonic()):
            self._queue_again(job_id)
        self._assign()
        self._mark_unplaceable()
        if self._benched is not None:
            self._learn_from_bench(self._benched.look())
        if self._outlook.due:
            self._chore(self._outlook.tell())
        if self._retention is not None and self._retention.due:
            self._chore(self._retention.work())

    # --- recovery ---
    def _recover(self) -> None:
        nodes, cards = self._reader.nodes(), self._reader.cards()
        tried = self._reader.tries_of_open_jobs()
        self._checkpoints.drop_all_but(tried.keys())
        self._watch.know(nodes, cards)
        self._known.recall(cards)
        for job_id, tries in tried.items():
            self._exclusions.recall(job_id, tries, self._clock.now(), self._clock.monotonic())
            self._shun_no_larger(job_id, ran_out(tries))
        for attempt in self._reader.live_attempts():
            self._attend(attempt, self._reader.job(attempt.job_id), handed_over=True)

    def _shun_no_larger(self, job_id: str, card_ids: Collection[str]) -> None:
        """A job that ran out of memory on these cards goes to larger ones, while there are any."""
        job = self._reader.job(job_id) if card_ids else None
        for card_id in card_ids:
            if job is not None and self._prospects.larger(job, card_id):
                self._exclusions.shun(job_id, self._prospects.no_larger(job, card_id))

    # --- intake ---
    def _take_requests(self) -> None:
        waiting = self._requests.waiting()
        for request in waiting:
            self._serve(request)
        self._requests.done([request.id for request in waiting])

    def _serve(self, request: Request) -> None:
        now = self._clock.now()
        match request.kind:
            case RequestKind.CANCEL:
                if self._writer.cancel_queued(request.job_id, now):
                    self._policy.remove_job(request.job_id)
                    self._checkpoints.drop(request.job_id)
                    self._board.ended(request.job_id, JobStatus.CANCELLED)
                    return
                for attendant in self._attendance.of_job(request.job_id):
                    self._chore(attendant.cancel())
            case RequestKind.RETRY:
                if self._writer.retry(
                    request.job_id, now, from_the_start=has_lost_its_clip(self._desk, request.job_id)
                ):
                    self._exclusions.forgive(request.job_id)
                    self._queue_again(request.job_id)
            case RequestKind.PRIORITY:
                self._writer.set_priority(request.job_id, request.value or 0)
                self._policy.change_priority(request.job_id, request.value or 0)
            case RequestKind.DRAIN:
                self._watch.drain(request.node_id)
            case RequestKind.RESUME:
                self._watch.resume(request.node_id)
            case RequestKind.FORGET:
                self._watch.forget(request.node_id)
            case RequestKind.SETTINGS if self._settings is not None:
                self._take_settings(self._settings())

    def _take_settings(self, settings: FarmSettings) -> None:
        """From here on these hold: also for what waits and for what renders already."""
        self._leases.lease_s = settings.lease_s
        if self._retention is not None:
            self._retention.limit(Limits(settings.keep_days, settings.keep_gb))
        if self._known.rule(settings.tiers):
            self._policy.forget_verdicts()
            self._outlook.forget()
            self._placed_with = None  # what could run nowhere may now, and the other way round

    def _take_new_jobs(self) -> None:
        for seq, job in self._reader.queued_after(self._last_seq):
            self._last_seq = seq
            self._policy.add_job(job, seq, job.batch)
            self._unjudged.append(job.id)
            self._feed.publish(JobChanged(LiveJob(job.id, JobStatus.QUEUED)))

    def _queue_again(self, job_id: str) -> None:
        try:
            job = self._reader.job(job_id)
        except NotFoundError:
            return
        if job.status == JobStatus.QUEUED:
            self._policy.add_job(job, self._reader.seq(job_id), job.batch)
            self._unjudged.append(job_id)
            self._board.ended(job_id, JobStatus.QUEUED)

    # --- planning ---
    def _assign(self) -> None:
        picks = {pick.job.id: pick for pick in self._policy.decide(self._clock.now())}
        self._board.rather(self._policy.rather, lambda job_id: self._policy.job(job_id) is not None)
        if not picks:
            return
        assignments = [self._known.assignment(pick) for pick in picks.values()]
        for attempt in self._writer.assign(assignments, self._clock.now()):
            pick = picks.pop(attempt.job_id)
            self._attend(attempt, replace(pick.job, status=JobStatus.RUNNING), handed_over=False)
        for pick in picks.values():  # refused by the store: cancelled meanwhile, or the card is held
            self._queue_again(pick.job.id)
            self._watch.refresh(pick.card.id)

    def _mark_unplaceable(self) -> None:
        """Says of waiting jobs at once when no known card could ever serve them.

        Those that came since are judged, and when the farm's cards change also the kinds of all others.
        """
        cards = self._policy.cards
        stand = tuple(cards)
        jobs: list[Job] = []
        if stand != self._placed_with:
            self._placed_with = stand
            if self._known.see(cards):
                self._policy.forget_verdicts()
            self._wake.set()  # what the last decision did not know may let a card take a job
            jobs = self._placing.anew()
        jobs += [job for job_id in self._unjudged if (job := self._policy.job(job_id)) is not None]
        self._unjudged.clear()
        changed: dict[str, str | None] = {}
        for job in {job.id: job for job in jobs}.values():
            if self._prospects.none_left(job):
                self._give_up(job)
                continue
            reason = self._placing.why(job)
            if reason != job.unplaceable:
                changed[job.id] = reason
        self._writer.mark_unplaceable(changed)
        self._policy.note_unplaceable(changed)
        for job_id, why in changed.items():
            self._feed.publish(JobChanged(LiveJob(job_id, JobStatus.QUEUED, why=why)))

    def _give_up(self, job: Job) -> None:
        why = given_up_for_want_of_cards(self._reader.tries(job.id))
        if self._writer.give_up_queued(job.id, why, self._clock.now()):
            self._policy.remove_job(job.id)
            self._exclusions.forgive(job.id)
            self._checkpoints.drop(job.id)
            self._board.ended(job.id, JobStatus.FAILED, why)

    # --- attempts ---
    def _attend(self, attempt: Attempt, job: Job, *, handed_over: bool) -> None:
        attendant = Attendant(self._desk, attempt, job, handed_over=handed_over)
        self._attendance.begin(attendant)
        self._telemetry.begin(attempt, handed_over=handed_over)
        self._watch.begin(attempt)
        task = asyncio.create_task(self._see_through(attendant))
        task.add_done_callback(self._attended)
        self._attendance.see(attempt.id, task)

    def _attended(self, task: asyncio.Task[None]) -> None:
        """A fault here would leave a job in nobody's hands: the process ends, and its successor recovers from the store."""
        if not task.cancelled() and task.exception() is not None:
            self._fault = task.exception()
            self._wake.set()

    async def _see_through(self, attendant: Attendant) -> None:
        attempt = attendant.attempt
        while True:
            try:
                ended = await attendant.run()
                break
            except Exception:  # the store itself does not work: nothing is lost by waiting for it
                log.exception("how attempt %s ended could not be written down; trying again", attempt.id)
                await asyncio.sleep(TICK_S)
        self._attendance.end(attempt)
        self._telemetry.end(attempt.id)
        self._after(ended)
        self._learn(attempt.card_id, worked_by(attendant.job.settings, attempt.stage))
        if ended.outcome is not None or ended.doubt is not None:
            self._policy.unload(attempt.card_id)  # a worker forgets its model after a failure
        if ended.outcome is not None:
            why = why_to_pause(self._reader.ended_on(attempt.card_id))
            if why is not None:
                self._watch.pause(attempt.card_id, why)
        if ended.doubt is not None:
            self._watch.doubt(attempt.card_id, ended.doubt)
        self._watch.refresh(attempt.card_id)
        self._wake.set()
        # Of a lost attempt its node may have more than was heard: what becomes of it is said when the node reports it. A call to a
        # node that is cut off would reach it when it is back, before anyone has looked.
        if not ended.lost:
            self._chore(self._forget(attempt.node_id, [attempt.id]))

    def _after(self, ended: Ended) -> None:
        job_id = ended.job.id
        if ended.status == JobStatus.QUEUED:
            if ended.advanced:
                self._exclusions.forgive(job_id)  # its next stage has failed nowhere
                self._checkpoints.drop(job_id)
            elif ended.outcome is not None:
                self._exclusions.take(job_id, ended.attempt.card_id, ended.outcome, self._clock.monotonic())
                if ended.outcome.and_no_larger:
                    small = self._prospects.no_larger(ended.job, ended.attempt.card_id)
                    self._exclusions.shun(job_id, small)
            self._queue_again(job_id)
        else:
            self._exclusions.forgive(job_id)
            self._checkpoints.drop(job_id)
            if self._retention is not None and len(stages_of(ended.job.settings)) > 1:
                self._retention.stir()

    def _learn(self, card_id: str, name: str) -> None:
        """What the model or interpolator has done on the card counts from the next decision on."""
        card = next((card for card in self._policy.cards if card.id == card_id), None)
        if card is None:
            return
        if self._known.learn(card, name):
            self._policy.forget_verdicts(card_id)
            self._placed_with = None  # what fits where may have changed: judge all that wait

    def _learn_from_bench(self, rows: Sequence[BenchResult]) -> None:
        """A card's own bench counts from the next decision on."""
        for card_id, model in {(row.card_id, row.model) for row in rows}:
            self._learn(card_id, model)

    def _heard(self, report: NodeReport) -> None:
        self._telemetry.take(report)
        if self._benched is not None:
            self._learn_from_bench(self._benched.hear(report))
        self._clear_spool(report)

    def _clear_spool(self, report: NodeReport) -> None:
        """Every live attempt is attended, so whatever else a node keeps has ended; the clip of a lost one may still be wanted."""
        over = [attempt_id for attempt_id in report.spooled if attempt_id not in self._attendance.attempts]
        if over:
            self._chore(self._late.look(report.node_id, over))

    def _room(self, job: Job, card_id: str) -> Room | None:
        card = self._policy.card(card_id)
        return None if card is None else room_for(job, card, self._known.view)

    def _hold(self, job_id: str) -> None:
        self._policy.remove_job(job_id)
        self._board.ended(
            job_id, JobStatus.QUEUED, "A PC that came back may have its clip; that is looked for."
        )

    def _taken_late(self, job_id: str) -> None:
        """A job is finished by an attempt that was held for lost: whoever else is at it may stop."""
        self._policy.remove_job(job_id)
        self._exclusions.forgive(job_id)
        self._checkpoints.drop(job_id)
        for attendant in self._attendance.of_job(job_id):
            self._chore(attendant.cancel())
        self._board.ended(job_id, JobStatus.FINISHED)

    async def _forget(self, node_id: str, attempt_ids: list[str]) -> None:
        try:
            await self._cluster.forget(node_id, attempt_ids)
        except (NodeGoneError, WorkerGoneError):
            log.debug("node %s will hear later what it may forget", node_id)

    def _chore(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
