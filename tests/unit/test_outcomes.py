"""The whole truth table of what follows a failed or a lost attempt; `test_policy.py` has the telling cases."""

from dataclasses import replace
from itertools import product

import pytest

from farm.model import Attempt, AttemptStatus, FailureClass
from farm.states import JobMove
from scheduler.outcomes import (
    MAX_CARDS,
    MAX_DISTURBED,
    MAX_LOST,
    REST_S,
    RULES,
    Outcome,
    after_failure,
    after_loss,
    ran_out,
    resting,
    shunned,
    why_to_pause,
)

HERE = "here"


def tried(card: str, status: AttemptStatus = AttemptStatus.FAILED, reason: str = "It broke.") -> Attempt:
    return Attempt("A", "J", 1, "n1", card, f"the {card} card", status, 1.0, reason=reason)


TRIES_ON_A_CARD = {
    FailureClass.BAD_INPUT: 0,
    FailureClass.OUT_OF_MEMORY: 1,
    FailureClass.MISSING_WEIGHTS: 1,
    FailureClass.CARD_FAULT: 1,
    FailureClass.STALLED: 2,
    FailureClass.INTERNAL: 2,
    FailureClass.NODE_LOST: 2,
}


def expected(kind: FailureClass, earlier: list[str], others: int) -> tuple[JobMove, bool]:
    """Bad input ends it at once, and so does the third card; what may pass gets a second try on the card; else another card, if any."""
    if TRIES_ON_A_CARD[kind] == 0 or len({*earlier, HERE}) == 3:
        return JobMove.GIVE_UP, False
    if earlier.count(HERE) + 1 < TRIES_ON_A_CARD[kind]:
        return JobMove.REQUEUE, False
    return (JobMove.REQUEUE, True) if others else (JobMove.GIVE_UP, False)


@pytest.mark.parametrize("kind", list(FailureClass))
def test_the_table_of_failures(kind: FailureClass) -> None:
    """Complaint 5: a doomed job came back to the same card again and again (sheepit-client#90)."""
    histories: list[list[str]] = [
        [], [HERE], ["there"], [HERE, "there"], ["there", "there"], ["there", "yonder"], ["there", "there", HERE],
    ]  # fmt: skip
    for earlier, others in product(histories, (0, 1, 3)):
        outcome = after_failure(tried(HERE), kind, "Now.", [tried(name) for name in earlier], others)
        assert (outcome.then, outcome.avoid_card) == expected(kind, earlier, others), (earlier, others)
        assert outcome.rest_s is None
        assert "Now." in outcome.verdict


@pytest.mark.parametrize("kind", sorted(set(FailureClass) - {FailureClass.BAD_INPUT}))
def test_giving_up_after_three_failures_tells_all_cards_and_reasons(kind: FailureClass) -> None:
    """The third card's name was missing."""
    earlier = [tried("first", reason="Too hot."), tried("second", reason="Too cold.")]
    outcome = after_failure(tried("third"), kind, "Too old.", earlier, 7)
    assert outcome == Outcome(
        JobMove.GIVE_UP,
        avoid_card=False,
        verdict="the first card: Too hot.; the second card: Too cold.; the third card: Too old.",
        anew=kind is FailureClass.CARD_FAULT,
    )


def test_a_job_given_up_for_want_of_another_card_tells_of_all_it_was_on() -> None:
    first = tried("first", reason="Too hot.")
    assert after_failure(tried("second"), FailureClass.OUT_OF_MEMORY, "Too small.", [first], 0) == Outcome(
        JobMove.GIVE_UP,
        avoid_card=False,
        verdict="the first card: Too hot.; the second card: Too small.",
    )
    assert after_failure(tried("first"), FailureClass.OUT_OF_MEMORY, "Too small.", [], 0) == Outcome(
        JobMove.GIVE_UP, avoid_card=False, verdict="Too small."
    )


