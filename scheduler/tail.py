"""When jobs far back in the queue are done: the work before them drained by the cards, as if it were divisible. Pure.

The first jobs are placed one by one (`farm.planning.queue`); from when each card is free then, the tail is played on in pieces of some
hundreds of jobs. Of each piece the jobs of a kind fill up the cards that take them as water fills a vessel:

    n = sum over cards of max(0, (T - free) / seconds - 1/2)

gives the time T by which n jobs are done: of a job that is cut off by T half is done, on average. The jobs before the n-th are n - 1 just
before it is done and n just after, so it is done at the T of n - 1/2; on a single card that is free + n * seconds, as it should be. After
the n jobs each card is free half a job before the T of n, give or take.

At the end of each piece the time of a job that would come next is a knot of its kind's curve. The first knot is that of the very next job
placed as those before it were, so the curve goes on where the places end. Whatever the mix of the kinds, and however it changes along the
queue, costs nothing extra; what the policy weighs besides (models that are loaded, batches that are spread) is left out here as there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from scheduler.turns import Numbers, Slots

GROWTH = 1.1
"""A piece ends this many times as far back as it begins: farther back coarser, as is what is known of it."""
FILLINGS = 5_000
"""How often cards are filled at the most in one go: some 0.3 s with 1,000 cards. With many kinds the pieces are larger."""
LEAST_PIECES = 4


@dataclass(frozen=True, slots=True)
class _Column:
    """The cards that take a kind (indices), and the seconds of one job on each."""

    cards: Slots
    seconds: Numbers


def curves(
    free: Mapping[str, float], seconds: Sequence[Mapping[str, float]], tail: Slots, placed: int
) -> list[list[tuple[int, float]]]:
    """For each kind its knots: positions in the queue, and the seconds from now until a job of the kind there is done. None without cards.

    `free` says of the cards (by id) that take work when they have done all before the tail. `seconds` are of each kind those of one job,
    by card. `tail` are the kinds (indices) of the jobs behind the first `placed`, in order.
    """
    index = {card_id: at for at, card_id in enumerate(free)}
    level = np.array(list(free.values()), dtype=np.float64)
    columns = [_column(index, of_kind) for of_kind in seconds]
    served = [number for number, column in enumerate(columns) if len(column.cards)]
    found: list[list[tuple[int, float]]] = [[] for _ in columns]
    for number in served:
        column = columns[number]
        found[number].append((placed + 1, float((level[column.cards] + column.seconds).min())))
    for begin, end in pieces(len(tail), placed, len(served)):
        jobs = np.bincount(tail[begin:end], minlength=len(columns))
        for number in served:
            if jobs[number]:
                _fill(level, columns[number], int(jobs[number]))
        for number in served:
            before = found[number][-1][1]
            found[number].append((placed + end + 1, max(before, _time_of(level, columns[number], 0.5))))
    return found


def pieces(jobs: int, placed: int, kinds: int) -> Iterator[tuple[int, int]]:
    """From where to where each piece of the tail goes."""
    most = max(LEAST_PIECES, FILLINGS // max(1, 2 * kinds))
    growth = max(GROWTH, (1 + jobs / max(1, placed)) ** (1 / most))
    begin = 0
    while begin < jobs:
        end = min(jobs, begin + max(1, ceil((growth - 1) * (placed + begin))))
        yield begin, end
        begin = end


def _column(index: Mapping[str, int], seconds: Mapping[str, float]) -> _Column:
    there = [(index[card_id], max(of_one, 1e-9)) for card_id, of_one in seconds.items() if card_id in index]
    return _Column(
        np.array([at for at, _ in there], dtype=np.int64),
        np.array([of_one for _, of_one in there], dtype=np.float64),
    )


def _time_of(level: Numbers, column: _Column, jobs: float) -> float:
    """The T of so many jobs."""
    begin = level[column.cards] + column.seconds / 2
    order = np.argsort(begin)
    begin, rate = begin[order], 1 / column.seconds[order]
    # With the first so many cards at work, the time by which the jobs are done; right for as many as have begun by then.
    times = (jobs + np.cumsum(begin * rate)) / np.cumsum(rate)
    right = np.flatnonzero(times[:-1] <= begin[1:])
    return float(times[right[0]] if len(right) else times[-1])


def _fill(level: Numbers, column: _Column, jobs: int) -> None:
    """The cards take so many jobs more."""
    until = _time_of(level, column, float(jobs))
    level[column.cards] = np.maximum(level[column.cards], until - column.seconds / 2)
