"""The whole truth table of what follows a failed or a lost attempt; `test_policy.py` has the telling cases."""

from itertools import product

import pytest

from farm.model import Attempt, AttemptStatus, FailureClass
from farm.states import JobMove
from scheduler.outcomes import MAX_FAILED, MAX_LOST, Outcome, after_failure, after_loss

HERE = "here"


def tried(card: str, status: AttemptStatus = AttemptStatus.FAILED, reason: str = "It broke.") -> Attempt:
    return Attempt("A", "J", 1, "n1", card, f"the {card} card", status, 1.0, reason=reason)


def expected(kind: FailureClass, earlier: list[str], others: int) -> tuple[JobMove, bool]:
    """Bad input ends it at once, and so does a third failure; a fault of ours gets a second try anywhere; else another card, if any."""
    if kind is FailureClass.BAD_INPUT or len(earlier) == 2:
        return JobMove.GIVE_UP, False
    if kind is FailureClass.INTERNAL and HERE not in earlier:
        return JobMove.REQUEUE, False
    return (JobMove.REQUEUE, True) if others else (JobMove.GIVE_UP, False)


@pytest.mark.parametrize("kind", list(FailureClass))
def test_the_table_of_failures(kind: FailureClass) -> None:
    histories: list[list[str]] = [[], [HERE], ["there"], [HERE, "there"], ["there", "yonder"]]
    for earlier, others in product(histories, (0, 1, 3)):
        outcome = after_failure(kind, "Now.", [tried(name) for name in earlier], others, HERE)
        assert (outcome.then, outcome.avoid_card) == expected(kind, earlier, others), (earlier, others)
        assert "Now." in outcome.reason


@pytest.mark.parametrize("kind", sorted(set(FailureClass) - {FailureClass.BAD_INPUT}))
def test_giving_up_after_three_failures_tells_all_reasons(kind: FailureClass) -> None:
    earlier = [tried("first", reason="Too hot."), tried("second", reason="Too cold.")]
    outcome = after_failure(kind, "Too old.", earlier, 7, HERE)
    assert outcome == Outcome(
        JobMove.GIVE_UP,
        avoid_card=False,
        reason="the first card: Too hot.; the second card: Too cold.; Too old.",
    )


def test_attempts_that_were_lost_or_cancelled_are_no_failures() -> None:
    earlier = [
        tried(HERE, status)
        for status in (AttemptStatus.LOST, AttemptStatus.CANCELLED)
        for _ in range(MAX_FAILED)
    ]
    assert after_failure(FailureClass.INTERNAL, "Now.", earlier, 0, HERE).then is JobMove.REQUEUE


@pytest.mark.parametrize("lost", range(MAX_LOST + 2))
def test_the_fifth_loss_is_the_last(lost: int) -> None:
    earlier = [tried(f"card {number}", AttemptStatus.LOST) for number in range(lost)]
    earlier += [tried("failed"), tried("failed")]  # failures are counted apart
    outcome = after_loss("The PC is gone.", earlier)
    if lost + 1 < MAX_LOST:
        assert outcome == Outcome(JobMove.REQUEUE, avoid_card=False, reason="The PC is gone.")
    else:
        assert outcome.then is JobMove.GIVE_UP
        assert outcome.reason == f"{lost + 1} attempts were lost; the last: The PC is gone."
