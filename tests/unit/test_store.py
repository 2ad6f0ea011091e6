"""The store: its schema, its migrations and its promises."""

from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import IntegrityError, OperationalError

from farm.errors import ConfigurationError
from farm.model import (
    Artifact,
    AttemptStatus,
    Card,
    CardKind,
    FailureClass,
    Job,
    JobStatus,
    MemoryPlan,
    Node,
    PcieLink,
    StageKind,
    Tier,
)
from farm.states import AttemptMove, JobMove
from farm.store import engine, schema
from farm.store.claims import Assignment
from farm.store.engine import migrate, open_engine
from farm.store.requests import KeyReusedError, NewJob, Requests
from farm.store.writer import Result, StageResult
from tests.storage import PICTURE, SETTINGS, Storage, open_storage


def test_the_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'farm.sqlite3'}"
    migrate(url)
    migrate(url)  # a second start changes nothing
    with open_engine(url, writes=True).connect() as connection:
        opts = {"render_as_batch": True, "include_name": schema.is_a_table_of_ours}
        context = MigrationContext.configure(connection, opts=opts)
        assert compare_metadata(context, schema.metadata) == []


def test_a_sqlite_that_cannot_search_words_is_refused_before_anything_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_SEARCHES", "CREATE VIRTUAL TABLE one USING fts4711(words)")
    with pytest.raises(ConfigurationError, match="without FTS5's trigrams") as refused:
        migrate(f"sqlite:///{tmp_path / 'farm.sqlite3'}")
    assert "those of Debian" in str(refused.value.remedy)
    assert list(tmp_path.iterdir()) == []


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


def test_attempts_that_teach_are_found_newest_first_and_disturbed_or_withdrawn_ones_are_not(
    tmp_path: Path,
) -> None:
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    result = Result("ab" * 32, "cd" * 32, {"render": 2.0}, 0.5, 9.0)

    def attempt(name: str, at: float, model: str = "animatic") -> None:
        job = store.submit(replace(SETTINGS, model=model))
        order = Assignment(
            name, job.id, "n1", card.id, card.name, MemoryPlan(), predicted_s=1.5, predicted_gib=0.75
        )
        assert store.writer.assign([order], at)

    for name, at in (("A1", 10.0), ("A2", 20.0), ("A3", 30.0)):
        attempt(name, at)
        store.writer.finish(name, result, at + 5)
    attempt("A9", 36.0)
    assert store.writer.note("A9", 1, "Went on from step 5 of 8 of attempt 1.", 37.0, resumed_step=5)
    store.writer.finish("A9", result, 38.0)  # its seconds are those of three steps
    attempt("A4", 40.0)
    assert store.writer.note("A4", 1, "Windows moves memory.", 41.0, disturbed=True)
    store.writer.finish("A4", result, 45.0)
    for name, at, kind, disturbed in (
        ("A5", 50.0, FailureClass.OUT_OF_MEMORY, False),
        ("A6", 60.0, FailureClass.OUT_OF_MEMORY, True),
        ("A7", 70.0, FailureClass.INTERNAL, False),
    ):
        attempt(name, at)
        store.writer.fail(name, kind, "It broke.", at + 5, then=JobMove.REQUEUE, disturbed=disturbed)
    attempt("A8", 78.0)
    assert store.writer.withdraw("A8", "The card was busy.", 79.0)
    attempt("B1", 80.0, "i2vgen-xl")
    store.writer.finish("B1", result, 85.0)
    found = store.reader.instructive_attempts(card.id, "animatic", 3)
    assert [one.id for one, _ in found] == ["A5", "A3", "A2"]
    assert (found[0][0].predicted_s, found[0][0].predicted_gib) == (1.5, 0.75)
    assert found[0][1] == SETTINGS
    assert store.reader.instructive_attempts("another", "animatic", 3) == []


