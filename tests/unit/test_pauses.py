"""A paused card's way back, report by report."""

from dataclasses import replace

import pytest

from farm.model import CardKind
from farm.wire import CardReport
from scheduler.pauses import PROBE_AFTER_S, Pauses

SAID = CardReport("GPU-1", CardKind.CUDA, "GTX 1080")


def hear(pauses: Pauses, now: float, said: CardReport = SAID, **more: bool) -> str | None:
    facts = {"held": False, "doubted": False, **more}
    return pauses.hear(said, held=facts["held"], doubted=facts["doubted"], now=now)


def test_after_a_while_a_fresh_worker_tests_it_once_and_then_it_is_back() -> None:
    pauses = Pauses()
    pauses.pause("GPU-1", "Three jobs failed.", 100.0)
    assert pauses.about("GPU-1") == "Three jobs failed."
    assert hear(pauses, 99.9 + PROBE_AFTER_S) is None
    assert hear(pauses, 100.0 + PROBE_AFTER_S) == "probe"
    assert hear(pauses, 101.0 + PROBE_AFTER_S, doubted=True) is None, "the fresh worker was not heard yet"
    assert hear(pauses, 102.0 + PROBE_AFTER_S) == "back"
    pauses.end("GPU-1")
    assert (pauses.about("GPU-1"), hear(pauses, 999.0)) == (None, None)


@pytest.mark.parametrize(
    "change", [{"answers": False}, {"tested": False}, {"trouble": "it computes wrongly"}]
)
def test_it_is_not_back_before_it_has_passed(change: dict[str, object]) -> None:
    pauses = Pauses()
    pauses.pause("GPU-1", "Three jobs failed.", 0.0)
    hear(pauses, PROBE_AFTER_S)
    assert hear(pauses, 1e6, replace(SAID, **change)) is None  # type: ignore[arg-type]  # names of fields
    assert hear(pauses, 1e6) == "back"


def test_an_attempt_that_it_is_still_at_may_end_first() -> None:
    pauses = Pauses()
    pauses.pause("GPU-1", "Three jobs failed.", 0.0)
    assert hear(pauses, 1e6, held=True) is None
    assert hear(pauses, 1e6) == "probe"


def test_a_second_reason_does_not_begin_the_wait_anew() -> None:
    pauses = Pauses()
    pauses.pause("GPU-1", "Three jobs failed.", 0.0)
    pauses.pause("GPU-1", "Four jobs failed.", PROBE_AFTER_S - 1)
    assert pauses.about("GPU-1") == "Three jobs failed."
    assert hear(pauses, PROBE_AFTER_S) == "probe"
    assert pauses.about("GPU-2") is None
