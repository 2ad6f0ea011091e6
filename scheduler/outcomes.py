"""What becomes of a job whose attempt failed, and of the card it failed on: one rule per class of failure. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from farm.model import Attempt, AttemptStatus, FailureClass
from farm.states import JobMove

MAX_CARDS: Final = 3
"""A job that failed on three cards is not the cards' fault."""
MAX_LOST: Final = 5
"""A job in whose company five attempts vanished is given up rather than taken from PC to PC."""
MAX_DISTURBED: Final = 6
"""So often another program may be in a job's way: with `REST_S` between two tries on a card, for an hour where there is but one."""
REST_S: Final = 600.0
"""So long a job stays away from a card on which another program was in its way: a game or a film may be over by then."""
BLAMED_JOBS: Final = 3
"""So many different jobs in a row that failed on a card are no longer the jobs' fault."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What a class of failure means.

    `tries` is how often a job may fail so on one card before it goes there no more; 0 gives the job up at once. `blames` counts the failure
    against the card. `checkpoint`: whether the next attempt may go on from what this one computed.
    """

    tries: int
    blames: bool
    checkpoint: Literal["kept", "dropped", "kept unless gone on from"]


RULES: Final[Mapping[FailureClass, Rule]] = {
    # No card can help.
    FailureClass.BAD_INPUT: Rule(0, blames=False, checkpoint="dropped"),
    # The card has tried every leaner plan by itself.
    FailureClass.OUT_OF_MEMORY: Rule(1, blames=True, checkpoint="kept"),
    # Nothing was computed, and the PC's next inventory shows the model as missing.
    FailureClass.MISSING_WEIGHTS: Rule(1, blames=False, checkpoint="kept"),
    # It may have computed wrong numbers before anyone noticed.
    FailureClass.CARD_FAULT: Rule(1, blames=True, checkpoint="dropped"),
    # May pass: one more try on the same card.
    FailureClass.STALLED: Rule(2, blames=True, checkpoint="kept"),
    # As above; but where the attempt had gone on from a checkpoint, that may be the reason.
    FailureClass.INTERNAL: Rule(2, blames=True, checkpoint="kept unless gone on from"),
    # A PC that was switched off is no fault of card or job; `after_loss` counts these.
    FailureClass.NODE_LOST: Rule(2, blames=False, checkpoint="kept"),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`then` is the job's move; `avoid_card` keeps the job from the card it failed on; `verdict` is what a job that is given up says.

    `rest_s`: for so many seconds only. `and_no_larger`: from those too that hold no more of a render. `anew`: the job's checkpoint is not
    to be trusted, the next attempt begins at the beginning.
    """

    then: JobMove
    avoid_card: bool
    verdict: str
    anew: bool = False
    rest_s: float | None = None
    and_no_larger: bool = False


def after_failure(
    attempt: Attempt,
    failure_class: FailureClass,
    reason: str,
    earlier: Sequence[Attempt],
    other_cards: int,
    *,
    disturbed: bool = False,
    larger_cards: int = 0,
) -> Outcome:
    """What follows when `attempt` failed for `reason`; `disturbed`: another program had its hand in it.

    `earlier` are the job's former attempts since a person last asked for a new try; `other_cards` could still take it besides this one,
    of which `larger_cards` hold more of a render.
    """
    rule = RULES[failure_class]
    if rule.tries == 0:
        return Outcome(JobMove.GIVE_UP, avoid_card=False, verdict=reason)
    failed = [one for one in earlier if one.status == AttemptStatus.FAILED]
    told = [f"{one.card_name}: {one.reason}" for one in failed]
    verdict = "; ".join([*told, f"{attempt.card_name}: {reason}"]) if told else reason
    resumed = attempt.resumed_step is not None
    outcome = Outcome(
        JobMove.REQUEUE,
        avoid_card=False,
        verdict=verdict,
        anew=rule.checkpoint == "dropped" or (rule.checkpoint != "kept" and resumed),
    )
    blamed = [one for one in failed if _counts(one)]
    if disturbed and failure_class is FailureClass.OUT_OF_MEMORY:
        if len(failed) - len(blamed) + 1 >= MAX_DISTURBED:
            return replace(outcome, then=JobMove.GIVE_UP)
        return replace(outcome, avoid_card=True, rest_s=REST_S)
    if failure_class is FailureClass.OUT_OF_MEMORY and larger_cards:
        return replace(outcome, avoid_card=True, and_no_larger=True)
    shuns = _shuns(failure_class, attempt.card_id, blamed)
    cards = {one.card_id for one in blamed} | {attempt.card_id}
    if len(cards) >= MAX_CARDS or (shuns and other_cards == 0):
        return replace(outcome, then=JobMove.GIVE_UP)
    return replace(outcome, avoid_card=shuns)


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
        if _counts(attempt) and attempt.failure_class is not None:
            if _shuns(attempt.failure_class, attempt.card_id, failed):
                cards.add(attempt.card_id)
            failed.append(attempt)
    return frozenset(cards)


def ran_out(tries: Sequence[Attempt]) -> frozenset[str]:
    """The cards that were too small for a job, read from its attempts."""
    return frozenset(
        attempt.card_id
        for attempt in tries
        if _counts(attempt) and attempt.failure_class is FailureClass.OUT_OF_MEMORY
    )


def resting(tries: Sequence[Attempt], now: float) -> dict[str, float]:
    """The cards that a job stays away from for a while, each with the seconds that are left; `now` is wall time."""
    left = {
        attempt.card_id: (attempt.finished_at or 0.0) + REST_S - now
        for attempt in tries
        if attempt.status == AttemptStatus.FAILED and not _counts(attempt)
    }
    return {card_id: seconds for card_id, seconds in left.items() if seconds > 0}


def given_up_for_want_of_cards(tries: Sequence[Attempt]) -> str:
    """What a waiting job says that is given up because the cards it failed on are the only ones that could take it."""
    return "; ".join(f"{one.card_name}: {one.reason}" for one in tries if one.status == AttemptStatus.FAILED)


def why_to_pause(ended: Sequence[Attempt]) -> str | None:
    """Why a card should be paused and tested, judged by the attempts that ended on it, newest first; None if it need not."""
    blamed: dict[str, Attempt] = {}
    for attempt in ended:
        if attempt.status == AttemptStatus.FINISHED:
            break
        if _counts(attempt) and attempt.failure_class is not None and RULES[attempt.failure_class].blames:
            blamed.setdefault(attempt.job_id, attempt)
    if len(blamed) < BLAMED_JOBS:
        return None
    last = next(iter(blamed.values()))
    return (
        f"{len(blamed)} jobs in a row failed here, the last one so: {last.reason} "
        "It gets work again once it has passed a test."
    )


def _counts(attempt: Attempt) -> bool:
    """Whether it is a failure, and not one for memory that another program held."""
    others_doing = attempt.disturbed and attempt.failure_class is FailureClass.OUT_OF_MEMORY
    return attempt.status == AttemptStatus.FAILED and not others_doing


def _shuns(failure_class: FailureClass, card_id: str, failed: Collection[Attempt]) -> bool:
    """Whether a failure keeps the job from its card: it has failed there as often as its class may."""
    here = sum(one.card_id == card_id for one in failed) + 1
    return here >= RULES[failure_class].tries
