"""How long a worker may say nothing: complaint 12 as a table, without a scheduler."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm import events
from farm.events import Event
from farm.model import MemoryPlan
from scheduler.stalls import GRACE_S, LEAST_S, STEPS, WHOLE_S, Progress


def step(done: int, pace: float | None = None, total: int = 50) -> Event:
    return events.Step("A1", done, 0.0, done, total, pace)


RENDERING = events.Rendering("A1", 1, 0.0)
RETRYING = events.Retrying("A1", 9, 0.0, MemoryPlan(), "It ran out.")


@dataclass
class Case:
    """What a worker said, and how long it may then say nothing."""

    predicted_s: float | None
    said: list[Event]
    patience_s: float
    grace_s: float = GRACE_S


@pytest.mark.parametrize(
    "case",
    [
        Case(None, [], WHOLE_S),
        Case(100.0, [RENDERING], WHOLE_S),
        Case(5000.0, [RENDERING], 5000.0, 200.0),  # a slow card's encoding of prompt and picture too
        Case(None, [RENDERING, step(1)], WHOLE_S),  # nothing is known of a step yet
        Case(100.0, [RENDERING, step(1)], LEAST_S),  # 2 s a step as predicted
        Case(
            100.0, [RENDERING, step(1, 30.0)], STEPS * 30.0, 60.0
        ),  # what is seen outweighs what was predicted
        Case(None, [step(1, 30.0), step(2, 10.0)], STEPS * 30.0, 60.0),  # the slowest step so far
        Case(None, [step(1, 2.0)], LEAST_S),
        Case(1000.0, [step(1, total=100)], STEPS * 10.0),  # not those of the settings: a draft counts frames
        Case(None, [step(50, 2.0)], WHOLE_S),  # after the last step a small card decodes for minutes
        Case(None, [step(50, 200.0)], STEPS * 200.0, 400.0),
        Case(None, [step(20, 2.0), RETRYING], WHOLE_S),  # the model loads again
        Case(None, [step(20, None)], WHOLE_S),  # the first word after a checkpoint
    ],
    ids=str,
)
def test_patience_comes_from_the_job_s_own_steps(case: Case) -> None:
    progress = Progress(case.predicted_s, 50)
    for event in case.said:
        progress.hear(event, 10.0)
    assert progress.patience_s == case.patience_s
    assert progress.grace_s == case.grace_s


def test_what_a_stall_says() -> None:
    progress = Progress(None, 50)
    progress.hear(step(4, 2.5), 0.0)
    assert progress.why(LEAST_S) is None
    assert progress.why(LEAST_S + 1) == "No progress for 121 s, where a step takes about 2.5 s."
    progress.hear(step(50, 2.5), 0.0)
    assert progress.why(WHOLE_S + 1) == "No progress for 15 min, outside of its steps."


def test_only_time_in_which_the_node_answered_counts() -> None:
    """A PC that was cut off for an hour and comes back has not stood still: a lease judges it."""
    progress = Progress(None, 50)
    progress.hear(step(4, 2.5), 0.0)
    progress.quiet(100.0)
    progress.unheard()
    assert progress.why(4000.0) is None
    progress.quiet(4000.0)
    assert progress.why(4000.0 + LEAST_S) is None
    assert progress.why(4001.0 + LEAST_S) is not None


@given(
    st.floats(0.01, 1000),
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=40),
    st.none() | st.floats(1, 1e5),
)
def test_a_render_whose_steps_keep_their_pace_is_never_called_still(
    slowest: float, shares: list[float], predicted: float | None
) -> None:
    progress, now = Progress(predicted, 50), 0.0
    progress.hear(step(1, slowest), now)
    for number, share in enumerate(shares, start=2):
        now += slowest * share * (STEPS - 1)
        assert progress.why(now) is None
        progress.hear(step(number, slowest * share), now)
