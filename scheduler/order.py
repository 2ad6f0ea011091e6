"""The whole queue in the order in which its jobs would get cards, were cards that take them to become free one by one. Pure.

The policy looks at the first job of each lane only. What would come of playing that on for 100,000 jobs is worked out here at once. Within
a lane the rank (`scheduler.lanes.rank`) never falls, and of a user's jobs it does not depend on the shares, which are the user's: so a
user's jobs are sorted once. From that follows what the user has had before each of them, and with it the rank that each job will have
when its turn comes. Since that never falls either along a user's jobs, sorting all of them by it is what the policy does step by step; a
property test plays both.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from farm.model import Job
from farm.planning.eligibility import Verdict
from scheduler.turns import Numbers, Offers, Slots


@dataclass(frozen=True, slots=True)
class Kind:
    """Jobs that are alike for every card, `sample` for all of them: they ask the same, and are kept from the same cards.

    `verdicts` grows and shrinks with what the policy has judged: whoever reads it from another thread asks card by card.
    """

    label: str
    sample: Job
    excluded: frozenset[str]
    offers: Offers
    verdicts: Mapping[str, Verdict]


@dataclass(frozen=True, slots=True)
class Line:
    """A lane as it stands: `jobs` are numbers and ids in the order of submission, `kind` is an index.

    `first` and `then` are the level, negative, and what is due, as in `scheduler.lanes.rank`: of its first job, and of each further one.
    """

    kind: int
    user: str
    bulk: bool
    nominal_s: float
    first: tuple[float, float]
    then: tuple[float, float]
    jobs: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue as it stands, copied, so that the sorting may take its time in a thread. `accounts` are the users' shares."""

    kinds: tuple[Kind, ...] = ()
    lines: tuple[Line, ...] = ()
    accounts: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """All that waits, in order: numbers and ids, and for each the index of its kind and its level."""

    jobs: list[tuple[int, str]]
    kinds: Slots
    levels: Slots


def in_order(queue: Queue) -> Order:
    """The order. For 100,000 jobs some 0.15 s."""
    lines = queue.lines
    jobs = [job for line in lines for job in line.jobs]
    lengths = np.array([len(line.jobs) for line in lines], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    users = {user: index for index, user in enumerate(dict.fromkeys(line.user for line in lines))}

    def of_line(values: list[float], first: list[float] | None = None) -> Numbers:
        found = np.repeat(np.array(values, dtype=np.float64), lengths)
        if first is not None:
            found[starts] = first
        return found

    seq = np.fromiter((number for number, _ in jobs), dtype=np.int64, count=len(jobs))
    level = of_line([line.then[0] for line in lines], [line.first[0] for line in lines])
    due = of_line([line.then[1] for line in lines], [line.first[1] for line in lines])
    bulk = of_line([line.bulk for line in lines])
    nominal_s = of_line([line.nominal_s for line in lines])
    user = of_line([users[line.user] for line in lines])

    own = np.lexsort((seq, due, bulk, level, user))
    share = np.empty(len(jobs))
    ends = np.searchsorted(user[own], np.arange(len(users)), side="right")
    begin = 0
    for name, end in zip(users, ends.tolist(), strict=True):
        had = (queue.accounts or {}).get(name, 0.0)
        # One by one, as `Shares.charge` adds: the same sums to the last bit.
        share[own[begin:end]] = np.cumsum(np.concatenate(([had], nominal_s[own[begin:end]])))[:-1]
        begin = end
    order = np.lexsort((seq, due, bulk, share, level))
    kind = np.repeat(np.array([line.kind for line in lines], dtype=np.int64), lengths)
    return Order([jobs[at] for at in order.tolist()], kind[order], -level[order].astype(np.int64))
