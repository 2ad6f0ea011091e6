"""What the scheduler last told of the queue, asked job by job: its position, when it should be done, and what it waits for. Pure."""

from bisect import bisect_right

from farm.catalogue.interpolators import interpolator
from farm.feed import Expected, QueueChanged
from farm.model import Job, StageKind
from farm.planning.interpolation import interpolation_seconds
from farm.planning.kinds import kind_of
from farm.planning.learned import PRIOR
from farm.planning.spans import spread
from farm.stages import stage_after


class Told:
    """One telling, looked through once, so that each question costs the same however long the queue is."""

    def __init__(self, queue: QueueChanged) -> None:
        self.queue = queue
        self.places = {place.id: place for place in queue.places}
        """The running jobs and the first that wait, by id."""
        self._positions = {seq: position for position, seq in enumerate(queue.order, start=queue.placed + 1)}

    def position(self, job: Job) -> int | None:
        """A waiting job's position, from 1; None where it did not wait yet, or not any more, when this was told."""
        place = self.places.get(job.id)
        if place is not None:
            return place.position
        return None if job.seq is None else self._positions.get(job.seq)

    def last_of(self, priority: int) -> int:
        """Behind which position a job of this priority comes at the latest, if it came after this was told."""
        return max((last for level, last in self.queue.levels if level >= priority), default=0)

    def kind(self, job: Job) -> str:
        """The kind that the job was told of as."""
        place = self.places.get(job.id)
        return place.kind if place is not None else self.queue.apart.get(job.id) or kind_of(job)

    def expected(self, job: Job, position: int | None) -> tuple[Expected | None, bool]:
        """When the job is done that stands at `position`, and whether its own place says so, or the curve of its kind.

        With a stage that is still to follow; whether that will have to wait for a card nobody knows yet. None where no card that
        answers takes the job, or nothing was told of such jobs yet.
        """
        place = self.places.get(job.id)
        done = place.done if place is not None else self._on_curve(self.kind(job), position)
        if done is not None and stage_after(job.settings, job.stage) is StageKind.INTERPOLATE:
            span = spread(interpolation_seconds(interpolator(), job.settings) * self.queue.smoothing, PRIOR)
            done = Expected(done.at + span.likely, done.low_at + span.low, done.high_at + span.high)
        return done, place is not None

    def _on_curve(self, kind: str, position: int | None) -> Expected | None:
        curve = self.queue.curves.get(kind, ())
        if not curve or position is None:
            return None
        at = min(max(bisect_right(curve, position, key=lambda knot: knot.position), 1), len(curve) - 1)
        before, after = curve[at - 1], curve[at]
        share = (position - before.position) / max(1, after.position - before.position)
        likely = before.at + min(max(share, 0.0), 1.0) * (after.at - before.at) - self.queue.made_at
        low, high = likely / after.factor, likely * after.factor
        return Expected(*(self.queue.made_at + seconds for seconds in (likely, low, high)))

    def why(self, job: Job, position: int | None) -> str | None:
        """What a waiting job waits for; None where nothing was told of such jobs yet."""
        kind = self.kind(job)
        behind = self.queue.behind.get(kind)
        if behind is not None and position is not None and position > behind.idle:
            return behind.why
        return self.queue.why.get(kind)
