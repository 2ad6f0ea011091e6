"""Lists of jobs as the store gives them: words of prompts, batches, and what a card is at."""

from dataclasses import replace
from pathlib import Path

import pytest

from farm.errors import NotFoundError
from farm.model import JobStatus, MemoryPlan, Tier
from farm.store import search
from farm.store.claims import Assignment
from farm.store.reader import JobSort
from farm.store.requests import NewJob
from tests.storage import PICTURE, SETTINGS, Storage, open_storage

PROMPTS = ("Waves roll in", 'He says "stop"', "50 % of it_all", "Über die Brücke", "back\\slash", "")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("waves", [0]),
        ("WAVES ROLL", [0]),
        ("roll waves", []),
        ('"stop"', [1]),
        ("%", [2]),
        ("_", [2]),
        ("50 % of", [2]),
        ("Über die", [3]),
        ("ÜBER", [3]),
        ("cke", [3]),
        ("\\", [4]),
        ("seed", []),  # a setting's name, and what is not to be seen, are no words of the prompt
        ("fog", []),
        ("i", [0, 2, 3]),
    ],
)
def test_words_are_looked_for_in_the_prompt_alone(tmp_path: Path, words: str, found: list[int]) -> None:
    store = open_storage(tmp_path)
    jobs = [store.submit(replace(SETTINGS, prompt=prompt, negative_prompt="fog")).id for prompt in PROMPTS]
    assert {jobs.index(job.id) for job in store.reader.jobs(q=words).jobs} == set(found)


def test_a_job_that_someone_deleted_is_found_no_longer(tmp_path: Path) -> None:
    """The index of words keeps its number: a page would end with it, as if nothing came after."""
    store = open_storage(tmp_path)
    jobs = [store.submit(replace(SETTINGS, prompt="waves")).id for _ in range(4)]
    with store.writer._engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM jobs WHERE id = ?", (jobs[3],))
    first = store.reader.jobs(q="waves", limit=2)
    rest = store.reader.jobs(q="waves", limit=2, cursor=first.cursor)
    assert [job.id for page in (first, rest) for job in page.jobs] == [jobs[2], jobs[1], jobs[0]]


@pytest.mark.parametrize(
    "q", ['"', '""', '"a"', "a\0b", "\0", "waves\0 OR", "(", "a AND", "-", "^x", "a*", "col:x", "' --"]
)
def test_words_are_never_taken_for_a_query_of_their_own(tmp_path: Path, q: str) -> None:
    store = open_storage(tmp_path)
    store.submit(replace(SETTINGS, prompt=f"It says {q}, here".replace("\0", "")))
    assert len(store.reader.jobs(q=q).jobs) == 1 or "\0" in q, (
        "a zero byte is in no prompt; it must only not fail"
    )
    assert len(store.reader.jobs(q=q, sort="ended").jobs) == 0


MIXED = [f"{('Waves', 'WAVES at noon', 'Snow')[number % 3]} {number}" for number in range(24)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, list[str]]:
    """Jobs of `MIXED`, by turns ended and waiting, the ended ones with a rating of 0 to 2 each; and their ids."""
    store = open_storage(tmp_path_factory.mktemp("store"))
    ids = [store.submit(replace(SETTINGS, prompt=prompt)).id for prompt in MIXED]
    for number in filter(_has_ended, range(24)):
        store.writer.cancel_queued(ids[number], 10.0 + number * 5 % 7)
        with store.writer._engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET rating = ? WHERE id = ?", (number % 3, ids[number]))
    return store, ids


def _has_ended(number: int) -> bool:
    return number % 4 < 2


@pytest.mark.parametrize("few", [3, 500])
@pytest.mark.parametrize("sort", ["newest", "oldest", "ended", "rating"])
@pytest.mark.parametrize("status", [None, JobStatus.QUEUED, JobStatus.CANCELLED])
@pytest.mark.parametrize("words", ["waves", "no", "fog", ""])
def test_pages_of_words_hold_each_job_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
    mixed: tuple[Storage, list[str]],
    words: str,
    status: JobStatus | None,
    sort: JobSort,
    few: int,
) -> None:
    monkeypatch.setattr(search, "FEW", few)  # both ways to the same pages
    store, ids = mixed

    def wanted(number: int) -> bool:
        stands = JobStatus.CANCELLED if _has_ended(number) else JobStatus.QUEUED
        sorted_in = _has_ended(number) or sort in ("newest", "oldest")
        return words in MIXED[number].lower() and status in (None, stands) and sorted_in

    order = {
        "newest": lambda number: -number,
        "oldest": lambda number: number,
        "ended": lambda number: (-(number * 5 % 7), -number),
        "rating": lambda number: (-(number % 3), -number),
    }[sort]
    found, cursor = [], None
    while True:
        page = store.reader.jobs(q=words, status=status, sort=sort, cursor=cursor, limit=3)
        found += [job.id for job in page.jobs]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == [ids[number] for number in sorted(filter(wanted, range(24)), key=order)]


def test_a_batch_is_counted_by_status(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    made = [
        store.requests.submit(
            NewJob(SETTINGS, Tier.PREVIEW, draft=True, picture=PICTURE, batch=name), now=10.0 + index
        )[0]
        for index, name in enumerate(("one", "one", "two", None))
    ]
    store.writer.cancel_queued(made[1].id, 20.0)
    began, counts = store.reader.batch("one")
    assert began == 10.0
    assert {status: count for status, count in counts.items() if count} == {
        JobStatus.QUEUED: 1,
        JobStatus.CANCELLED: 1,
    }
    assert [job.id for job in store.reader.jobs(batch="two").jobs] == [made[2].id]
    assert store.reader.job(made[2].id).batch == "two"
    with pytest.raises(NotFoundError):
        store.reader.batch("three")


def test_what_cards_are_at_is_found_by_card(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    first, second = store.add_cards(2)
    job = store.submit()
    store.writer.assign(
        [Assignment("A1", job.id, "n1", first.id, first.name, MemoryPlan(), predicted_gib=5.5)], 1.0
    )
    found = store.reader.running_on([first.id, second.id])
    assert found.keys() == {first.id}
    attempt, of = found[first.id]
    assert (attempt.id, of.id, of.status) == ("A1", job.id, JobStatus.RUNNING)
    assert store.reader.running_on([]) == {}
    assert store.reader.planned_gib() == {first.id: 5.5}
    store.writer.cancelled("A1", 2.0)
    assert store.reader.running_on([first.id]) == {}
    assert store.reader.planned_gib() == {}


def test_open_jobs_are_counted_without_the_others(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    jobs = [store.submit() for _ in range(3)]
    store.writer.cancel_queued(jobs[0].id, 2.0)
    assert store.reader.counts((JobStatus.QUEUED, JobStatus.RUNNING)) == {
        JobStatus.QUEUED: 2,
        JobStatus.RUNNING: 0,
    }
    assert store.reader.counts()[JobStatus.CANCELLED] == 1
