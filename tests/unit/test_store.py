"""The store: its schema, its migrations and its promises."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError, OperationalError

from farm.model import Card, CardKind, FailureClass, JobStatus, MemoryPlan, Node, PcieLink, Tier
from farm.states import JobMove
from farm.store import schema
from farm.store.engine import migrate, open_engine
from farm.store.requests import KeyReusedError, NewJob, Requests
from farm.store.writer import Assignment
from tests.storage import PICTURE, SETTINGS, open_storage


def test_the_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'farm.sqlite3'}"
    migrate(url)
    migrate(url)  # a second start changes nothing
    with open_engine(url, writes=True).connect() as connection:
        context = MigrationContext.configure(connection, opts={"render_as_batch": True})
        assert compare_metadata(context, schema.metadata) == []


@pytest.mark.parametrize("writes", [True, False])
def test_every_connection_is_opened_as_the_farm_needs_it(tmp_path: Path, writes: bool) -> None:
    """Flamenco 3.8, #104305: foreign keys were silently off."""
    url = f"sqlite:///{tmp_path / 'farm.sqlite3'}"
    migrate(url)
    with open_engine(url, writes=writes).connect() as connection:

        def pragma(name: str) -> object:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

        assert pragma("journal_mode") == "wal"
        assert pragma("foreign_keys") == 1
        assert pragma("synchronous") == 2
        assert pragma("query_only") == int(not writes)


def test_a_card_is_stored_with_all_that_its_pc_said_of_it(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    said = Card(
        "GPU-1", "n1", CardKind.CUDA, "GTX 1080", 8.0, 7.4, Tier.PREVIEW, (6, 1), frozenset({"animatic"}), None, 5.0,
        "550.120", PcieLink(3, 4, 16), 2.96, 15.6, "0.5 GiB less is used.",
    )  # fmt: skip
    node = Node("n1", "attic", "10.0.0.2", 5.0, {"ray": "2.60.0"}, 15.6, 9.25)
    store.registry.see_node(node, [said], 5.0)
    assert store.reader.cards() == [said]
    assert store.reader.nodes() == [node]
    bare = Card("GPU-1", "n1", CardKind.CUDA, "GTX 1080", last_seen=6.0)
    store.registry.see_node(Node("n1", "attic", "10.0.0.2", 6.0), [bare], 6.0)
    assert store.reader.cards() == [bare]


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    with store.reader._engine.connect() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.execute(sa.insert(schema.facts).values(key="a", value="b"))


def test_the_database_itself_refuses_a_second_live_attempt_of_a_card(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    first, second = store.submit(), store.submit()
    won = store.writer.assign([Assignment("A1", first.id, "n1", card.id, card.name, MemoryPlan())], 2.0)
    assert len(won) == 1
    values = {"job_id": second.id, "number": 1, "stage": "generate", "node_id": "n1", "card_name": card.name}
    with store.writer._engine.begin() as connection, pytest.raises(IntegrityError, match="card_id"):
        connection.execute(
            sa.insert(schema.attempts).values(
                id="A2",
                card_id=card.id,
                status="running",
                memory_plan={},
                assigned_at=2.0,
                stage_seconds={},
                **values,
            )
        )


def test_one_transaction_assigns_many_and_leaves_out_what_lost_its_race(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    cards = store.add_cards(3)
    jobs = [store.submit() for _ in range(3)]
    store.writer.cancel_queued(jobs[1].id, 2.0)
    asked = [
        Assignment(f"A{index}", job.id, "n1", card.id, card.name, MemoryPlan())
        for index, (job, card) in enumerate(zip(jobs, cards, strict=True))
    ]
    assert [attempt.id for attempt in store.writer.assign(asked, 3.0)] == ["A0", "A2"]


def test_the_same_idempotency_key_gives_the_same_job_and_refuses_another_request(tmp_path: Path) -> None:
    store = open_storage(tmp_path)

    def new(digest: str) -> NewJob:
        return NewJob(
            SETTINGS,
            store.submit().tier,
            draft=True,
            picture=PICTURE,
            idempotency_key="k",
            request_sha256=digest,
        )

    first, fresh = store.requests.submit(new("x"), 1.0)
    again, second = store.requests.submit(new("x"), 2.0)
    assert (fresh, second) == (True, False)
    assert again.id == first.id
    with pytest.raises(KeyReusedError):
        store.requests.submit(new("y"), 3.0)


def test_pages_of_jobs_meet_without_gap_or_overlap_while_jobs_come_in(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    old = [store.submit().id for _ in range(7)]
    first = store.reader.jobs(limit=3)
    store.submit()
    second = store.reader.jobs(limit=3, cursor=first.cursor)
    third = store.reader.jobs(limit=3, cursor=second.cursor)
    assert [job.id for page in (first, second, third) for job in page.jobs] == old[::-1]
    assert third.cursor is None


def test_a_failure_that_gives_up_says_why_on_the_job_and_in_its_story(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    job = store.submit()
    store.writer.assign([Assignment("A1", job.id, "n1", card.id, card.name, MemoryPlan())], 2.0)
    moved = store.writer.fail(
        "A1", FailureClass.INTERNAL, "It broke.", 3.0, then=JobMove.GIVE_UP, detail="Traceback ..."
    )
    assert moved
    stored = store.reader.job(job.id)
    assert (stored.status, stored.failure, stored.finished_at) == (JobStatus.FAILED, "It broke.", 3.0)
    assert [(line.what, line.detail) for line in store.reader.story(job.id)][-1] == (
        "failed",
        "It broke.\nTraceback ...",
    )


def test_writers_in_two_processes_never_fail_for_a_lock(tmp_path: Path) -> None:
    """Deferred transactions that turn into writes failed 2,395 times in 2,000 contended claims."""
    import threading

    store = open_storage(tmp_path)
    troubles: list[Exception] = []

    def submit() -> None:
        engine = open_engine(store.url, writes=True)
        try:
            for _ in range(25):
                Requests(engine).submit(NewJob(SETTINGS, job.tier, draft=True, picture=PICTURE), 1.0)
        except Exception as error:
            troubles.append(error)
        finally:
            engine.dispose()

    job = store.submit()
    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert store.reader.counts()[JobStatus.QUEUED] == 101
