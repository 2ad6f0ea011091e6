"""What goes to keep the limits, and that it goes without harm: the rule, the store, the files."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.artifacts import ArtifactStore
from farm.model import Artifact, FailureClass, Job, JobStatus, MemoryPlan, StageKind
from farm.retention import DAY_S, GB, Going, Kept, Limits, going
from farm.states import JobMove
from farm.store.audit import audit
from farm.store.claims import Assignment
from farm.store.leftovers import KEPT_S, Leftovers
from farm.store.requests import RequestKind
from farm.store.retention import RetentionReader
from farm.store.writer import Result, StageResult
from scheduler.retention import EVERY_S, SOON_S, Retention
from tests.storage import SETTINGS, Storage, open_storage

NOW = 100 * DAY_S
SIZES = {file: int(GB) for file in "abcdefgh"}


def kept(job_id: str, days_ago: float, files: str, *, starred: bool = False) -> Kept:
    return Kept(job_id, NOW - days_ago * DAY_S, starred, frozenset(files))


def test_what_is_older_than_the_days_goes_oldest_first() -> None:
    jobs = [kept("new", 1, "a"), kept("older", 8, "b"), kept("oldest", 9, "c"), kept("edge", 7, "d")]
    assert going(jobs, (), SIZES, Limits(days=7), NOW) == Going(
        ("oldest", "older"), frozenset("bc"), 2 * int(GB), left=2, left_size=2 * int(GB)
    )


def test_only_as_much_goes_as_makes_the_room() -> None:
    jobs = [kept("one", 3, "ab"), kept("two", 2, "cd"), kept("three", 1, "ef")]
    assert going(jobs, (), SIZES, Limits(gb=6), NOW) == Going(left=3, left_size=6 * int(GB))
    assert going(jobs, (), SIZES, Limits(gb=5), NOW).job_ids == ("one",)
    assert going(jobs, (), SIZES, Limits(gb=3), NOW).job_ids == ("one", "two")


def test_starred_jobs_never_go_and_take_their_room() -> None:
    jobs = [kept("starred", 90, "ab", starred=True), kept("other", 2, "cd")]
    assert going(jobs, (), SIZES, Limits(days=1, gb=2), NOW).job_ids == ("other",)
    assert going(jobs[:1], (), SIZES, Limits(days=1, gb=0.1), NOW).job_ids == ()


def test_a_file_that_another_job_needs_stays() -> None:
    """Two jobs of one picture: deleting the older one must not take the younger one's input."""
    jobs = [kept("old", 9, "ab"), kept("young", 1, "ac")]
    assert going(jobs, (), SIZES, Limits(days=7), NOW).files == frozenset("b")
    assert going([jobs[0]], {"a"}, SIZES, Limits(days=7), NOW).files == frozenset("b")


_jobs = st.lists(
    st.tuples(st.floats(0, 50), st.sets(st.sampled_from("abcdefgh"), min_size=1), st.booleans()), max_size=8
)


@given(
    _jobs,
    st.sets(st.sampled_from("abcdefgh")),
    st.none() | st.floats(1, 40),
    st.none() | st.floats(0.5, 8),
)
def test_no_file_that_is_needed_ever_goes_and_the_limits_hold(
    rows: list[tuple[float, set[str], bool]], needed: set[str], days: float | None, gb: float | None
) -> None:
    jobs = [
        Kept(f"J{number}", NOW - ago * DAY_S, starred, frozenset(files))
        for number, (ago, files, starred) in enumerate(rows)
    ]
    found = going(jobs, needed, SIZES, Limits(days, gb), NOW)
    staying = [job for job in jobs if job.job_id not in found.job_ids]
    still = {file for job in staying for file in job.files}
    assert not found.files & (still | needed)
    assert all(job in staying for job in jobs if job.starred)
    left = still | ({file for job in jobs for file in job.files} & needed)
    assert found.files == {file for job in jobs for file in job.files} - left
    bound = needed | {file for job in jobs if job.starred for file in job.files}
    if gb is not None and sum(SIZES[file] for file in left) > gb * GB:
        assert all(job.starred or job.files <= bound for job in staying)
    if days is not None:
        assert all(job.starred or job.ended_at >= NOW - days * DAY_S for job in staying)


