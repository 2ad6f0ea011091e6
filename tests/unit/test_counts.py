"""How many jobs have each status, and where each stands in the queue: exact after whatever happens to jobs."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from farm.model import FailureClass, JobStatus, MemoryPlan
from farm.states import JobMove
from farm.store import schema
from farm.store.claims import Assignment
from farm.store.engine import open_engine
from farm.store.reader import Reader
from farm.store.writer import Result
from tests.storage import Storage, open_storage

RESULT = Result("ab" * 32, "cd" * 32, {"render": 2.0}, 0.5, 9.0)


def test_without_jobs_each_status_counts_nought(tmp_path: Path) -> None:
    assert open_storage(tmp_path).reader.counts() == dict.fromkeys(JobStatus, 0)


def test_jobs_are_counted_by_status_and_deleted_ones_no_longer(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    cards = store.add_cards(3)
    jobs = [store.submit() for _ in range(6)]
    for index, card in enumerate(cards):
        claim = Assignment(f"A{index}", jobs[index].id, "n1", card.id, card.name, MemoryPlan())
        store.writer.assign([claim], 1.0)
    assert store.writer.finish("A0", RESULT, 5.0)
    store.writer.fail("A1", FailureClass.CARD_FAULT, "It broke.", 6.0, then=JobMove.GIVE_UP)
    store.writer.cancel_queued(jobs[3].id, 7.0)
    assert {str(status): count for status, count in store.reader.counts().items()} == {
        "queued": 2,
        "running": 1,
        "finished": 1,
        "failed": 1,
        "cancelled": 1,
    }
    assert store.reader.counts((JobStatus.FINISHED,)) == {JobStatus.FINISHED: 1}
    assert store.reader.counts((JobStatus.RUNNING, JobStatus.FINISHED)) == {
        JobStatus.RUNNING: 1,
        JobStatus.FINISHED: 1,
    }
    assert store.reader.counts(()) == {}
    with open_engine(store.url, writes=True).begin() as connection:
        for table in (schema.story, schema.attempts):
            connection.execute(sa.delete(table).where(table.c.job_id == jobs[0].id))
        connection.execute(sa.delete(schema.jobs).where(schema.jobs.c.id == jobs[0].id))
    assert store.reader.counts()[JobStatus.FINISHED] == 0
    assert store.reader.counts()[JobStatus.QUEUED] == 2


@settings(max_examples=25, deadline=None)
@given(
    happenings=st.lists(
        st.tuples(st.sampled_from(("submit", "cancel", "retry", "urge", "delete")), st.integers(0, 11)),
        max_size=25,
    ),
    asked=st.sets(st.integers(0, 11)),
)
def test_counts_and_positions_are_what_going_through_all_jobs_gives(
    happenings: list[tuple[str, int]], asked: set[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_storage(Path(folder))
        jobs = [store.submit().id for _ in range(4)]
        for what, which in happenings:
            _happens(store, jobs, what, jobs[which % len(jobs)])
        with open_engine(store.url, writes=False).connect() as connection:
            rows = connection.execute(sa.select(schema.jobs.c["id", "status", "priority", "seq"])).all()
        store.close()
        counted = Counter(row.status for row in rows)
        assert store.reader.counts() == {status: counted[status] for status in JobStatus}
        queue = sorted(
            (row for row in rows if row.status == "queued"), key=lambda row: (-row.priority, row.seq)
        )
        stands = {row.id: place for place, row in enumerate(queue, 1)}
        wanted = {jobs[which] for which in asked if which < len(jobs)}
        assert store.reader.positions(wanted) == {
            job_id: place for job_id, place in stands.items() if job_id in wanted
        }
        store.close()


def _happens(store: Storage, jobs: list[str], what: str, job_id: str) -> None:
    if what == "submit":
        jobs.append(store.submit().id)
    elif what == "cancel":
        store.writer.cancel_queued(job_id, 2.0)
    elif what == "retry":
        store.writer.retry(job_id, 3.0)
    elif what == "urge":
        store.writer.set_priority(job_id, len(jobs) % 3)
    else:
        with open_engine(store.url, writes=True).begin() as connection:
            connection.execute(sa.delete(schema.story).where(schema.story.c.job_id == job_id))
            connection.execute(sa.delete(schema.jobs).where(schema.jobs.c.id == job_id))


def test_a_job_that_does_not_wait_has_no_position(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    first, second, third = (store.submit() for _ in range(3))
    store.writer.cancel_queued(first.id, 2.0)
    store.writer.set_priority(third.id, 5)
    assert store.reader.positions([first.id, second.id, third.id, "J-none"]) == {third.id: 1, second.id: 2}
    assert store.reader.positions([]) == {}


@pytest.mark.parametrize("analyzed", [False, True])
def test_the_queue_is_counted_in_its_index_and_its_jobs_found_by_id(tmp_path: Path, analyzed: bool) -> None:
    """Through the queue's jobs themselves, 2,000 of them took 4 ms of each page."""
    store = open_storage(tmp_path)
    ids = [store.submit().id for _ in range(40)]
    engine = open_engine(store.url, writes=False)
    if analyzed:
        with open_engine(store.url, writes=True).begin() as connection:
            connection.execute(sa.text("ANALYZE"))
    plans: list[str] = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def explain(
        connection: sa.Connection, _cursor: object, statement: str, given: tuple[object, ...], *_: object
    ) -> None:
        if statement.startswith("SELECT"):
            raw = connection.connection.dbapi_connection
            assert raw is not None
            plans.extend(row[3] for row in raw.cursor().execute(f"EXPLAIN QUERY PLAN {statement}", given))

    Reader(engine).positions(ids[:3])
    # Of the two indexes that unique columns have, either may have been made first.
    assert [re.sub("autoindex_jobs_[12]", "autoindex_jobs", plan) for plan in plans if "SEARCH" in plan] == [
        "SEARCH jobs USING INDEX sqlite_autoindex_jobs (id=?)",
        "SEARCH jobs_1 USING COVERING INDEX ix_jobs_queue (status=? AND priority=? AND seq>? AND seq<?)",
        "SEARCH jobs_1 USING COVERING INDEX ix_jobs_queue (status=? AND priority>?)",
    ]
