"""The queue played forward: who is done when, by value and against a plain simulation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.planning.queue import Pace, Place, Waiting, forecast
from farm.planning.spans import Span, Z


def seconds(**cards: float) -> dict[str, Pace]:
    return {card: Pace(one) for card, one in cards.items()}


def jobs(*kinds: str) -> list[Waiting[str]]:
    return [Waiting(f"j{number}", kind) for number, kind in enumerate(kinds, start=1)]


def likely(places: tuple[Place, ...]) -> list[tuple[str | None, float | None]]:
    return [(place.card_id, place.done.likely if place.done else None) for place in places]


def test_each_job_goes_where_it_is_done_first() -> None:
    found = forecast(jobs("a", "a", "a", "a"), seconds(fast=0, slow=0), {"a": seconds(fast=10, slow=25)})
    assert likely(found.places) == [("fast", 10), ("fast", 20), ("slow", 25), ("fast", 30)]
    assert [place.position for place in found.places] == [1, 2, 3, 4]


def test_a_job_waits_for_the_fast_card_rather_than_take_a_slow_one() -> None:
    """Fast card idles while equal shares go to a slow one (SwarmUI#247): not even the last clip goes there."""
    found = forecast(jobs("a"), seconds(fast=60, slow=0), {"a": seconds(fast=30, slow=400)})
    assert likely(found.places) == [("fast", 90)]


def test_cards_that_a_kind_cannot_use_do_not_help_it_and_others_go_by() -> None:
    paces = {"big": seconds(big=100), "small": seconds(big=50, small=80)}
    found = forecast(jobs("big", "big", "small", "small"), seconds(big=0, small=0), paces)
    assert likely(found.places) == [("big", 100), ("big", 200), ("small", 80), ("small", 160)]


def test_a_job_without_a_card_keeps_its_place_and_has_no_time() -> None:
    found = forecast(jobs("none", "a"), seconds(one=5), {"a": seconds(one=10, gone=1)})
    assert likely(found.places) == [(None, None), ("one", 15)]
    assert [place.position for place in found.places] == [1, 2]
    assert forecast(jobs("a"), {}, {"a": seconds(gone=1)}).places == (Place("j1", 1),)


def test_what_a_card_is_off_adds_up_and_what_renders_are_off_evens_out() -> None:
    of_card, of_render = ({"a": {"one": Pace(100, **off)}} for off in ({"of_card": 0.3}, {"of_render": 0.3}))
    queue = jobs(*"aaaaaaaaa")
    for paces, off in ((of_card, 0.3), (of_render, 0.1)):
        last = forecast(queue, {"one": Pace(0.0)}, paces).places[-1].done
        assert last == Span(
            pytest.approx(900 * math.exp(-Z * off)),
            pytest.approx(900),
            pytest.approx(900 * math.exp(Z * off)),
        )


def test_it_says_when_each_card_has_done_all_of_them() -> None:
    found = forecast(jobs("a", "a"), seconds(fast=3, slow=7, other=1), {"a": seconds(fast=10, slow=25)})
    assert found.free == {"fast": 23, "slow": 7, "other": 1}


def plainly(
    queue: list[Waiting[str]], busy: dict[str, Pace], paces: dict[str, dict[str, Pace]]
) -> list[float | None]:
    """The same without heaps: every card is looked at for every job."""
    free = {card: left.seconds for card, left in busy.items()}
    found: list[float | None] = []
    for job in queue:
        ends = {
            card: free[card] + pace.seconds for card, pace in paces.get(job.kind, {}).items() if card in free
        }
        if not ends:
            found.append(None)
            continue
        best = min(ends, key=lambda card: (ends[card], card))
        free[best] = ends[best]
        found.append(ends[best])
    return found


CARDS = st.sampled_from(["a", "b", "c", "d"])
PACES = st.builds(Pace, st.floats(0.5, 1000), st.floats(0, 1), st.floats(0, 1))
KINDS = st.sampled_from(["x", "y", "z"])


@given(
    st.lists(KINDS, max_size=40),
    st.dictionaries(CARDS, st.builds(Pace, st.floats(0, 500), st.floats(0, 1), st.floats(0, 1))),
    st.dictionaries(KINDS, st.dictionaries(CARDS, PACES)),
)
def test_every_job_has_its_place_and_the_time_of_a_plain_simulation(
    kinds: list[str], busy: dict[str, Pace], paces: dict[str, dict[str, Pace]]
) -> None:
    queue = jobs(*kinds)
    found = forecast(queue, busy, paces)
    assert [(place.id, place.position) for place in found.places] == [
        (job.id, position) for position, job in enumerate(queue, start=1)
    ]
    times = [place.done.likely if place.done else None for place in found.places]
    assert times == plainly(queue, busy, paces)
    for place in found.places:
        if place.done is not None:
            assert 0 < place.done.low <= place.done.likely <= place.done.high
            assert place.card_id in paces[str(kinds[place.position - 1])]
