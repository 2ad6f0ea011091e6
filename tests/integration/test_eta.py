"""Places and times in the queue, from the scheduler's feed to the API, the pages and the command line."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from farm.feed import Expected, JobChanged, LiveJob, QueueChanged, QueuePlace, QueueRate
from farm.planning.kinds import kind_of
from tests.integration.dashboard_server import FakeScheduler, RunningDashboard, running_dashboard, wait_until
from tests.integration.test_api import send
from tests.integration.test_cli_client import run


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as running:
        yield running


@pytest.fixture
def http(farm: RunningDashboard) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{farm.base_url}/api/v1", headers=farm.headers, timeout=20) as client:
        yield client


def test_every_job_has_its_place_and_a_time_with_an_interval(http: httpx.Client, farm: RunningDashboard):
    """Nobody knows how long a clip takes (FramePack#151), or when its turn comes: complaint 11."""
    ids = [send(http, {"preset": "draft"}).json()["id"] for _ in range(4)]
    kind = kind_of(farm.reader.job(ids[0]))
    now = time.time()
    with FakeScheduler(farm.data) as scheduler:
        scheduler.publish(JobChanged(LiveJob(ids[0], "queued")))
        before = http.get(f"/jobs/{ids[1]}").json()
        assert (before["position"], before["eta"], before["why_pending"]) == (
            2,
            None,
            "Waiting for its turn.",
        )
        scheduler.publish(
            QueueChanged(
                now,
                waiting=4,
                placed=2,
                places=(
                    QueuePlace(ids[0], kind, 1, Expected(now + 60, now + 40, now + 90), "GPU-1"),
                    QueuePlace(ids[1], kind, 2, None),
                ),
                rates={kind: QueueRate(now + 100, 50.0, 2.0)},
                why={kind: "Waits for one of 3 cards that can run it; all are busy."},
            )
        )
        wait_until(lambda: http.get(f"/jobs/{ids[0]}").json()["eta"], what="the time to arrive")
        first, second, third, last = (http.get(f"/jobs/{job_id}").json() for job_id in ids)
        assert first["eta"] == {"at": now + 60, "low_at": now + 40, "high_at": now + 90, "exact": True}
        assert (second["position"], second["eta"]) == (2, None)
        assert (third["position"], third["eta"]["at"], third["eta"]["exact"]) == (3, now + 150, False)
        assert last["eta"] == {"at": now + 200, "low_at": now + 100, "high_at": now + 400, "exact": False}
        assert last["why_pending"] == "Waits for one of 3 cards that can run it; all are busy."
        listed = {job["id"]: job["position"] for job in http.get("/jobs").json()["jobs"]}
        assert (listed[ids[0]], listed[ids[1]]) == (1, 2)
        assert httpx.get(f"{farm.base_url}/jobs/{ids[0]}", headers=farm.headers).text.count("data-soon") == 3
        assert (
            "Number 1 in the queue, done about"
            in httpx.get(f"{farm.base_url}/jobs", headers=farm.headers).text
        )
        assert " to " in run(farm, "show", ids[0]).stdout
    wait_until(
        lambda: http.get(f"/jobs/{ids[0]}").json()["eta"] is None, what="the end of the feed to be seen"
    )
