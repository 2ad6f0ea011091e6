"""A farm in virtual time: the real policy (or a baseline) over cards and jobs from files. Pure: the same input gives the same run.

A render takes what the planner predicts, and loading a model that the card does not hold comes on top. Time begins on a Monday at 00:00.
What is done to a rendered clip (interpolation, encoding) is left out. A card whose hours end finishes what it has begun. A card that
fails loses its job, which waits again, and is back after `REPAIR_S`.
"""

import heapq
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from farm.catalogue.models import ModelRow
from farm.hours import WEEK, Hours
from farm.model import Card, Job
from farm.planning.eligibility import FarmView, TiersMode, Verdict, bands_of, check
from farm.planning.learned import Learned
from farm.planning.loading import load_seconds
from scheduler.baselines import PLANNERS, Planner
from scheduler.fleet import Arrival, SimulatedCard
from scheduler.outcomes import MAX_LOST
from scheduler.policy import requirements

REPAIR_S = 900.0
"""How long a card is away after a failure: a PC that restarts, or somebody who restarts it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Seconds from coming to the first card."""

    mean: float
    p95: float


@dataclass(frozen=True, slots=True)
class Placed:
    """One job's work on a card, seconds from the start; `load_s` of it went into loading the model."""

    job_id: str
    card_id: str
    begin: float
    end: float
    load_s: float


@dataclass(frozen=True, slots=True)
class Run:
    """How a simulation ended. `utilization` is each card's share of the makespan at work; `unplaceable` jobs count as failed."""

    makespan_s: float
    wait: dict[str, Wait]
    utilization: dict[str, float]
    finished: int
    failed: int
    unplaceable: int
    placed: tuple[Placed, ...] = field(repr=False, default=())


@dataclass(frozen=True)
class World:
    """The fleet and its jobs, with the farm's own judge over them. `judge` answers for jobs alike from memory."""

    cards: Sequence[SimulatedCard]
    arrivals: Sequence[Arrival]
    models: Mapping[str, ModelRow]
    tiers: TiersMode
    _view: FarmView = field(init=False)

    def __post_init__(self) -> None:
        speeds = {
            (one.card.id, model): Learned(seconds=1 / one.speed)
            for one in self.cards
            for model in self.models
            if one.speed != 1.0
        }
        bands = bands_of(one.card for one in self.cards)
        object.__setattr__(self, "_view", FarmView(self.models, self.tiers, bands, learned=speeds))

    def judge(self, job: Job, card: Card) -> Verdict:
        """What the farm says of a job on a card."""
        return check(job, card, self._view)

    def loading(self, model: str, card: Card) -> float:  # noqa: ARG002 - a disk is a disk
        """Seconds to load a model."""
        return load_seconds(self.models[model])


@dataclass(slots=True)
class _At:
    """A card in the run: `job` is what it works on, `turn` counts its pieces of work so that the end of a lost one is no news."""

    said: SimulatedCard
    open: bool = True
    down: bool = False
    job: Arrival | None = None
    begun: float = 0.0
    ends: float = 0.0
    load_s: float = 0.0
    turn: int = 0
    model: str | None = None
    worked: float = 0.0

    @property
    def free(self) -> bool:
        return self.open and not self.down and self.job is None


