"""Which card gets which job, and what becomes of a job that failed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.model import Attempt, AttemptStatus, Card, CardKind, FailureClass, Job, JobStatus, MemoryPlan, Tier
from farm.planning.eligibility import Verdict
from farm.states import JobMove
from scheduler.leases import SILENT_AFTER_S, Leases
from scheduler.outcomes import after_failure, after_loss
from scheduler.policy import Policy
from tests.storage import SETTINGS

NOW = 1.0


def job(name: str, **changes: object) -> Job:
    base = Job(name, JobStatus.QUEUED, SETTINGS, Tier.PREVIEW, "ab", 1.0)
    return replace(base, **changes)  # type: ignore[arg-type]  # names of fields


def card(name: str) -> Card:
    return Card(name, "n1", CardKind.CPU, name, models=frozenset({"animatic"}))


def judge(speeds: dict[str, float]) -> Policy:
    """A policy whose cards take any job in these seconds; a card without a speed takes none."""

    def ask(_job: Job, card: Card) -> Verdict:
        seconds = speeds.get(card.id)
        return Verdict(seconds is not None, () if seconds else ("no",), MemoryPlan(), seconds or 0.0)

    return Policy(ask)


def picks(policy: Policy) -> list[tuple[str, str]]:
    return [(pick.job.id, pick.card.id) for pick in policy.decide(NOW)]


def test_the_first_in_the_queue_gets_the_fastest_card() -> None:
    policy = judge({"slow": 9.0, "fast": 1.0})
    for name in ("slow", "fast", "unfit"):
        policy.set_card(card(name), free=True)
    for seq in range(12):
        policy.add_job(job(f"J{seq}"), seq)
    assert picks(policy) == [("J0", "fast"), ("J8", "slow")]
    assert picks(policy) == []
    policy.set_card(card("slow"), free=True)
    assert picks(policy) == [("J9", "slow")], (
        "eight more would be done on the fast card before the slow one has done one"
    )


def test_priority_goes_before_age_and_can_change() -> None:
    policy = judge({"c": 1.0})
    policy.add_job(job("J1"), 1)
    policy.add_job(job("J2", priority=5), 2)
    policy.add_job(job("J3"), 3)
    policy.change_priority("J3", 9)
    order = []
    for _ in range(3):
        policy.set_card(card("c"), free=True)
        order += [name for name, _ in picks(policy)]
    assert order == ["J3", "J2", "J1"]


def test_a_job_of_lowered_priority_goes_behind() -> None:
    """The job's former, better place stayed in the queue and still counted: lowering a priority changed nothing."""
    policy = judge({"c": 1.0})
    policy.add_job(job("J1", priority=3), 1)
    policy.add_job(job("J2"), 2)
    policy.change_priority("J1", -3)
    policy.set_card(card("c"), free=True)
    assert picks(policy) == [("J2", "c")]


def test_kinds_of_jobs_that_are_gone_leave_nothing_behind() -> None:
    """Each combination of settings that ever came was kept, and looked at in every decision, until the scheduler was restarted."""
    policy = judge({"c": 1.0})
    for seq in range(300):
        settings = replace(SETTINGS, guidance=float(seq))
        policy.add_job(job(f"J{seq}", settings=settings), seq)
        if seq % 2:
            policy.remove_job(f"J{seq}")
        policy.set_card(card("c"), free=True)
        policy.decide(NOW)
    policy.set_card(card("c"), free=True)
    assert picks(policy) == []
    assert policy.waiting == 0
    assert policy._scene.groups == {}
    policy.add_job(job("J1"), 1)
    assert picks(policy) == [("J1", "c")]


def test_cards_of_equal_speed_are_taken_in_the_order_of_their_names() -> None:
    policy = judge({"a": 1.0, "b": 1.0, "c": 1.0})
    for name in ("c", "a", "b"):
        policy.set_card(card(name), free=True)
        policy.add_job(job(f"J-{name}"), ord(name))
    assert picks(policy) == [("J-a", "a"), ("J-b", "b"), ("J-c", "c")]


def test_a_job_that_was_replaced_waits_once_and_as_it_is_now() -> None:
    policy = judge({"a": 1.0, "b": 1.0})
    policy.add_job(job("J1"), 1)
    policy.add_job(job("J1", settings=replace(SETTINGS, steps=9)), 1)
    assert policy.waiting == 1
    for name in ("a", "b"):
        policy.set_card(card(name), free=True)
    (pick,) = policy.decide(NOW)
    assert pick.job.settings.steps == 9


def test_a_card_that_changed_is_judged_anew() -> None:
    asked: list[str | None] = []

    def ask(_job: Job, on: Card) -> Verdict:
        asked.append(on.trouble)
        return Verdict(on.trouble is None, (), MemoryPlan(), 1.0)

    policy = Policy(ask)
    policy.add_job(job("J1"), 1)
    policy.set_card(replace(card("c"), trouble="hot"), free=True)
    assert (picks(policy), picks(policy)) == ([], [])
    assert asked == ["hot"], "the judge is asked once while nothing changes"
    policy.set_card(card("c"), free=True)
    assert picks(policy) == [("J1", "c")]


def test_the_store_is_told_once_what_it_knows() -> None:
    policy = judge({})
    policy.add_job(job("J1"), 1)
    policy.note_unplaceable({"J1": "no card", "J9": "unknown here"})
    found = policy.job("J1")
    assert found is not None
    assert found.unplaceable == "no card"
    assert [one.id for group in policy.groups for one in policy.jobs_of(group)] == ["J1"]
    assert policy.job("J9") is None