@pytest.mark.parametrize("kind", sorted(set(FailureClass) - {FailureClass.BAD_INPUT}))
def test_a_job_that_ran_out_goes_to_larger_cards_while_there_are_any(kind: FailureClass) -> None:
    """After three small cards it was given up, although a large one could have taken it."""
    before = [replace(tried(name), failure_class=kind) for name in ("first", "second")]
    outcome = after_failure(tried("third"), kind, "Now.", before, 2, larger_cards=1)
    ran_out_here = kind is FailureClass.OUT_OF_MEMORY
    assert (outcome.then is JobMove.REQUEUE, outcome.avoid_card, outcome.and_no_larger) == (ran_out_here,) * 3
    assert ran_out(before) == (frozenset({"first", "second"}) if ran_out_here else frozenset())
    disturbed = [replace(one, disturbed=True) for one in before]
    assert ran_out(disturbed) == frozenset()


@pytest.mark.parametrize(
    ("history", "cards"),
    [
        ([], set()),
        ([("a", FailureClass.INTERNAL)], set()),
        ([("a", FailureClass.INTERNAL), ("b", FailureClass.INTERNAL)], set()),
        ([("a", FailureClass.INTERNAL), ("a", FailureClass.INTERNAL)], {"a"}),
        ([("a", FailureClass.OUT_OF_MEMORY), ("b", FailureClass.MISSING_WEIGHTS)], {"a", "b"}),
        ([("a", FailureClass.NODE_LOST)], set()),
    ],
)
def test_the_cards_a_job_shuns_can_be_read_from_its_attempts(
    history: list[tuple[str, FailureClass]], cards: set[str]
) -> None:
    tries = [
        replace(
            tried(card, AttemptStatus.LOST if kind is FailureClass.NODE_LOST else AttemptStatus.FAILED),
            failure_class=kind,
        )
        for card, kind in history
    ]
    assert shunned(tries) == cards


@pytest.mark.parametrize("kind", list(FailureClass))
def test_what_is_read_from_the_attempts_is_what_was_decided(kind: FailureClass) -> None:
    """A restarted scheduler must send a job neither to more cards nor to fewer than the one before."""
    histories: list[list[str]] = [[], [HERE], ["there"]]
    for earlier in histories:
        before = [replace(tried(name), failure_class=kind) for name in earlier]
        decided = after_failure(tried(HERE), kind, "Now.", before, 3)
        if decided.then is JobMove.REQUEUE:
            now = replace(tried(HERE), failure_class=kind)
            assert (HERE in shunned([*before, now])) == decided.avoid_card


@pytest.mark.parametrize("kind", list(FailureClass))
@pytest.mark.parametrize("resumed_step", [None, 20])
def test_a_checkpoint_is_trusted_unless_the_card_or_the_checkpoint_may_be_at_fault(
    kind: FailureClass, resumed_step: int | None
) -> None:
    attempt = replace(tried(HERE), resumed_step=resumed_step)
    anew = kind is FailureClass.CARD_FAULT or (kind is FailureClass.INTERNAL and resumed_step is not None)
    assert after_failure(attempt, kind, "Now.", [], 3).anew == anew
    assert not after_loss("The PC is gone.", []).anew


@pytest.mark.parametrize("others", [0, 3])
@pytest.mark.parametrize("times", range(MAX_DISTURBED + 1))
def test_memory_that_another_program_held_keeps_a_job_away_for_a_while_and_not_for_ever(
    times: int, others: int
) -> None:
    """Complaint 5: it counted as a failure of the card, for good."""
    kind = FailureClass.OUT_OF_MEMORY
    before = [
        replace(tried(HERE), failure_class=kind, disturbed=True, finished_at=100.0 + number)
        for number in range(times)
    ]
    outcome = after_failure(tried(HERE), kind, "A game held it.", before, others, disturbed=True)
    if times + 1 < MAX_DISTURBED:
        assert (outcome.then, outcome.avoid_card, outcome.rest_s) == (JobMove.REQUEUE, True, REST_S)
    else:
        assert outcome.then is JobMove.GIVE_UP
    assert shunned(before) == frozenset()
    if before:
        last = 100.0 + times - 1
        assert resting(before, last + 1.0) == {HERE: REST_S - 1.0}
        assert resting(before, last + REST_S) == {}
    fresh = after_failure(tried(HERE), kind, "Too small.", before, 3)
    assert (fresh.then, fresh.avoid_card, fresh.rest_s) == (JobMove.REQUEUE, True, None)


