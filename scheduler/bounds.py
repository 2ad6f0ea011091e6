"""What no scheduler can beat: lower bounds of the time until the last job is done, under the same eligibility. Uses scipy's HiGHS.

Jobs alike in what they ask are one kind, cards alike in what they take how fast one class. Each bound is a time T that is proven too short,
found by bisection: at T a class of m cards has m * T seconds, and the seconds of a job on a class are the planner's, without loading
models, which only the real run pays. So the bounds hold for every order and every placement that gives whole jobs to single cards.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import floor, inf, isfinite

import numpy as np
from scipy.optimize import LinearConstraint, linprog, milp
from scipy.sparse import csr_array

from farm.hours import WEEK, Hours
from farm.model import Job
from scheduler.policy import requirements
from scheduler.simulate import World

WITHIN = 1e-4
"""How near the bisections come, as a share of T."""
INFEASIBLE = 2
"""HiGHS' word, through scipy, for "proven impossible"."""
MILP_S = 2.0
"""How long HiGHS may look for whole numbers. A question that it leaves open counts as "possible", so that the bound stays true."""
RELEASES = 24
"""How many moments of the arrivals are tried for the release-time bound, spread evenly over the jobs."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lower bounds, seconds from the start. `best` is the largest."""

    linear: float
    integral: float
    release: float

    @property
    def best(self) -> float:
        """The best known."""
        return max(self.linear, self.integral, self.release)


@dataclass(frozen=True)
class _Problem:
    """`seconds[kind, class]` of one job (inf where it may not run), `jobs[kind]`, `cards[class]`, and when each class has its hours."""

    seconds: np.ndarray
    jobs: np.ndarray
    cards: np.ndarray
    hours: tuple[Hours | None, ...]

    def of(self, jobs: np.ndarray) -> "_Problem":
        kinds = jobs > 0
        return _Problem(self.seconds[kinds], jobs[kinds], self.cards, self.hours)

    def open_s(self, until: float) -> np.ndarray:
        """Seconds that one card of each class may work by `until`; what it has begun it may finish after its hours."""
        longest = np.where(np.isfinite(self.seconds), self.seconds, 0.0).max(axis=0, initial=0.0)
        return np.array(
            [
                until if hours is None else min(until, _open_s(hours, until) + _closings(hours, until) * last)
                for hours, last in zip(self.hours, longest, strict=True)
            ]
        )


def bounds(world: World) -> Bounds:
    """The bounds for all jobs that some card of the fleet could ever take. All 0 without any."""
    problem, kinds = _problem(world)
    if not len(problem.jobs):
        return Bounds(0.0, 0.0, 0.0)
    linear = _least(problem, _fractions)
    integral = _least(problem, _whole, low=linear)
    release = _release(world, problem, kinds)
    return Bounds(linear, integral, release)


def _problem(world: World) -> tuple[_Problem, dict[object, int]]:
    samples: dict[object, Job] = {}
    for arrival in world.arrivals:
        samples.setdefault(requirements(arrival.job), arrival.job)
    keys, columns = list(samples), Counter[tuple[tuple[float, ...], Hours | None]]()
    for said in world.cards:
        verdicts = [world.judge(samples[key], said.card) for key in keys]
        column = tuple(round(one.seconds, 6) if one.eligible else inf for one in verdicts)
        never = said.hours is not None and not said.hours.spans
        if not never and any(isfinite(value) for value in column):
            columns[column, said.hours] += 1
    table = np.array([column for column, _ in columns]).reshape(len(columns), len(keys)).T
    taken = np.isfinite(table).any(axis=1) if len(columns) else np.zeros(len(keys), dtype=bool)
    index = {
        key: number for number, key in enumerate(key for key, some in zip(keys, taken, strict=True) if some)
    }
    jobs = np.zeros(len(index))
    for arrival in world.arrivals:
        number = index.get(requirements(arrival.job))
        if number is not None:
            jobs[number] += 1
    hours = tuple(said for _, said in columns)
    return _Problem(table[taken], jobs, np.array(list(columns.values()), float), hours), index


