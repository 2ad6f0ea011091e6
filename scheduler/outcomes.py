"""What becomes of a job whose attempt failed: one rule per class of failure. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from farm.model import Attempt, AttemptStatus, FailureClass
from farm.states import JobMove

MAX_FAILED = 3
"""A job that failed on three cards is not the cards' fault."""
MAX_LOST = 5
"""A job in whose company five attempts vanished is given up rather than taken from PC to PC."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`then` is the job's move; `avoid_card` keeps the job from the card it failed on; `reason` ends up on the job."""

    then: JobMove
    avoid_card: bool
    reason: str


def after_failure(
    failure_class: FailureClass, reason: str, earlier: Sequence[Attempt], other_cards: int, card_id: str
) -> Outcome:
    """What follows a failed attempt. `earlier` are the job's former attempts; `other_cards` could still take it besides this one."""
    if failure_class == FailureClass.BAD_INPUT:
        return Outcome(JobMove.GIVE_UP, avoid_card=False, reason=reason)
    failed = [attempt for attempt in earlier if attempt.status == AttemptStatus.FAILED]
    if len(failed) + 1 >= MAX_FAILED:
        told = [f"{attempt.card_name}: {attempt.reason}" for attempt in failed]
        return Outcome(JobMove.GIVE_UP, avoid_card=False, reason="; ".join([*told, reason]))
    if failure_class == FailureClass.INTERNAL:
        again = [attempt for attempt in failed if attempt.card_id == card_id]
        if not again:
            return Outcome(JobMove.REQUEUE, avoid_card=False, reason=reason)
    if other_cards == 0:
        return Outcome(JobMove.GIVE_UP, avoid_card=False, reason=reason)
    return Outcome(JobMove.REQUEUE, avoid_card=True, reason=reason)


def after_loss(reason: str, earlier: Sequence[Attempt]) -> Outcome:
    """What follows a lost attempt: another one, unless losses pile up."""
    lost = sum(attempt.status == AttemptStatus.LOST for attempt in earlier)
    if lost + 1 >= MAX_LOST:
        return Outcome(
            JobMove.GIVE_UP, avoid_card=False, reason=f"{lost + 1} attempts were lost; the last: {reason}"
        )
    return Outcome(JobMove.REQUEUE, avoid_card=False, reason=reason)
