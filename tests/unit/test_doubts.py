"""When a card gets no work because of its worker. How the watch acts on it is in `test_watch.py`; here what holds in any order."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.model import CardKind
from farm.wire import CardReport
from node_agent import apart, selftest, tryout
from scheduler.doubts import ANSWER_LEASES, ENDED, STOP_LEASES, TEST_S, TESTING, Doubts, Remedy

LEASE_S = 30.0
AT = st.sampled_from([None, "ours", "stray", "other"])
HAPPENS = st.one_of(
    st.just("doubt"),
    st.tuples(st.booleans(), AT, st.booleans(), st.floats(0, 200)),
)


def said(answers: bool, attempt_id: str | None) -> CardReport:
    return CardReport(
        "C", CardKind.CPU, "a card", answers=answers, attempt_id=attempt_id if answers else None
    )


def hear(doubts: Doubts, report: CardReport, now: float, *, held: bool = False) -> Remedy | None:
    return doubts.hear(report, standing=doubts.standing(), attended={"ours"}, held=held, now=now)


@given(st.lists(HAPPENS, max_size=20))
def test_only_a_worker_that_is_idle_or_at_an_attended_attempt_is_beyond_doubt(
    happens: list[str | tuple[bool, str | None, bool, float]],
) -> None:
    doubts, now = Doubts(lambda: LEASE_S), 0.0
    for what in happens:
        if isinstance(what, str):
            doubts.add("C", ENDED)
            assert doubts.about("C") is not None
            continue
        answers, attempt, held, pause = what
        now += pause
        before = doubts.about("C")
        remedy = hear(doubts, said(answers, attempt), now, held=held)
        stray = answers and attempt in ("stray", "other")
        if answers and not stray:
            assert (doubts.about("C"), remedy) == (None, None)
        elif stray:
            assert doubts.about("C") is not None
            assert remedy in (Remedy("C", "stop", str(attempt)), Remedy("C", "replace"))
        else:
            assert (doubts.about("C") is not None) == (not held or before is not None)
            assert remedy in (None, Remedy("C", "replace"))


def test_each_trouble_has_its_grace_and_a_new_worker_has_one_of_its_own() -> None:
    for report, leases in ((said(True, "stray"), STOP_LEASES), (said(False, None), ANSWER_LEASES)):
        doubts = Doubts(lambda: LEASE_S)
        doubts.add("C", ENDED)  # no grace runs before the node itself reports the trouble
        found = [
            hear(doubts, report, now) for now in (1e6, 1e6 + leases * LEASE_S, 1e6 + leases * LEASE_S + 1)
        ]
        assert [one is not None and one.what == "replace" for one in found] == [False, False, True]
        again = hear(doubts, report, 1e6 + leases * LEASE_S + 2)
        assert again is None or again.what == "stop"


def test_a_report_takes_away_only_doubts_that_it_was_asked_after() -> None:
    doubts = Doubts(lambda: LEASE_S)
    asked = doubts.standing()
    doubts.add("C", ENDED)
    doubts.hear(said(True, None), standing=asked, attended=(), held=False, now=1.0)
    assert doubts.about("C") is not None
    doubts.hear(said(True, None), standing=doubts.standing(), attended=(), held=False, now=2.0)
    assert doubts.about("C") is None


def test_a_worker_that_has_not_tested_its_card_yet_is_doubted_and_one_that_never_ends_the_test_is_replaced() -> (
    None
):
    """A first computation that hangs, as on a card with a broken power cable, must not leave the card "starting" for ever."""
    doubts, testing = Doubts(lambda: LEASE_S), replace(said(True, None), tested=False)
    assert hear(doubts, testing, 0.0) is None
    doubt = doubts.about("C")
    assert doubt is not None
    assert doubt.why == TESTING
    grace_s = ANSWER_LEASES * LEASE_S + TEST_S
    assert hear(doubts, testing, grace_s) is None
    assert hear(doubts, testing, grace_s + 1) == Remedy("C", "replace")
    assert hear(doubts, said(True, None), grace_s + 2) is None
    assert doubts.about("C") is None


@pytest.mark.parametrize("lease_s", [10.0, LEASE_S])
def test_a_worker_that_started_slowly_may_end_the_test_of_its_card(lease_s: float) -> None:
    """It was replaced before the test's own limit, and so were its successors: a card whose driver hangs was "starting" for ever."""
    doubts, silent_s = Doubts(lambda: lease_s), ANSWER_LEASES * lease_s
    longest_s = max(selftest.LIMIT_S, tryout.LIMIT_S) + apart.END_S
    assert hear(doubts, said(False, None), 0.0) is None
    assert hear(doubts, said(False, None), silent_s) is None
    assert hear(doubts, replace(said(True, None), tested=False), silent_s + longest_s) is None
    assert hear(doubts, replace(said(True, None), trouble="It hangs."), silent_s + longest_s + 1) is None
    assert doubts.about("C") is None
