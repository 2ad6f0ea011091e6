"""kill -9 of the whole head, and a new start: nothing stored is lost, nothing is made twice without need."""

from pathlib import Path

import pytest

from farm.model import AttemptStatus, JobStatus
from tests.farm_process import FarmProcess, steps_done
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

SMALL = {"preset": "draft", "width": 256, "height": 192, "frames": 8, "prompt": "zoom"}
LONG = {**SMALL, "width": 960, "height": 544, "frames": 80}
"""Some seconds of rendering: time enough to pull plugs."""


def test_kill_9_of_the_whole_head_keeps_queue_and_history_and_finishes_the_interrupted_job_once(
    farm: FarmProcess, picture: Path, tmp_path: Path
) -> None:
    with farm.client() as client:
        before = client.wait(client.submit(picture, **SMALL).id)
        interrupted = client.submit(picture, **LONG)
        queued = [client.submit(picture, **SMALL) for _ in range(3)]
        wait_until(lambda: steps_done(client, interrupted.id) > 2, 30, "it renders")
    farm.kill_head()
    reader = farm.reader()
    assert reader.job(interrupted.id).status == JobStatus.RUNNING
    assert [reader.job(job.id).status for job in queued] == [JobStatus.QUEUED] * 3

    farm.start()
    with farm.client() as client:
        assert client.job(before.id).status == JobStatus.FINISHED
        assert client.video(before.id, tmp_path / "before.mp4").stat().st_size > 0
        assert client.wait(interrupted.id).status == JobStatus.FINISHED
        for job in queued:
            assert client.wait(job.id).status == JobStatus.FINISHED
    attempts = farm.reader().attempts(interrupted.id)
    assert [attempt.status for attempt in attempts] == [AttemptStatus.LOST, AttemptStatus.FINISHED]
    assert [line.what for line in farm.reader().story(interrupted.id)].count("finished") == 1


def test_a_result_complete_in_the_spool_when_the_head_is_killed_is_fetched_and_not_made_again(
    farm: FarmProcess, picture: Path
) -> None:
    with farm.client() as client:
        job = client.submit(picture, **LONG)
        wait_until(lambda: steps_done(client, job.id) > 2, 30, "it renders")
    # The scheduler is stopped (not ended), so that the result completes while nobody can fetch it.
    farm.freeze("scheduler")
    (attempt,) = farm.reader().attempts(job.id)
    events = farm.data.node_home / "spool" / attempt.id / "events.jsonl"
    wait_until(lambda: b'"kind": "done"' in events.read_bytes(), 60, "the clip is complete in the spool")
    farm.kill_head()
    assert farm.reader().job(job.id).status == JobStatus.RUNNING

    farm.start()
    with farm.client() as client:
        assert client.wait(job.id).status == JobStatus.FINISHED
    (only,) = farm.reader().attempts(job.id)
    assert only.status == AttemptStatus.FINISHED