class _Simulation:
    def __init__(self, world: World, planner: Planner, seed: int) -> None:
        self._world = world
        self._planner = planner
        self._cards = {one.card.id: _At(one) for one in world.cards}
        self._chance = {card_id: random.Random(f"{seed} {card_id}") for card_id in self._cards}  # noqa: S311
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._count = 0
        self._seqs: dict[str, int] = {}
        self._known: dict[str, Arrival] = {}
        self._losses: Counter[str] = Counter()
        self._waits: defaultdict[str, list[float]] = defaultdict(list)
        self._waited: set[str] = set()
        self._placed: list[Placed] = []
        self._finished = self._failed = self._unplaceable = 0
        self._makespan = 0.0

    def run(self) -> Run:
        for at in self._cards.values():
            if at.said.hours is not None:
                self._turn_hours(at, at.said.hours)
            if at.said.mtbf_s is not None:
                self._let_fail(at, 0.0)
            self._tell(at)
        some = _Placeable(self._world)
        for seq, arrival in enumerate(self._world.arrivals):
            if some.take(arrival.job):
                self._seqs[arrival.job.id] = seq
                self._known[arrival.job.id] = arrival
                self._at(arrival.job.created_at, lambda _now, one=arrival: self._come(one))  # type: ignore[misc]
            else:
                self._unplaceable += 1
        while self._finished + self._failed < len(self._seqs):
            now = self._events[0][0]
            while self._events and self._events[0][0] <= now:
                heapq.heappop(self._events)[2](now)
            for pick in self._planner.decide(now):
                self._begin(self._cards[pick.card.id], self._known[pick.job.id], pick.seconds, now)
        return Run(
            self._makespan,
            {kind: _wait(waits) for kind, waits in sorted(self._waits.items())},
            {
                card_id: at.worked / self._makespan if self._makespan else 0.0
                for card_id, at in self._cards.items()
            },
            self._finished,
            self._failed + self._unplaceable,
            self._unplaceable,
            tuple(self._placed),
        )

    def _at(self, time: float, happens: Callable[[float], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, happens))

    def _tell(self, at: _At) -> None:
        away = at.down or not at.open
        self._planner.set_card(
            at.said.card,
            free=at.free,
            busy_until=None if away or at.job is None else at.ends,
            model=at.model,
        )

    def _come(self, arrival: Arrival) -> None:
        self._planner.add_job(arrival.job, self._seqs[arrival.job.id], arrival.batch)

    # --- work ---
    def _begin(self, at: _At, arrival: Arrival, seconds: float, now: float) -> None:
        model, card = arrival.job.settings.model, at.said.card
        at.load_s = 0.0 if at.model == model else self._world.loading(model, card)
        at.job, at.begun, at.ends, at.model = arrival, now, now + at.load_s + seconds, model
        at.turn += 1
        if arrival.job.id not in self._waited:
            self._waited.add(arrival.job.id)
            self._waits[arrival.kind].append(now - arrival.job.created_at)
        self._tell(at)
        self._at(at.ends, lambda then, turn=at.turn: self._end(at, turn, then))  # type: ignore[misc]

    def _end(self, at: _At, turn: int, now: float) -> None:
        if at.turn != turn or at.job is None:
            return
        self._placed.append(Placed(at.job.job.id, at.said.card.id, at.begun, now, at.load_s))
        at.worked += now - at.begun
        at.job = None
        self._finished += 1
        self._makespan = now
        self._tell(at)

    # --- cards that come and go ---
    def _turn_hours(self, at: _At, hours: Hours) -> None:
        changes = _changes(hours)

        def turn(opens: bool) -> None:
            at.open = opens
            self._tell(at)
            follow()

        def follow() -> None:
            found = next(changes, None)
            if found is not None:
                self._at(found[0], lambda _now: turn(found[1]))

        first = next(changes, None)
        at.open = first is not None and first[1] and first[0] == 0.0
        if first is not None and not at.open:
            self._at(first[0], lambda _now: turn(first[1]))
        elif first is not None:
            follow()

    def _let_fail(self, at: _At, now: float) -> None:
        mtbf_s = at.said.mtbf_s
        assert mtbf_s is not None  # noqa: S101 - asked before
        self._at(
            now + self._chance[at.said.card.id].expovariate(1 / mtbf_s), lambda then: self._fail(at, then)
        )

    def _fail(self, at: _At, now: float) -> None:
        lost, at.job, at.down, at.model = at.job, None, True, None
        at.turn += 1
        if lost is not None:
            at.worked += now - at.begun
            self._losses[lost.job.id] += 1
            if self._losses[lost.job.id] >= MAX_LOST:
                self._failed += 1
            else:
                self._come(lost)
        self._tell(at)
        self._at(now + REPAIR_S, lambda then: self._repaired(at, then))

    def _repaired(self, at: _At, now: float) -> None:
        at.down = False
        self._tell(at)
        self._let_fail(at, now)


class _Placeable:
    """Which jobs some card of the fleet could ever take."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[object, bool] = {}

    def take(self, job: Job) -> bool:
        key = requirements(job)
        if key not in self._known:
            ever = [one.card for one in self._world.cards if one.hours is None or one.hours.spans]
            self._known[key] = any(self._world.judge(job, card).eligible for card in ever)
        return self._known[key]


def _changes(hours: Hours) -> Iterator[tuple[float, bool]]:
    """When a card comes (True) and goes (False), seconds from a Monday 00:00, for ever."""
    spans = hours.spans
    if not spans or spans == ((0, WEEK),):
        if spans:
            yield 0.0, True
        return
    week = 0
    last: tuple[float, bool] | None = None
    while True:
        for start, end in spans:
            begin, stop = (week * WEEK + start) * 60.0, (week * WEEK + end) * 60.0
            if last is not None and last[0] == begin:
                last = (stop, False)  # Sunday's evening goes on into Monday
                continue
            if last is not None:
                yield last
            yield begin, True
            last = (stop, False)
        week += 1


def _wait(waits: Sequence[float]) -> Wait:
    ordered = sorted(waits)
    return Wait(sum(ordered) / len(ordered), ordered[ceil(0.95 * len(ordered)) - 1])


def simulate(world: World, policy: str = "farm", seed: int = 0) -> Run:
    """Runs the world under a policy of `PLANNERS` until every job has ended. `seed` is of the cards' failures.

    Raises:
        KeyError: no policy of this name.
    """
    return _Simulation(world, PLANNERS[policy](world.judge, world.loading), seed).run()