def test_a_note_counts_once_and_only_while_its_attempt_lives(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    job = store.submit()
    store.writer.assign([Assignment("A1", job.id, "n1", card.id, card.name, MemoryPlan())], 1.0)
    leaner = MemoryPlan("by_stage")
    assert store.writer.note("A1", 2, "It ran out.", 2.0, plan=leaner)
    assert not store.writer.note("A1", 2, "It ran out.", 3.0, plan=leaner)
    assert store.writer.note("A1", 3, "It is slow.", 4.0)
    store.writer.cancelled("A1", 5.0)
    assert not store.writer.note("A1", 4, "Too late.", 6.0)
    (attempt,) = store.reader.attempts(job.id)
    assert (attempt.notes, attempt.memory_plan, attempt.last_seq) == (
        ("It ran out.", "It is slow."),
        leaner,
        3,
    )


def test_the_step_an_attempt_went_on_from_is_kept_and_told_once(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    job = store.submit()
    store.writer.assign([Assignment("A1", job.id, "n1", card.id, card.name, MemoryPlan())], 1.0)
    assert store.reader.attempts(job.id)[0].resumed_step is None
    for _ in range(2):
        store.writer.note("A1", 2, "Went on from step 5 of 8 of attempt 1.", 2.0, resumed_step=5)
    (attempt,) = store.reader.attempts(job.id)
    assert (attempt.resumed_step, attempt.notes) == (5, ("Went on from step 5 of 8 of attempt 1.",))
    assert [line.what for line in store.reader.story(job.id)] == ["assigned", "resumed"]


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
    won = store.writer.assign(asked, 3.0)
    assert [attempt.id for attempt in won] == ["A0", "A2"]
    assert store.reader.attempts_of_ids(["A0", "A2"]) == won, "what is told is what was stored"


def test_jobs_of_different_stages_are_assigned_together_and_their_tries_counted(tmp_path: Path) -> None:
    """One transaction takes every stage's jobs, each only at its own stage; the number of a try goes on from the job's last."""
    store = open_storage(tmp_path)
    one, two, three = store.add_cards(3)
    again, later, other = store.submit(), store.submit(), store.submit()

    def order(name: str, job: Job, card: Card, stage: StageKind = StageKind.GENERATE) -> Assignment:
        return Assignment(name, job.id, "n1", card.id, card.name, MemoryPlan(), stage, predicted_s=9.0)

    store.writer.assign([order("A1", again, one)], 2.0)
    store.writer.withdraw("A1", "The card was busy.", 3.0)
    with store.writer._engine.begin() as connection:
        connection.execute(sa.update(schema.jobs).where(schema.jobs.c.id == later.id).values(stage="encode"))
    asked = [
        order("A3", again, one),
        order("A4", later, two, StageKind.ENCODE),
        order("A5", other, three, StageKind.ENCODE),
    ]
    won = store.writer.assign(asked, 5.0)
    assert [(attempt.id, attempt.number, attempt.stage) for attempt in won] == [
        ("A3", 2, StageKind.GENERATE),
        ("A4", 1, StageKind.ENCODE),
    ]


def test_assigning_reads_no_cards_history(tmp_path: Path) -> None:
    """Whether a card works was looked up among all attempts that it ever had: the older the farm, the slower each assignment."""
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    job = store.submit()
    said: list[tuple[str, object]] = []
    engine = store.writer._engine
    sa.event.listen(
        engine, "before_cursor_execute", lambda _c, _u, text, values, *_: said.append((text, values))
    )
    store.writer.assign([Assignment("A1", job.id, "n1", card.id, card.name, MemoryPlan())], 2.0)
    asked = [(text, values) for text, values in said if "attempts.card_id IN" in text]
    assert asked
    with engine.connect() as connection:
        for text, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()  # type: ignore[arg-type]  # as sent
            assert "ix_attempts_one_live_per_card" in str(plan)


def test_of_two_assignments_of_one_job_or_one_card_the_first_counts(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    one, two = store.add_cards(2)
    first, second = store.submit(), store.submit()

    def order(name: str, job: Job, card: Card) -> Assignment:
        return Assignment(name, job.id, "n1", card.id, card.name, MemoryPlan())

    asked = [order("A1", first, one), order("A2", first, two), order("A3", second, one)]
    assert [attempt.id for attempt in store.writer.assign(asked, 2.0)] == ["A1"]
    assert [attempt.id for attempt in store.writer.assign([order("A4", second, one)], 3.0)] == []
    assert [attempt.id for attempt in store.writer.assign([order("A5", second, two)], 3.0)] == ["A5"]


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


def _fail(store: Storage, attempt_id: str, job: Job, then: JobMove) -> None:
    won = store.writer.assign([Assignment(attempt_id, job.id, "n1", "CPU-n1-0", "CPU", MemoryPlan())], 2.0)
    assert [attempt.id for attempt in won] == [attempt_id]
    assert store.writer.fail(attempt_id, FailureClass.INTERNAL, "It broke.", 3.0, then=then)


def test_attempts_count_from_the_last_retry_on(tmp_path: Path) -> None:
    """A job that a person had tried again was given up at its first failure, for what had gone wrong before."""
    store = open_storage(tmp_path)
    store.add_cards(1)
    job, other = store.submit(), store.submit()
    _fail(store, "A1", job, JobMove.REQUEUE)
    _fail(store, "A2", job, JobMove.GIVE_UP)
    assert [attempt.id for attempt in store.reader.tries(job.id)] == ["A1", "A2"]
    assert store.writer.retry(job.id, 4.0)
    assert store.reader.tries(job.id) == []
    assert store.reader.tries_of_open_jobs() == {}
    _fail(store, "A3", job, JobMove.REQUEUE)
    assert [attempt.id for attempt in store.reader.tries(job.id)] == ["A3"]
    _fail(store, "B1", other, JobMove.GIVE_UP)  # ended, so nobody asks any more what it went through
    found = store.reader.tries_of_open_jobs()
    assert {name: [attempt.id for attempt in tries] for name, tries in found.items()} == {job.id: ["A3"]}
    assert [attempt.id for attempt in store.reader.attempts(job.id)] == ["A1", "A2", "A3"], "all are history"


def test_a_farm_of_the_first_version_keeps_its_jobs_through_the_migration(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'farm.sqlite3'}"
    migrate(url, "0001")
    with open_engine(url, writes=True).begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO jobs (id, status, settings, model, tier, priority, anywhere, draft, input_sha256, input_media_type,"
            " created_at, submitted_by, cancel_requested) VALUES"
            " ('J1', 'failed', '{}', 'animatic', 'preview', 0, 0, 1, 'ab', 'image/png', 1.0, '', 0),"
            " ('J2', 'failed', '{\"prompt\": \"\\u00dcber die Br\\u00fccke\"}', 'animatic', 'preview', 0, 0, 1, 'ab',"
            " 'image/png', 1.0, '', 0)"
        )
    migrate(url)
    with open_engine(url, writes=True).begin() as connection:
        jobs = connection.exec_driver_sql("SELECT seq, id, retried_after FROM jobs").all()
        assert jobs == [(1, "J1", 0), (2, "J2", 0)]
        prompts = connection.exec_driver_sql("SELECT seq, folded FROM prompts").all()
        assert prompts == [(1, ""), (2, "über die brücke")], "words find the jobs of before"
        connection.exec_driver_sql("DELETE FROM jobs")
        assert connection.exec_driver_sql("SELECT count(*) FROM prompts").scalar_one() == 0
    store = open_storage(tmp_path)
    job = store.submit()
    assert store.reader.seq(job.id) == 3, "numbers are still never given twice"


def test_a_withdrawn_attempt_leaves_its_job_as_if_it_had_not_been_assigned(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    job = store.submit()
    store.writer.assign([Assignment("A1", job.id, "n1", card.id, card.name, MemoryPlan())], 2.0)
    assert store.writer.withdraw("A1", "The card was busy.", 3.0)
    assert store.reader.job(job.id).status == JobStatus.QUEUED
    (attempt,) = store.reader.attempts(job.id)
    assert (attempt.status, attempt.reason, attempt.failure_class) == (
        AttemptStatus.CANCELLED,
        "The card was busy.",
        None,
    )
    last = store.reader.story(job.id)[-1]
    assert (last.what, last.detail) == ("withdrawn", "The card was busy.")
    store.writer.assign([Assignment("A2", job.id, "n1", card.id, card.name, MemoryPlan())], 4.0)
    store.writer.progress("A2", AttemptMove.LOAD, 5.0, 1)
    assert not store.writer.withdraw("A2", "The card was busy.", 6.0), "it began: it cannot be taken back"
    assert store.reader.job(job.id).status == JobStatus.RUNNING


def test_an_attempt_keeps_its_own_reason_where_the_job_tells_of_several(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    job = store.submit()
    store.writer.assign([Assignment("A1", job.id, "n1", card.id, card.name, MemoryPlan())], 2.0)
    store.writer.fail(
        "A1", FailureClass.INTERNAL, "Too old.", 3.0, then=JobMove.GIVE_UP, verdict="x: Too hot.; y: Too old."
    )
    assert store.reader.job(job.id).failure == "x: Too hot.; y: Too old."
    assert store.reader.attempts(job.id)[0].reason == "Too old."


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


def test_a_stage_s_clip_is_handed_on_once_and_the_job_waits_with_the_next(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    (card,) = store.add_cards(1)
    job = store.submit(replace(SETTINGS, smooth=24))

    def assigned(name: str, stage: StageKind) -> bool:
        claim = Assignment(name, job.id, card.node_id, card.id, card.name, MemoryPlan(), stage)
        return bool(store.writer.assign([claim], 2.0))

    assert job.stage is StageKind.GENERATE
    assert not assigned("A0", StageKind.INTERPOLATE), "nobody can be ahead of the first stage"
    assert assigned("A1", StageKind.GENERATE)
    left = StageResult(Artifact("cd" * 32, "video/mp4", 9), {"render": 1.5}, 0.5, rendered_at=3.0)
    assert store.writer.advance("A1", left, StageKind.INTERPOLATE, 4.0)
    assert not store.writer.advance("A1", left, StageKind.INTERPOLATE, 5.0), "the same word twice is no news"
    waiting = store.reader.job(job.id)
    assert (waiting.status, waiting.stage, waiting.finished_at) == (
        JobStatus.QUEUED,
        StageKind.INTERPOLATE,
        None,
    )
    assert store.reader.stage_artifacts(job.id) == {StageKind.GENERATE: left.artifact}
    (first,) = store.reader.attempts(job.id)
    assert (first.status, first.stage_seconds, first.peak_gib) == (
        AttemptStatus.FINISHED,
        {"render": 1.5},
        0.5,
    )
    assert store.reader.tries(job.id) == [], "what counts is of the present stage"
    assert not assigned("A2", StageKind.GENERATE), "no stage is made twice"
    assert assigned("A3", StageKind.INTERPOLATE)
    assert [attempt.id for attempt in store.reader.tries(job.id)] == ["A3"]
    store.writer.fail("A3", FailureClass.BAD_INPUT, "broken", 6.0, then=JobMove.GIVE_UP)
    assert store.writer.retry(job.id, 7.0)
    assert store.reader.job(job.id).stage is StageKind.INTERPOLATE
    assert assigned("A4", StageKind.INTERPOLATE)
    store.writer.fail("A4", FailureClass.BAD_INPUT, "broken", 8.0, then=JobMove.GIVE_UP)
    assert store.writer.retry(job.id, 9.0, from_the_start=True)
    assert store.reader.job(job.id).stage is StageKind.GENERATE
    assert store.reader.stage_artifacts(job.id) == {}
