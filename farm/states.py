"""The table of legal moves, the only copy. Anything that is not here cannot happen.

A move is a verb; `after(status, move)` gives the status it leads to, or raises `IllegalMoveError`. Terminal statuses are those
with no way out. The store applies moves by compare-and-set, so that of two racing moves one wins and the other changes nothing.
"""

from enum import StrEnum
from typing import overload

from farm.errors import IllegalMoveError
from farm.model import AttemptStatus as A
from farm.model import JobStatus as J


class JobMove(StrEnum):
    """What can happen to a job."""

    ASSIGN = "assign"
    FINISH = "finish"
    ADVANCE = "advance"
    """A stage is done, and the job waits for a card for its next one."""
    REQUEUE = "requeue"
    GIVE_UP = "give_up"
    CANCEL = "cancel"
    RETRY = "retry"
    RETURN = "return"
    """The complete clip of an attempt that was held for lost has come in after all."""


class AttemptMove(StrEnum):
    """What can happen to an attempt."""

    LOAD = "load"
    RUN = "run"
    FINISH = "finish"
    FAIL = "fail"
    LOSE = "lose"
    CANCEL = "cancel"
    WITHDRAW = "withdraw"
    """Taken back before its card began it: nothing was rendered, so it counts neither as a failure nor as a loss."""
    YIELD = "yield"
    """Its card's owner wanted the card: it counts neither as a failure nor as a loss, and the job goes on elsewhere."""
    RETURN = "return"
    """It was held for lost, and its complete clip has come in after all."""


JOB_MOVES: dict[tuple[J, JobMove], J] = {
    (J.QUEUED, JobMove.ASSIGN): J.RUNNING,
    (J.QUEUED, JobMove.CANCEL): J.CANCELLED,
    (J.QUEUED, JobMove.GIVE_UP): J.FAILED,
    (J.RUNNING, JobMove.FINISH): J.FINISHED,
    (J.RUNNING, JobMove.ADVANCE): J.QUEUED,
    (J.RUNNING, JobMove.REQUEUE): J.QUEUED,
    (J.RUNNING, JobMove.GIVE_UP): J.FAILED,
    (J.RUNNING, JobMove.CANCEL): J.CANCELLED,
    (J.FAILED, JobMove.RETRY): J.QUEUED,
    (J.CANCELLED, JobMove.RETRY): J.QUEUED,
    (J.QUEUED, JobMove.RETURN): J.FINISHED,
    (J.RUNNING, JobMove.RETURN): J.FINISHED,
    (J.FAILED, JobMove.RETURN): J.FINISHED,
}

ATTEMPT_MOVES: dict[tuple[A, AttemptMove], A] = {
    (A.ASSIGNED, AttemptMove.LOAD): A.LOADING,
    (A.ASSIGNED, AttemptMove.RUN): A.RUNNING,
    (A.LOADING, AttemptMove.RUN): A.RUNNING,
    (A.ASSIGNED, AttemptMove.WITHDRAW): A.CANCELLED,
    (A.LOST, AttemptMove.RETURN): A.FINISHED,
    **{
        (live, move): end
        for live in (A.ASSIGNED, A.LOADING, A.RUNNING)
        for move, end in (
            (AttemptMove.FINISH, A.FINISHED),
            (AttemptMove.FAIL, A.FAILED),
            (AttemptMove.LOSE, A.LOST),
            (AttemptMove.CANCEL, A.CANCELLED),
            (AttemptMove.YIELD, A.CANCELLED),
        )
    },
}

LIVE_ATTEMPTS = frozenset({A.ASSIGNED, A.LOADING, A.RUNNING})
"""An attempt that holds its card. A running job has exactly one; a job in any other status has none."""

ENDED_JOBS = frozenset({J.FINISHED, J.FAILED, J.CANCELLED})
"""A job that waits for nothing."""


@overload
def after(status: J, move: JobMove) -> J: ...
@overload
def after(status: A, move: AttemptMove) -> A: ...
def after(status: J | A, move: JobMove | AttemptMove) -> J | A:
    """The status that `move` leads to from `status`.

    Raises:
        IllegalMoveError: the table has no such move.
    """
    table: dict[tuple[J, JobMove], J] | dict[tuple[A, AttemptMove], A]
    table = JOB_MOVES if isinstance(status, J) else ATTEMPT_MOVES
    found = table.get((status, move))  # type: ignore[arg-type]  # the overloads pair each status with its own moves
    if found is None:
        kind = "job" if isinstance(status, J) else "attempt"
        raise IllegalMoveError(
            f"A {kind} that is {status} cannot {move}.",
            f"It can: {', '.join(moves_from(status)) or 'nothing'}.",
        )
    return found


def sources(move: JobMove | AttemptMove) -> tuple[str, ...]:
    """The statuses from which `move` is legal, for compare-and-set."""
    table: dict[tuple[J, JobMove], J] | dict[tuple[A, AttemptMove], A]
    table = JOB_MOVES if isinstance(move, JobMove) else ATTEMPT_MOVES
    return tuple(str(status) for status, other in table if other == move)


def moves_from(status: J | A) -> tuple[str, ...]:
    """What can happen to something of this status."""
    table: dict[tuple[J, JobMove], J] | dict[tuple[A, AttemptMove], A]
    table = JOB_MOVES if isinstance(status, J) else ATTEMPT_MOVES
    return tuple(str(move) for other, move in table if other == status)
