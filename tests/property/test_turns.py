"""When a free card takes a job although others are faster, counted job by job; and what a stream of urgent work can hold up."""

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from farm.model import Card, CardKind, Job, JobStatus, MemoryPlan, Tier
from farm.planning.eligibility import Verdict
from farm.planning.precedence import AGEING_S
from scheduler.policy import Policy
from tests.storage import SETTINGS

NOW = 1000.0
CARD = Card("", "n1", CardKind.CUDA, "card", band=Tier.PREVIEW)
JOB = Job("", JobStatus.QUEUED, SETTINGS, Tier.PREVIEW, "ab", NOW)


@given(
    own=st.integers(10, 400),
    others=st.lists(st.tuples(st.integers(5, 100), st.none() | st.integers(0, 300)), max_size=4),
    waiting=st.integers(1, 40),
)
@example(own=81, others=[(5, 0), (5, 87)], waiting=16)
@example(own=81, others=[(5, 0), (6, 81)], waiting=16)
def test_a_free_card_takes_the_first_job_that_the_others_would_not_finish_sooner(
    own: int, others: list[tuple[int, int | None]], waiting: int
) -> None:
    """`others` are busy cards: seconds of a job, and when they are free; None if nobody knows. All whole seconds, counted one by one.

    So many alike as make a batch too, which goes by a linear program that has cards alike as one. With 16 for a card of 81 s it took one,
    done a second after the others were: two of 5 s, free now and in 87, counted as free in between; and one of 6 s, free in 81, held up the
    end of all although nobody needed it.
    """
    speeds = {"own": own, **{f"other{index}": seconds for index, (seconds, _) in enumerate(others)}}
    policy = Policy(lambda _job, card: Verdict(True, (), MemoryPlan(), float(speeds[card.id])))
    policy.set_card(replace(CARD, id="own"), free=True)
    sooner = 0
    for index, (seconds, until) in enumerate(others):
        ends = None if until is None else NOW + until
        policy.set_card(replace(CARD, id=f"other{index}"), free=False, busy_until=ends)
        done = own if until is None else until + seconds
        while done < own:
            sooner += 1
            done += seconds
    for number in range(waiting):
        policy.add_job(replace(JOB, id=f"J{number:02}"), number)
    expected = [f"J{sooner:02}"] if sooner < waiting else []
    assert [pick.job.id for pick in policy.decide(NOW)] == expected


@given(
    priority=st.integers(0, 5),
    stream=st.lists(
        st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from([1, 2, 9])), min_size=1, max_size=5
    ),
    seconds=st.integers(20, 900),
    batch=st.booleans(),
)
def test_a_job_waits_no_longer_than_its_lag_in_priority_allows(
    priority: int, stream: list[tuple[int, bool, int]], seconds: int, batch: bool
) -> None:
    """One card, and for ever more urgent, shorter or other people's work than it can do: the wait is bounded all the same.

    After an hour for each step of priority that it lacks, and one more, only those go first that have waited as long; they come from as
    many lanes as the stream has, and each falls back once it was served.
    """
    policy = Policy(lambda job, _card: Verdict(True, (), MemoryPlan(), float(seconds * job.settings.steps)))
    longest = seconds * max(9, *(steps for _, _, steps in stream))
    policy.add_job(replace(JOB, id="plain", settings=replace(SETTINGS, steps=9)), 0, "b" if batch else None)
    lag = max(0, priority + max(more for more, _, _ in stream))
    bound = (lag + 1) * AGEING_S + (len(stream) + 2) * longest
    now, seq = NOW, 1
    while now - NOW <= bound:
        for index, (more, other, steps) in enumerate(stream):
            urgent = replace(
                JOB,
                id=f"S{seq}",
                priority=priority + more,
                created_at=now,
                submitted_by=f"user{index}" if other else "",
                settings=replace(SETTINGS, steps=steps),
            )
            policy.add_job(urgent, seq)
            seq += 1
        policy.set_card(replace(CARD, id="c"), free=True)
        (pick,) = policy.decide(now)
        if pick.job.id == "plain":
            return
        now += pick.seconds
    raise AssertionError(f"still waiting after {now - NOW:.0f} s")
