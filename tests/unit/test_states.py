"""The table of legal moves, as a truth table."""

import pytest

from farm.errors import IllegalMoveError
from farm.model import AttemptStatus, JobStatus
from farm.states import (
    ATTEMPT_MOVES,
    ENDED_JOBS,
    JOB_MOVES,
    LIVE_ATTEMPTS,
    AttemptMove,
    JobMove,
    after,
    moves_from,
    sources,
)

# rows: status; columns: assign, finish, advance, requeue, give_up, cancel, retry, return ("-" is illegal)
JOB_TABLE = {
    "queued": "running - - - failed cancelled - finished",
    "running": "- finished queued queued failed cancelled - finished",
    "finished": "- - - - - - - -",
    "failed": "- - - - - - queued finished",
    "cancelled": "- - - - - - queued -",
}
# columns: load, run, finish, fail, lose, cancel, withdraw, yield, return
ATTEMPT_TABLE = {
    "assigned": "loading running finished failed lost cancelled cancelled cancelled -",
    "loading": "- running finished failed lost cancelled - cancelled -",
    "running": "- - finished failed lost cancelled - cancelled -",
    "finished": "- - - - - - - - -",
    "failed": "- - - - - - - - -",
    "lost": "- - - - - - - - finished",
    "cancelled": "- - - - - - - - -",
}


@pytest.mark.parametrize("status", JobStatus)
def test_every_move_of_a_job(status: JobStatus) -> None:
    for move, expected in zip(JobMove, JOB_TABLE[status].split(), strict=True):
        if expected == "-":
            with pytest.raises(IllegalMoveError, match=f"{status} cannot {move}"):
                after(status, move)
        else:
            assert after(status, move) == expected


@pytest.mark.parametrize("status", AttemptStatus)
def test_every_move_of_an_attempt(status: AttemptStatus) -> None:
    for move, expected in zip(AttemptMove, ATTEMPT_TABLE[status].split(), strict=True):
        if expected == "-":
            with pytest.raises(IllegalMoveError, match=f"{status} cannot {move}"):
                after(status, move)
        else:
            assert after(status, move) == expected


def test_an_attempt_is_live_exactly_when_it_can_still_end_and_a_lost_one_can_only_return() -> None:
    assert {status for status in AttemptStatus if set(moves_from(status)) - {"return"}} == set(LIVE_ATTEMPTS)


def test_a_job_has_ended_exactly_when_only_a_person_or_a_lost_clip_can_move_it() -> None:
    assert {status for status in JobStatus if set(moves_from(status)) <= {"retry", "return"}} == set(
        ENDED_JOBS
    )


def test_each_move_leads_to_one_status_only() -> None:
    """The store applies a move to any of its sources in one statement, so the target must not depend on the source."""
    for table in (JOB_MOVES, ATTEMPT_MOVES):
        targets: dict[str, set[str]] = {}
        for (_, move), target in table.items():
            targets.setdefault(move, set()).add(target)
        assert all(len(found) == 1 for found in targets.values()), targets


def test_sources_are_where_a_move_is_legal() -> None:
    assert set(sources(AttemptMove.RUN)) == {"assigned", "loading"}
    assert set(sources(JobMove.RETRY)) == {"failed", "cancelled"}