class HandClock:
    """A clock that a test moves."""

    at = NOW

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


class Place:
    """A store and its files, and a retention over them."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.store: Storage = open_storage(root)
        self.artifacts = ArtifactStore(root / "artifacts")
        self.clock = HandClock()
        (self.card,) = self.store.add_cards(1)
        self.reader = RetentionReader(self.store.reader._engine, self.artifacts)
        self.leftovers = Leftovers(self.store.writer._engine)
        self.retention = self.retain(limits)
        self.limits = limits

    def retain(self, limits: Limits) -> Retention:
        return Retention(self.reader, self.store.writer, self.leftovers, self.artifacts, limits, self.clock)

    def put(self, data: bytes, *, lately: bool = False) -> Artifact:
        made = self.artifacts.put(data, "image/png")
        if not lately:
            old = time.time() - 7200
            os.utime(self.artifacts.path(made.sha256), (old, old))
        return made

    def finished(self, name: str, days_ago: float, picture: Artifact | None = None) -> Job:
        at = NOW - days_ago * DAY_S
        job = self.store.submit(SETTINGS, picture or self.put(f"picture {name}".encode()), at)
        plan = Assignment(f"A{name}", job.id, self.card.node_id, self.card.id, self.card.name, MemoryPlan())
        assert self.store.writer.assign([plan], at)
        video, still = self.put(f"video {name}".encode()), self.put(f"still {name}".encode())
        result = Result(video.sha256, still.sha256, {"load": 1.0}, None, at)
        assert self.store.writer.finish(f"A{name}", result, at)
        return self.store.reader.job(job.id)

    def there(self, job: Job) -> list[bool]:
        return [
            self.artifacts.exists(file)
            for file in (job.input_sha256, job.video_sha256, job.thumbnail_sha256)
            if file is not None
        ]


@pytest.fixture
def place(tmp_path: Path):
    made = Place(tmp_path, Limits(days=7))
    yield made
    made.store.close()


def test_files_go_and_the_history_says_when(place: Place) -> None:
    old, young = place.finished("old", 8), place.finished("young", 1)
    preview = place.reader.going(place.limits, NOW)
    assert preview.job_ids == (old.id,)
    assert preview.size == len(b"picture old" + b"video old" + b"still old")
    assert place.retention.look() == [old.id]
    assert place.there(old) == [False] * 3
    assert place.there(young) == [True] * 3
    told = place.store.reader.job(old.id)
    assert (told.status, told.removed_at, told.video_sha256) == (JobStatus.FINISHED, NOW, old.video_sha256)
    assert [line.what for line in place.store.reader.story(old.id)][-1] == "removed"
    assert place.retention.look() == []
    wrong = audit(place.store.reader._engine, place.artifacts)
    assert not any(old.id in line for line in wrong)  # the young one's video is none, and is found out
    assert any(young.id in line for line in wrong)


def test_a_star_keeps_a_job_and_its_end_lets_it_go(place: Place) -> None:
    job = place.finished("kept", 90)
    assert place.store.requests.star(job.id, starred=True)
    assert place.retention.look() == []
    assert place.store.requests.star(job.id, starred=False)
    assert place.retention.look() == [job.id]
    assert not place.store.requests.star(job.id, starred=True)


def test_an_input_that_a_queued_or_another_job_uses_stays(place: Place) -> None:
    picture = place.put(b"shared")
    old = place.finished("old", 9, picture)
    queued = place.store.submit(SETTINGS, picture, NOW)
    other = place.put(b"shared by two")
    older, young = place.finished("older", 10, other), place.finished("young", 1, other)
    assert place.retention.look() == [older.id, old.id]
    assert place.there(old) == [True, False, False]
    assert place.there(older) == [True, False, False]
    assert place.there(young) == [True] * 3
    assert place.store.reader.job(queued.id).removed_at is None


def test_a_picture_that_is_being_submitted_again_stays(place: Place) -> None:
    """The same bytes are stored once: between the upload and its job's row the old job's end took the file."""
    job = place.finished("again", 9)
    place.put(b"picture again", lately=True)  # the upload; its job's row comes later
    assert place.retention.look() == [job.id]
    assert place.there(job) == [True, False, False]
    newer = place.store.submit(SETTINGS, Artifact(job.input_sha256, "image/png", 3), NOW)
    os.utime(place.artifacts.path(job.input_sha256), (1.0, 1.0))
    place.retention.look()
    assert place.there(newer) == [True]


def test_what_was_touched_and_then_not_used_goes_later(place: Place) -> None:
    job = place.finished("again", 9)
    place.put(b"picture again", lately=True)
    place.retention.look()
    place.put(b"picture again")
    os.utime(place.artifacts.path(job.input_sha256), (1.0, 1.0))
    place.retention.look()
    assert place.there(job) == [False] * 3


def test_files_that_a_killed_scheduler_left_go_with_the_next_look(place: Place) -> None:
    job = place.finished("old", 9)
    assert place.store.writer.remove_files([job.id], NOW) == [job.id]  # and then it was killed
    place.clock.at += 30 * DAY_S
    assert place.retention.look() == []
    assert place.there(job) == [False] * 3


def test_a_file_that_a_killed_scheduler_had_moved_away_is_back(place: Place) -> None:
    job = place.finished("young", 1)
    path = place.artifacts.path(job.input_sha256)
    path.replace(place.artifacts.root / "incoming" / f"discarded-{job.input_sha256}")
    assert place.there(job) == [False, True, True]
    place.retention.look()
    assert place.there(job) == [True] * 3


def test_a_job_that_shall_be_tried_again_keeps_its_picture_and_a_removed_one_is_not_tried(
    place: Place,
) -> None:
    job = place.store.submit(SETTINGS, place.put(b"failed"), NOW - 30 * DAY_S)
    assert place.store.writer.give_up_queued(job.id, "no card", NOW - 20 * DAY_S)
    place.store.requests.ask(RequestKind.RETRY, job.id, NOW)
    assert place.retention.look() == []
    place.store.requests.done([request.id for request in place.store.requests.waiting()])
    assert place.retention.look() == [job.id]
    assert not place.store.writer.retry(job.id, NOW)
    assert place.store.reader.job(job.id).status == JobStatus.FAILED


def test_it_looks_every_ten_minutes_and_sooner_when_a_job_has_ended_that_leaves_something(
    place: Place,
) -> None:
    assert place.retention.due
    place.retention._looked = NOW
    assert not place.retention.due
    place.clock.at += EVERY_S
    assert place.retention.due
    place.retention._looked = place.clock.at
    place.retention.stir()
    assert not place.retention.due
    place.clock.at += SOON_S
    assert place.retention.due


def test_without_a_limit_no_job_loses_its_files(place: Place) -> None:
    job = place.finished("old", 900)
    assert place.retain(Limits()).look() == []
    assert place.there(job) == [True] * 3


# --- clips between stages ---
SMOOTH = replace(SETTINGS, smooth=24)


def between(place: Place, name: str, clip: bytes | None = None) -> tuple[Job, Artifact]:
    """A job whose second stage waits, and the clip that its first one left."""
    job = place.store.submit(SMOOTH, place.put(f"picture {name}".encode()), NOW)
    left = place.put(clip or f"clip {name}".encode())
    assert attempt(place, job, name, StageKind.GENERATE)
    assert place.store.writer.advance(
        f"A{name}", StageResult(left, {"render": 1.0}, None, NOW), StageKind.INTERPOLATE, NOW
    )
    return job, left


def attempt(place: Place, job: Job, name: str, stage: StageKind) -> bool:
    card = place.card
    plan = Assignment(f"A{name}", job.id, card.node_id, card.id, card.name, MemoryPlan(), stage)
    return bool(place.store.writer.assign([plan], place.clock.at))


def finish_second(place: Place, job: Job, name: str) -> None:
    assert attempt(place, job, f"{name}2", StageKind.INTERPOLATE)
    video, still = place.put(f"video {name}".encode()), place.put(f"still {name}".encode())
    result = Result(video.sha256, still.sha256, {"work": 1.0}, None, NOW)
    assert place.store.writer.finish(f"A{name}2", result, NOW)


def test_the_clip_between_stages_goes_when_the_job_is_finished_and_not_before(place: Place) -> None:
    """It was never deleted: every smoothed job left a nearly lossless clip for ever."""
    job, left = between(place, "j")
    unlimited = place.retain(Limits())
    unlimited.look()
    assert place.artifacts.exists(left.sha256), "its second stage waits"
    assert attempt(place, job, "try", StageKind.INTERPOLATE)
    unlimited.look()
    assert place.store.writer.fail("Atry", FailureClass.INTERNAL, "broke", NOW, then=JobMove.REQUEUE)
    unlimited.look()
    assert place.artifacts.exists(left.sha256), "its second stage is tried again"
    finish_second(place, job, "j")
    unlimited.look()
    assert not place.artifacts.exists(left.sha256)
    assert place.store.reader.stage_artifacts(job.id) == {}
    assert place.there(place.store.reader.job(job.id)) == [True] * 3
    assert place.leftovers.waiting() == []
    wrong = audit(place.store.reader._engine, place.artifacts)
    assert [line for line in wrong if "video of job" not in line] == []  # the video is none here


def test_a_job_that_failed_or_was_cancelled_keeps_it_for_as_long_as_one_may_go_on_from_there(
    place: Place,
) -> None:
    failed, kept = between(place, "f")
    assert place.store.writer.give_up_queued(failed.id, "no card", NOW)
    cancelled, other = between(place, "c")
    assert place.store.writer.cancel_queued(cancelled.id, NOW)
    place.clock.at += KEPT_S - 1
    place.retention.look()
    assert place.artifacts.exists(kept.sha256)
    assert place.store.writer.retry(failed.id, place.clock.at)
    place.clock.at += 2
    place.retention.look()
    assert place.artifacts.exists(kept.sha256), "it is tried again"
    assert not place.artifacts.exists(other.sha256)


def test_a_wish_to_try_again_that_was_not_taken_in_yet_keeps_it(place: Place) -> None:
    job, left = between(place, "f")
    assert place.store.writer.give_up_queued(job.id, "no card", NOW)
    place.store.requests.ask(RequestKind.RETRY, job.id, NOW)
    place.clock.at += 2 * KEPT_S
    place.retain(Limits()).look()
    assert place.artifacts.exists(left.sha256)


def test_one_clip_of_two_jobs_stays_until_both_are_done(place: Place) -> None:
    """Two jobs alike leave the same bytes, which are stored once."""
    first, left = between(place, "one", b"the same")
    second, _ = between(place, "two", b"the same")
    finish_second(place, first, "one")
    unlimited = place.retain(Limits())
    unlimited.look()
    assert place.artifacts.exists(left.sha256)
    assert place.leftovers.waiting() == []
    finish_second(place, second, "two")
    unlimited.look()
    assert not place.artifacts.exists(left.sha256)


def test_one_that_was_stored_again_a_moment_ago_goes_later_and_also_after_a_crash(place: Place) -> None:
    job, left = between(place, "j")
    finish_second(place, job, "j")
    place.put(b"clip j", lately=True)
    os.utime(place.artifacts.path(left.sha256))
    place.retain(Limits()).look()
    assert place.artifacts.exists(left.sha256)
    os.utime(place.artifacts.path(left.sha256), (1.0, 1.0))
    place.retain(Limits()).look()  # another process's, which knows of it from the store only
    assert not place.artifacts.exists(left.sha256)


def test_a_job_begun_anew_lets_go_of_what_its_stages_had_left(place: Place) -> None:
    job, left = between(place, "j")
    assert place.store.writer.give_up_queued(job.id, "no card", NOW)
    assert place.store.writer.retry(job.id, NOW, from_the_start=True)
    place.retain(Limits()).look()
    assert not place.artifacts.exists(left.sha256)


def test_the_audit_finds_a_clip_between_stages_that_is_gone_too_soon(place: Place) -> None:
    job, left = between(place, "j")
    assert audit(place.store.reader._engine, place.artifacts) == []
    place.artifacts.delete(left.sha256)
    assert audit(place.store.reader._engine, place.artifacts) == [
        f"job {job.id} is queued at its stage interpolate, and the clip of its stage generate is not there"
    ]