def test_another_program_s_hand_in_a_fault_of_the_card_excuses_nothing() -> None:
    outcome = after_failure(tried(HERE), FailureClass.CARD_FAULT, "CUDA error.", [], 3, disturbed=True)
    assert (outcome.avoid_card, outcome.rest_s) == (True, None)
    spilled = replace(tried(HERE), failure_class=FailureClass.CARD_FAULT, disturbed=True, finished_at=1.0)
    assert (shunned([spilled]), resting([spilled], 2.0)) == ({HERE}, {})


BLAMED = {
    FailureClass.OUT_OF_MEMORY, FailureClass.CARD_FAULT, FailureClass.STALLED, FailureClass.INTERNAL,
}  # fmt: skip


def ended(job: str, status: AttemptStatus, kind: FailureClass | None = None, **more: object) -> Attempt:
    return replace(tried(HERE, status), job_id=job, failure_class=kind, **more)  # type: ignore[arg-type]  # fields


@pytest.mark.parametrize("kind", list(FailureClass))
def test_three_jobs_in_a_row_are_the_card_s_fault_for_the_classes_that_blame_it(kind: FailureClass) -> None:
    """Complaint 6. Newest first; losses, cancels and failures that say nothing of the card neither count nor clear it."""
    failed = [ended(f"J{number}", AttemptStatus.FAILED, kind) for number in range(3)]
    assert (why_to_pause(failed) is not None) == (kind in BLAMED)
    between = [ended("J8", AttemptStatus.LOST, FailureClass.NODE_LOST), ended("J9", AttemptStatus.CANCELLED)]
    assert (why_to_pause([failed[0], *between, *failed[1:]]) is not None) == (kind in BLAMED)
    assert why_to_pause(failed[:2]) is None
    assert why_to_pause([failed[0], failed[0], failed[0], failed[1]]) is None, "different jobs"
    good = ended("J7", AttemptStatus.FINISHED)
    assert why_to_pause([*failed[:2], good, *failed[2:]]) is None, "a finished job in between clears it"
    held = [replace(one, disturbed=True) for one in failed]
    assert (why_to_pause(held) is not None) == (kind in BLAMED - {FailureClass.OUT_OF_MEMORY})


def test_every_class_of_failure_has_its_rule() -> None:
    assert set(RULES) == set(FailureClass)


def test_attempts_that_were_lost_or_cancelled_are_no_failures() -> None:
    earlier = [
        tried(HERE, status)
        for status in (AttemptStatus.LOST, AttemptStatus.CANCELLED)
        for _ in range(MAX_CARDS)
    ]
    assert after_failure(tried(HERE), FailureClass.INTERNAL, "Now.", earlier, 0).then is JobMove.REQUEUE


@pytest.mark.parametrize("lost", range(MAX_LOST + 2))
def test_the_fifth_loss_is_the_last(lost: int) -> None:
    earlier = [tried(f"card {number}", AttemptStatus.LOST) for number in range(lost)]
    earlier += [tried("failed"), tried("failed")]  # failures are counted apart
    outcome = after_loss("The PC is gone.", earlier)
    if lost + 1 < MAX_LOST:
        assert outcome == Outcome(JobMove.REQUEUE, avoid_card=False, verdict="The PC is gone.")
    else:
        assert outcome.then is JobMove.GIVE_UP
        assert outcome.verdict == f"{lost + 1} attempts were lost; the last: The PC is gone."
