"""The audit finds each kind of thing that must not be: every break is made on a store that was right before."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from farm.artifacts import ArtifactStore
from farm.model import FailureClass, MemoryPlan, Node
from farm.states import JobMove
from farm.store.audit import audit
from farm.store.claims import Assignment
from farm.store.writer import Result
from tests.storage import Storage, open_storage
from tests.unit.test_scheduler import clip

__all__ = ["clip"]  # a fixture


@dataclass
class Books:
    """A store with a job of each kind, all as they should be; `jobs` maps the kind to the job's id, and each attempt is called by it."""

    store: Storage
    artifacts: ArtifactStore
    jobs: dict[str, str]
    video: str

    def look(self, *submitted: str) -> list[str]:
        return audit(self.store.reader._engine, self.artifacts, submitted)

    def break_it(self, statement: str) -> None:
        with self.store.writer._engine.begin() as connection:
            for line in statement.split(";"):
                connection.exec_driver_sql(line.format(**self.jobs))


@pytest.fixture
def books(tmp_path: Path, clip: tuple[bytes, bytes]) -> Iterator[Books]:
    store, artifacts = open_storage(tmp_path), ArtifactStore(tmp_path / "artifacts")
    card, other = store.add_cards(2)
    store.registry.see_node(Node("n1", "n1", "127.0.0.1"), [replace(card, vram_gib=6.0)], 1.0)
    video = artifacts.put(clip[0], "video/mp4").sha256
    thumbnail = artifacts.put(clip[1], "image/jpeg").sha256
    jobs = {name: store.submit().id for name in ("finished", "failed", "running", "waiting")}

    def assign(name: str, on: str) -> None:
        order = Assignment(name, jobs[name], "n1", on, "CPU (test)", MemoryPlan(), predicted_gib=5.5)
        assert store.writer.assign([order], 1.0)

    assign("finished", card.id)
    store.writer.finish("finished", Result(video, thumbnail, {}, 5.75, 2.0), 2.0)
    assign("failed", card.id)
    store.writer.fail("failed", FailureClass.BAD_INPUT, "It broke.", 3.0, then=JobMove.GIVE_UP)
    assign("running", other.id)
    yield Books(store, artifacts, jobs, video)
    store.close()


def test_a_farm_that_is_right_is_found_so(books: Books) -> None:
    assert books.look(*books.jobs.values()) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (
            "DROP INDEX ix_attempts_one_live_per_card;"
            "UPDATE attempts SET card_id = 'CPU-n1-0';"
            "UPDATE attempts SET status = 'running' WHERE id = 'failed'",
            "card CPU-n1-0 has 2 live attempts",
        ),
        ("UPDATE attempts SET status = 'lost' WHERE id = 'running'", "is running and has 0 live attempts"),
        ("UPDATE jobs SET status = 'queued' WHERE id = '{running}'", "is queued and has 1 live attempts"),
        ("UPDATE attempts SET peak_gib = 6.5 WHERE id = 'finished'", "took 6.50 GiB of 6.00"),
        ("UPDATE attempts SET predicted_gib = 6.1 WHERE id = 'failed'", "planned to take 6.10 GiB of 6.00"),
        ("UPDATE attempts SET status = 'lost' WHERE id = 'finished'", "has 0 finished attempts"),
        (
            "UPDATE attempts SET job_id = '{finished}', number = 2, status = 'finished' WHERE id = 'failed'",
            "has 2 finished attempts",
        ),
        (
            "INSERT INTO story (job_id, at, what, detail) VALUES ('{finished}', 9.0, 'finished', '')",
            "told so 2 times",
        ),
        ("UPDATE jobs SET video_sha256 = NULL WHERE id = '{finished}'", "is finished and has no video"),
        ("UPDATE jobs SET video_sha256 = 'ab' WHERE id = '{waiting}'", "is queued and has a video"),
        ("UPDATE jobs SET finished_at = NULL WHERE id = '{failed}'", "its end is None"),
        ("UPDATE attempts SET number = 3 WHERE id = 'running'", "attempts without their own numbers"),
        (
            "UPDATE jobs SET settings = json_set(settings, '$.smooth', 24) WHERE id = '{finished}'",
            "without a finished attempt of interpolate",
        ),
        (
            "UPDATE jobs SET settings = json_set(settings, '$.frames', 9) WHERE id = '{finished}'",
            "the video of job",
        ),
    ],
)
def test_what_must_not_be_is_found(books: Books, statement: str, found: str) -> None:
    books.break_it(statement)
    assert any(found in line for line in books.look()), books.look()


def test_a_job_that_is_not_there_is_missed(books: Books) -> None:
    """Complaint 10 and 15: a queue that is gone after a crash looks like a farm without work."""
    assert books.look("J9") == ["job J9 was submitted and is not there"]


@pytest.mark.parametrize("damage", ["gone", "another", "cut"])
def test_a_video_that_is_gone_or_damaged_is_found(books: Books, damage: str) -> None:
    path = books.artifacts.path(books.video)
    if damage == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] if damage == "cut" else b"another")
    (line,) = books.look()
    assert line.startswith(f"the video of job {books.jobs['finished']}")
