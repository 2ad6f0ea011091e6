"""What becomes of a job whose attempt failed: one rule per class of failure. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from farm.model import Attempt, AttemptStatus, FailureClass
from farm.states import JobMove

MAX_FAILED = 3
"""A job that failed on three cards is not the cards' fault."""
MAX_LOST = 5
"""A job in whose company five attempts vanished is given up rather than taken from PC to PC."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`then` is the job's move; `avoid_card` keeps the job from the card it failed on; `verdict` is what a job that is given up says.

    `anew`: the job's checkpoint is not to be trusted, so that the next attempt begins at the beginning.
    """

    then: JobMove
    avoid_card: bool
    verdict: str
    anew: bool = False


def after_failure(
    attempt: Attempt,
    failure_class: FailureClass,
    reason: str,
    earlier: Sequence[Attempt],
    other_cards: int,
) -> Outcome:
    """What follows when `attempt` failed for `reason`.

    `earlier` are the job's former attempts since a person last asked for a new try; `other_cards` could still take it besides this one.
    """
    outcome = _after_failure(attempt, failure_class, reason, earlier, other_cards)
    # A card at fault may have computed wrong numbers. And where a render failed that went on from a checkpoint, for a reason that nobody
    # thought of, the checkpoint may be the reason.
    fault, program = failure_class is FailureClass.CARD_FAULT, failure_class is FailureClass.INTERNAL
    return replace(outcome, anew=fault or (program and attempt.resumed_step is not None))


def _after_failure(
    attempt: Attempt, failure_class: FailureClass, reason: str, earlier: Sequence[Attempt], other_cards: int
) -> Outcome:
    if failure_class == FailureClass.BAD_INPUT:
        return Outcome(JobMove.GIVE_UP, avoid_card=False, verdict=reason)
    failed = [one for one in earlier if one.status == AttemptStatus.FAILED]
    told = [f"{one.card_name}: {one.reason}" for one in failed]
    verdict = "; ".join([*told, f"{attempt.card_name}: {reason}"]) if told else reason
    if len(failed) + 1 >= MAX_FAILED:
        return Outcome(JobMove.GIVE_UP, avoid_card=False, verdict=verdict)
    if not _shuns(failure_class, attempt.card_id, failed):
        return Outcome(JobMove.REQUEUE, avoid_card=False, verdict=verdict)
    if other_cards == 0:
        return Outcome(JobMove.GIVE_UP, avoid_card=False, verdict=verdict)
    return Outcome(JobMove.REQUEUE, avoid_card=True, verdict=verdict)


def after_loss(reason: str, earlier: Sequence[Attempt]) -> Outcome:
    """What follows a lost attempt: another one, unless losses pile up. `earlier` as in `after_failure`."""
    lost = sum(attempt.status == AttemptStatus.LOST for attempt in earlier)
    if lost + 1 >= MAX_LOST:
        verdict = f"{lost + 1} attempts were lost; the last: {reason}"
        return Outcome(JobMove.GIVE_UP, avoid_card=False, verdict=verdict)
    return Outcome(JobMove.REQUEUE, avoid_card=False, verdict=reason)


def shunned(tries: Sequence[Attempt]) -> frozenset[str]:
    """The cards that a job shall not go to again, read from its attempts; a restarted scheduler knows them from nowhere else."""
    failed: list[Attempt] = []
    cards: set[str] = set()
    for attempt in tries:
        if attempt.status == AttemptStatus.FAILED and attempt.failure_class is not None:
            if _shuns(attempt.failure_class, attempt.card_id, failed):
                cards.add(attempt.card_id)
            failed.append(attempt)
    return frozenset(cards)


def _shuns(failure_class: FailureClass, card_id: str, failed: Sequence[Attempt]) -> bool:
    """Whether a failure keeps the job from its card: a fault of ours only when it is not the first there."""
    return failure_class != FailureClass.INTERNAL or any(one.card_id == card_id for one in failed)
