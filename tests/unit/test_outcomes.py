"""The whole truth table of what follows a failed or a lost attempt; `test_policy.py` has the telling cases."""

from dataclasses import replace
from itertools import product

import pytest

from farm.model import Attempt, AttemptStatus, FailureClass
from farm.states import JobMove
from scheduler.outcomes import MAX_CARDS, MAX_LOST, Outcome, after_failure, after_loss, shunned

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