def _least(problem: _Problem, possible: Callable[[_Problem, float], bool], low: float = 0.0) -> float:
    """The largest T known to be too short."""
    if not len(problem.jobs):
        return 0.0
    low = max(low, float(problem.seconds.min(axis=1).max()) * (1 - 1e-9))
    if possible(problem, low):
        return low
    high = 2 * max(low, 1.0)
    while not possible(problem, high):
        low, high = high, 2 * high
    while high - low > WITHIN * high:
        middle = (low + high) / 2
        low, high = (low, middle) if possible(problem, middle) else (middle, high)
    return low


def _constraints(
    problem: _Problem, until: float
) -> tuple[csr_array, np.ndarray, csr_array, np.ndarray, np.ndarray]:
    """Of the numbers of jobs of each kind on each class: what they may take at most, what they must come to, and the most of each."""
    kinds, classes = problem.seconds.shape
    room = problem.open_s(until)
    seconds = np.where(np.isfinite(problem.seconds), problem.seconds, 0.0)
    number = np.arange(kinds * classes)
    work = csr_array((seconds.ravel(), (number % classes, number)), shape=(classes, kinds * classes))
    total = csr_array((np.ones(kinds * classes), (number // classes, number)), shape=(kinds, kinds * classes))
    with np.errstate(divide="ignore"):
        each = np.where(
            np.isfinite(problem.seconds), np.floor(room[None, :] / np.maximum(seconds, 1e-9) + 1e-9), 0.0
        )
    most = (each * problem.cards[None, :]).ravel()
    return work, room * problem.cards, total, problem.jobs, most


def _fractions(problem: _Problem, until: float) -> bool:
    """Whether T would do if jobs could be cut; only a job that no card could finish within T goes to that card not at all."""
    work, room, total, jobs, most = _constraints(problem, until)
    bounds = np.stack([np.zeros_like(most), np.where(most > 0, inf, 0.0)], axis=1)
    found = linprog(
        np.zeros(len(most)),
        A_ub=work,
        b_ub=room * (1 + 1e-9),
        A_eq=total,
        b_eq=jobs,
        bounds=bounds,
        method="highs",
    )
    return bool(found.status != INFEASIBLE)


def _whole(problem: _Problem, until: float) -> bool:
    """Whether T would do with whole jobs: no card does more of a kind than fit one after the other, and numbers are whole."""
    work, room, total, jobs, most = _constraints(problem, until)
    if (problem.jobs > most.reshape(problem.seconds.shape).sum(axis=1)).any():
        return False
    found = milp(
        np.zeros(len(most)),
        integrality=np.ones(len(most)),
        bounds=(np.zeros_like(most), most),
        constraints=[
            LinearConstraint(work, -np.inf, room * (1 + 1e-9)),
            LinearConstraint(total, jobs, jobs),
        ],
        options={"time_limit": MILP_S},
    )
    return bool(found.status != INFEASIBLE)


def _release(world: World, problem: _Problem, kinds: dict[object, int]) -> float:
    """Jobs that come late cannot begin before: for some moments, the moment and the least time for all that come from then on."""
    times = [
        (one.job.created_at, number)
        for one in world.arrivals
        if (number := kinds.get(requirements(one.job))) is not None
    ]
    if not times or times[-1][0] == 0.0:
        return 0.0
    best = times[-1][0] + float(problem.seconds[times[-1][1]].min())
    moments = sorted({times[floor(step * (len(times) - 1) / RELEASES)][0] for step in range(1, RELEASES + 1)})
    for moment in moments:
        jobs = np.zeros(len(problem.jobs))
        for at, number in times:
            if at >= moment:
                jobs[number] += 1
        later = problem.of(jobs)
        hours_free = _Problem(later.seconds, later.jobs, later.cards, (None,) * len(later.cards))
        best = max(best, moment + _least(hours_free, _fractions))
    return best


def _open_s(hours: Hours, until: float) -> float:
    """Seconds within the hours, from a Monday 00:00 to `until`."""
    weeks, rest = divmod(until / 60.0, WEEK)
    week = sum(end - start for start, end in hours.spans)
    part = sum(max(0.0, min(end, rest) - start) for start, end in hours.spans)
    return 60.0 * (weeks * week + part)


def _closings(hours: Hours, until: float) -> int:
    """How often the hours end before `until`."""
    weeks, rest = divmod(until / 60.0, WEEK)
    return int(weeks) * len(hours.spans) + sum(end < rest for _, end in hours.spans)