def test_a_job_keeps_away_from_a_card_it_failed_on_until_it_is_forgiven() -> None:
    policy = judge({"a": 1.0, "b": 5.0})
    policy.exclude("J1", "a")
    policy.add_job(job("J1"), 1)
    policy.set_card(card("a"), free=True)
    assert picks(policy) == []
    policy.set_card(card("b"), free=True)
    assert picks(policy) == [("J1", "b")]
    policy.forgive("J1")
    policy.add_job(job("J1"), 1)
    assert picks(policy) == [("J1", "a")]


def test_a_removed_job_and_a_removed_card_are_not_picked() -> None:
    policy = judge({"a": 1.0})
    policy.add_job(job("J1"), 1)
    policy.remove_job("J1")
    policy.set_card(card("a"), free=True)
    assert picks(policy) == []
    policy.add_job(job("J2"), 2)
    policy.remove_card("a")
    assert picks(policy) == []


@given(
    jobs=st.lists(st.tuples(st.integers(-3, 3), st.sampled_from(["animatic", "i2vgen-xl"])), max_size=12),
    cards=st.lists(
        st.sampled_from([frozenset({"animatic"}), frozenset({"animatic", "i2vgen-xl"})]), max_size=6
    ),
    removed=st.sets(st.integers(0, 11)),
)
def test_it_never_gives_what_the_judge_refuses_and_leaves_no_card_idle_that_could_work(
    jobs: list[tuple[int, str]], cards: list[frozenset[str]], removed: set[int]
) -> None:
    def ask(asked: Job, on: Card) -> Verdict:
        able = asked.settings.model in on.models
        return Verdict(able, () if able else ("not here",), MemoryPlan(), 1.0)

    policy = Policy(ask)
    waiting: dict[str, Job] = {}
    for seq, (priority, model) in enumerate(jobs):
        made = job(f"J{seq}", priority=priority, settings=replace(SETTINGS, model=model))
        policy.add_job(made, seq)
        waiting[made.id] = made
    for seq in removed:
        policy.remove_job(f"J{seq}")
        waiting.pop(f"J{seq}", None)
    idle = {f"C{index}": replace(card(f"C{index}"), models=models) for index, models in enumerate(cards)}
    for one in idle.values():
        policy.set_card(one, free=True)
    decided = policy.decide(NOW)
    for pick in decided:
        assert pick.job.settings.model in pick.card.models
        better = [
            other.id
            for other in waiting.values()
            if other.settings.model == pick.job.settings.model and other.priority > pick.job.priority
        ]
        assert not set(better) - {done.job.id for done in decided}, (
            "one of higher priority and like needs was passed over"
        )
        del waiting[pick.job.id]
        del idle[pick.card.id]
    assert not any(one.settings.model in other.models for one in waiting.values() for other in idle.values())
    assert policy.waiting == len(waiting)


def tried(status: AttemptStatus, card_id: str = "a", reason: str = "It broke.") -> Attempt:
    return Attempt("A", "J", 1, "n1", card_id, f"card {card_id}", status, 1.0, reason=reason)


@pytest.mark.parametrize(
    ("kind", "earlier", "others", "then", "avoid"),
    [
        (FailureClass.BAD_INPUT, [], 3, JobMove.GIVE_UP, False),
        (FailureClass.INTERNAL, [], 0, JobMove.REQUEUE, False),
        (FailureClass.INTERNAL, ["a"], 1, JobMove.REQUEUE, True),
        (FailureClass.INTERNAL, ["a"], 0, JobMove.GIVE_UP, False),
        (FailureClass.INTERNAL, ["b", "c"], 3, JobMove.GIVE_UP, False),
        (FailureClass.OUT_OF_MEMORY, [], 1, JobMove.REQUEUE, True),
        (FailureClass.OUT_OF_MEMORY, [], 0, JobMove.GIVE_UP, False),
        (FailureClass.MISSING_WEIGHTS, [], 2, JobMove.REQUEUE, True),
        (FailureClass.MISSING_WEIGHTS, [], 0, JobMove.GIVE_UP, False),
        (FailureClass.CARD_FAULT, [], 1, JobMove.REQUEUE, True),
    ],
)
def test_what_follows_a_failure(
    kind: FailureClass, earlier: list[str], others: int, then: JobMove, avoid: bool
) -> None:
    before = [tried(AttemptStatus.FAILED, name) for name in earlier]
    outcome = after_failure(tried(AttemptStatus.FAILED), kind, "It broke.", before, others)
    assert (outcome.then, outcome.avoid_card) == (then, avoid)


def test_giving_up_after_three_failures_names_each() -> None:
    before = [tried(AttemptStatus.FAILED, "b", "Too hot."), tried(AttemptStatus.FAILED, "c", "Too cold.")]
    outcome = after_failure(tried(AttemptStatus.FAILED), FailureClass.INTERNAL, "Too old.", before, 3)
    assert outcome.verdict == "card b: Too hot.; card c: Too cold.; card a: Too old."


def test_losses_are_forgiven_four_times() -> None:
    assert after_loss("gone", [tried(AttemptStatus.LOST)] * 3).then == JobMove.REQUEUE
    assert after_loss("gone", [tried(AttemptStatus.LOST)] * 4).then == JobMove.GIVE_UP


def test_a_lease_runs_from_the_last_word_and_silence_counts_from_the_last_answer() -> None:
    leases = Leases(30.0)
    leases.hold("A1", 100.0)
    assert leases.expired(130.0) == []
    assert leases.expired(130.1) == ["A1"]
    leases.hold("A1", 125.0)
    assert leases.expired(150.0) == []
    leases.end("A1")
    assert leases.expired(999.0) == []
    assert leases.silence("n1", 5.0) is None
    assert not leases.answering("n1", 5.0)
    leases.heard("n1", 5.0)
    assert leases.answering("n1", 5.0 + SILENT_AFTER_S)
    assert not leases.answering("n1", 5.1 + SILENT_AFTER_S)
