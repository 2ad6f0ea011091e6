"""The order of the whole queue, sorted at once, against one job taken after the other."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from farm.model import Card, CardKind, Job, JobStatus, MemoryPlan, Tier
from farm.planning.eligibility import Verdict
from scheduler.lanes import Lane, rank
from scheduler.order import in_order
from scheduler.policy import Policy
from scheduler.shares import Shares
from tests.storage import SETTINGS

NOW = 100_000.0
JOBS = st.builds(
    Job,
    st.just(""),
    st.just(JobStatus.QUEUED),
    st.sampled_from([replace(SETTINGS, steps=steps) for steps in (10, 30, 31, 80)]),
    st.sampled_from(Tier),
    st.just("ab"),
    st.floats(NOW - 40_000, NOW),
    priority=st.integers(-1, 2),
    submitted_by=st.sampled_from(["ann", "bob", "cat"]),
)


def one_by_one(policy: Policy) -> list[str]:
    """What goes first, again and again, each charged to its user: by the ranks of all lanes, every time."""
    scene = policy._scene
    shares = Shares(dict(scene.shares.accounts))
    for group in scene.groups.values():
        scene.offers(group)
    lanes = [lane for group in scene.groups.values() for lane in group.lanes.values()]
    taken: Counter[Lane] = Counter()
    found = []
    while left := [lane for lane in lanes if taken[lane] < len(lane.jobs)]:
        first = min(left, key=lambda lane: rank(lane, shares, NOW, taken[lane]))
        found.append(first.jobs[taken[first]][1])
        taken[first] += 1
        shares.charge(first.user, first.tier, first.group.nominal_s)
    return found


@given(
    st.lists(st.tuples(JOBS, st.sampled_from([None, "b1", "b2"]), st.booleans()), max_size=60),
    st.lists(st.floats(0.01, 9.0), max_size=3),
    st.dictionaries(st.sampled_from(["ann", "bob", "cat"]), st.floats(0, 5000)),
)
def test_sorting_all_at_once_is_taking_one_after_the_other(
    jobs: list[tuple[Job, str | None, bool]], speeds: list[float], accounts: dict[str, float]
) -> None:
    """Also with no card at all, when no job has a length and users are told apart by nothing."""
    policy = Policy(
        lambda job, card: Verdict(True, (), MemoryPlan(), speeds[int(card.id)] * job.settings.steps)
    )
    for number in range(len(speeds)):
        policy.set_card(Card(str(number), "n1", CardKind.CUDA, "card"), free=False)
    policy._scene.shares.accounts = dict(accounts)
    for seq, (job, batch, shunned) in enumerate(jobs):
        if shunned:
            policy.exclude(f"J{seq}", "0")
        policy.add_job(replace(job, id=f"J{seq}"), seq, batch)
    order = in_order(policy.queue(NOW))
    assert [job_id for _, job_id in order.jobs] == one_by_one(policy)
    kinds = policy.queue(NOW).kinds
    for (seq, job_id), kind in zip(order.jobs, order.kinds.tolist(), strict=True):
        assert job_id == f"J{seq}"
        assert kinds[kind].sample.settings == jobs[seq][0].settings
        assert kinds[kind].excluded == (frozenset({"0"}) if jobs[seq][2] else frozenset())
