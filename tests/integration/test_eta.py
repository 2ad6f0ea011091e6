"""Places and times in the queue, from the scheduler's feed to the API, the pages and the command line."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from farm.feed import Expected, JobChanged, Knot, LiveCard, LiveJob, QueueChanged, QueuePlace, Snapshot
from farm.model import Card, CardKind, Node, Tier
from farm.planning.kinds import kind_of
from tests import plain_http
from tests.integration.dashboard_server import FakeScheduler, RunningDashboard, running_dashboard
from tests.integration.test_api import send
from tests.integration.test_cli_client import run
from tests.waiting import wait_until

NOW = 1000.0


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as running:
        yield running


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
            "No card has joined the farm yet: start `farm join` on a PC.",
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
                order=(farm.reader.seq(ids[2]), farm.reader.seq(ids[3])),
                newest=farm.reader.seq(ids[3]),
                levels=((0, 4),),
                curves={kind: (Knot(3, now + 150, 2.0), Knot(4, now + 200, 2.0))},
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
        listed = http.get("/jobs").json()["jobs"]
        assert {job["id"]: job["position"] for job in listed} == dict(zip(ids, (1, 2, 3, 4), strict=True))
        assert {job["id"]: job["eta"] and job["eta"]["at"] for job in listed} == dict(
            zip(ids, (now + 60, None, now + 150, now + 200), strict=True)
        )
        newer = send(http, {"preset": "draft"}).json()
        urgent = send(http, {"preset": "draft", "priority": 1}).json()
        assert (newer["position"], newer["eta"]["at"]) == (5, now + 200)
        assert urgent["position"] == 1, "the next telling puts all others one place back"
        assert newer["why_pending"] == last["why_pending"]
        assert (
            plain_http.get(f"{farm.base_url}/jobs/{ids[0]}", headers=farm.headers).text.count("data-soon")
            == 3
        )
        assert (
            "Number 1 in the queue, done about"
            in plain_http.get(f"{farm.base_url}/jobs", headers=farm.headers).text
        )
        assert " to " in run(farm, "show", ids[0]).stdout
        lines = {line.split()[0]: line for line in run(farm, "jobs").stdout.splitlines()}
        assert "queued, number 4 in the queue" in lines[ids[3]]
        assert "about " in lines[ids[3]]
        assert "about " not in lines[ids[1]]
    wait_until(
        lambda: http.get(f"/jobs/{ids[0]}").json()["eta"] is None, what="the end of the feed to be seen"
    )


def test_a_kind_that_was_never_seen_has_its_reason_from_the_moment_it_is_stored(
    http: httpx.Client, farm: RunningDashboard
):
    """It said "Waiting for its turn." until the scheduler's next telling, and far back in the queue for ever."""
    here = frozenset({"animatic", "i2vgen-xl"})
    card = Card("GPU-1", "n1", CardKind.CUDA, "RTX 2060", 6.0, 5.4, Tier.POST, (7, 5), here)
    farm.registry.see_node(Node("n1", "attic", "10.0.0.2", NOW), [card, replace(card, id="GPU-2")], NOW)
    busy = tuple(LiveCard(name, "n1", "attic", "RTX 2060", "busy", "J") for name in ("GPU-1", "GPU-2"))
    with FakeScheduler(farm.data, Snapshot(cards=busy)) as scheduler:
        wait_until(
            lambda: plain_http.get(f"{farm.base_url}/readyz", headers=farm.headers).json()["scheduler"]
        )
        both = "Waits for one of 2 cards that can run it; all are busy."
        draft = send(http, {"preset": "draft"}).json()
        assert draft["why_pending"] == both
        large = send(http, {"model": "i2vgen-xl", "prompt": "w", "width": 1280, "height": 704, "frames": 16})
        assert large.json()["why_pending"] == both
        pinned = send(http, {"preset": "draft", "needs": ["studio"]}).json()["why_pending"]
        assert pinned.startswith(
            "No card can run it. The nearest is RTX 2060: it needs a PC with the tag studio"
        )
        listed = {job["id"]: job["why_pending"] for job in http.get("/jobs").json()["jobs"]}
        assert len(listed) == 3
        assert None not in listed.values()
        kind = kind_of(farm.reader.job(draft["id"]))
        scheduler.publish(QueueChanged(time.time(), 1, 0, why={kind: "Its turn comes next."}))
        wait_until(lambda: http.get(f"/jobs/{draft['id']}").json()["why_pending"] == "Its turn comes next.")
        path = f"{farm.base_url}/jobs/{draft['id']}"
        shown = plain_http.get(path, headers=farm.headers).text
        assert "Number 1 in the queue" in shown
        assert "Its turn comes next." in shown
        assert http.post(f"/jobs/{draft['id']}/cancel").status_code == 202
        for where in (path, f"{farm.base_url}/jobs", farm.base_url):
            shown = plain_http.get(where, headers=farm.headers).text
            assert "Cancelling" in shown
            assert "Number 1 in the queue" not in shown, "a job that was cancelled has no place"
            assert "Its turn comes next." not in shown
        shown = plain_http.get(path, headers=farm.headers).text
        assert "A cancel was asked for; the job leaves the queue, and no card begins it." in shown
