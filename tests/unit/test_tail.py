"""Times far back in the queue: the drained tail against the queue played forward job by job, and against the simulated farm."""

import random
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.planning.queue import Pace, Waiting, forecast
from scheduler.tail import curves, pieces

Seconds = dict[str, float]


def played(kinds: list[int], busy: Seconds, seconds: list[Seconds]) -> list[float]:
    """When each job is done, each placed by itself."""
    paces = {
        number: {card: Pace(one) for card, one in of_kind.items()} for number, of_kind in enumerate(seconds)
    }
    queue = [Waiting(str(number), kind) for number, kind in enumerate(kinds)]
    left = {card: Pace(one) for card, one in busy.items()}
    places = forecast(queue, left, paces, exact=len(queue)).places
    return [place.done.likely for place in places if place.done is not None]


def told(kinds: list[int], busy: Seconds, seconds: list[Seconds], placed: int) -> list[float]:
    """The same by the curves, from job `placed` on."""
    paces = {
        number: {card: Pace(one) for card, one in of_kind.items()} for number, of_kind in enumerate(seconds)
    }
    queue = [Waiting(str(number), kind) for number, kind in enumerate(kinds)]
    left = {card: Pace(one) for card, one in busy.items()}
    free = forecast(queue, left, paces, exact=placed).free
    found = curves(free, seconds, np.array(kinds[placed:], dtype=np.int64), placed)
    return [
        float(np.interp(position, *zip(*found[kind], strict=True)))
        for position, kind in enumerate(kinds[placed:], start=placed + 1)
    ]


def test_one_card_works_off_the_tail_at_its_pace() -> None:
    assert told([0] * 50, {"c": 7.0}, [{"c": 10.0}], 5) == pytest.approx(
        [7.0 + 10.0 * position for position in range(6, 51)]
    )


def test_kinds_on_cards_of_their_own_do_not_wait_for_each_other() -> None:
    kinds = [0] * 40 + [1] * 160
    found = told(kinds, {"x": 0.0, "y": 0.0}, [{"x": 10.0}, {"y": 1.0}], 20)
    assert found[19] == pytest.approx(400.0, rel=0.05)
    assert found[-1] == pytest.approx(160.0, rel=0.05)


MIXES = {
    "one kind": [{"x": 10.0, "y": 40.0, "z": 95.0}],
    "two that share a card": [{"x": 10.0, "y": 40.0}, {"y": 20.0, "z": 30.0}],
    "large and small": [{"x": 300.0}, {"x": 30.0, "y": 55.0, "z": 80.0}],
}


@pytest.mark.parametrize("seconds", MIXES.values(), ids=MIXES)
def test_the_tail_tells_what_playing_on_tells(seconds: list[Seconds]) -> None:
    """Also where behind stands other work than in front, which a straight line drawn on from the first jobs does not know.

    Only within the piece in which a kind turns up for the first time the curve is a straight line, and the truth a bend.
    """
    chance = random.Random(5)  # noqa: S311 - a test
    kinds = [0] * 150 + [chance.randrange(len(seconds)) for _ in range(1500)] + [len(seconds) - 1] * 300
    busy = {"x": 3.0, "y": 7.0, "z": 1.0}
    off = sorted(
        abs(one - other) / other
        for one, other in zip(
            told(kinds, busy, seconds, 100), played(kinds, busy, seconds)[100:], strict=True
        )
    )
    assert median(off) < 0.02
    assert off[int(0.95 * len(off))] < 0.05


def test_it_goes_on_where_the_places_end() -> None:
    """The first job of the tail has the very time that it would have as the last of the places."""
    seconds: list[Seconds] = [{"x": 10.0, "y": 40.0}, {"y": 20.0, "z": 30.0}]
    kinds, busy = [0, 1, 1, 0, 1] * 40, {"x": 3.0, "y": 7.0, "z": 1.0}
    for placed in range(50, 60):
        first = told(kinds, busy, seconds, placed)[0]
        assert first == played(kinds[: placed + 1], busy, seconds)[-1]


def test_a_kind_without_cards_has_no_times() -> None:
    assert curves({"x": 1.0}, [{}, {"x": 2.0, "gone": 1.0}], np.array([0, 1, 0]), 3) == [
        [],
        [(4, 3.0), (5, 3.0), (6, 5.0), (7, 5.0)],
    ]


@given(st.integers(0, 100_000), st.integers(1, 1000), st.integers(1, 3000))
def test_pieces_cover_the_tail_once_and_are_not_too_many(jobs: int, placed: int, kinds: int) -> None:
    found = list(pieces(jobs, placed, kinds))
    assert [begin for begin, _ in found] == [0, *(end for _, end in found[:-1])][: len(found)]
    assert (found[-1][1] if found else 0) == jobs
    assert len(found) <= 122  # as many as make 1.1 grow to 100,000


SECONDS = st.dictionaries(st.sampled_from("abcd"), st.floats(0.5, 1000), max_size=4)


@given(
    st.lists(st.integers(0, 2), max_size=60),
    st.dictionaries(st.sampled_from("abcd"), st.floats(0, 500)),
    st.lists(SECONDS, min_size=3, max_size=3),
)
def test_every_kind_with_a_card_has_times_that_never_fall(
    tail: list[int], free: Seconds, seconds: list[Seconds]
) -> None:
    found = curves(free, seconds, np.array(tail, dtype=np.int64), 4)
    for of_kind, knots in zip(seconds, found, strict=True):
        assert bool(knots) == bool(of_kind.keys() & free.keys())
        assert knots == sorted(knots)
        assert [at for _, at in knots] == sorted(at for _, at in knots)
        if knots:
            assert (knots[0][0], knots[-1][0]) == (5, 5 + len(tail))
