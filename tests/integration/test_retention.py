"""Retention over HTTP: the star, what a removed job answers, and the Settings page's preview, accounts and tokens."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from farm.artifacts import ArtifactStore
from farm.auth import Role, Scope, TokenKind, new_token
from farm.clock import SystemClock
from farm.retention import Limits
from farm.store.engine import open_engine
from farm.store.leftovers import Leftovers
from farm.store.retention import RetentionReader
from farm.store.users import Users
from scheduler.retention import Retention
from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard, running_dashboard
from tests.integration.test_api import finish, send

HTML = {"accept": "text/html"}


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDashboard]:
    monkeypatch.setenv("FARM_KEEP_DAYS", "7")
    with running_dashboard(tmp_path) as running:
        yield running


def look(farm: RunningDashboard) -> list[str]:
    """What the scheduler does every ten minutes, with files that nobody has touched lately."""
    for file in farm.stored_files:
        os.utime(file, (1.0, 1.0))
    artifacts = ArtifactStore(farm.data.artifacts)
    reader = RetentionReader(farm.reader._engine, artifacts)
    limits = Limits(farm.settings.keep_days, farm.settings.keep_gb)
    leftovers = Leftovers(farm.writer._engine)
    return Retention(reader, farm.writer, leftovers, artifacts, limits, SystemClock()).look()


def page(farm: RunningDashboard, path: str, headers: dict | None = None) -> str:
    answer = plain_http.get(farm.base_url + path, headers=(headers or farm.headers) | HTML)
    assert answer.status_code == 200
    return re.sub(r"\s+", " ", answer.text)


def test_a_removed_job_says_so_everywhere_and_a_star_prevents_it(farm: RunningDashboard, http: httpx.Client):
    ids = [send(http).json()["id"] for _ in range(2)]
    for job_id in ids:
        finish(farm, job_id)  # at second 1010 of 1970, so long ago
    starred, other = ids
    shown = http.post(f"/jobs/{starred}/star", json={"starred": True})
    assert (shown.status_code, shown.json()["starred"]) == (200, True)
    assert "☆ Keep" in page(farm, f"/jobs/{other}")
    assert "★ Kept" in page(farm, f"/jobs/{starred}")
    going = re.search(r'id="going">([^<]*)<', page(farm, "/settings"))
    assert going is not None
    assert going[1] == "picture and clip of 1 job, within ten minutes"
    assert "not counted yet" in page(farm, "/settings")
    told = http.get("/settings/retention?keep_days=7").json()
    assert told == {"jobs": 1, "bytes": 0}, "all of its files are the starred one's too"

    assert look(farm) == [other]
    told = http.get(f"/jobs/{other}").json()
    assert told["status"] == "finished"
    assert told["removed_at"] is not None
    assert told["urls"]["video"] is None
    for file in ("video", "thumbnail", "thumbnail?of=input", "input"):
        gone = http.get(f"/jobs/{other}/{file}")
        assert gone.status_code == 404
        assert "deleted on" in gone.json()["detail"]
        assert http.get(f"/jobs/{starred}/{file}").status_code == 200
    assert http.post(f"/jobs/{other}/star").status_code == 409
    assert "Picture and clip were removed" in page(farm, f"/jobs/{other}")
    assert other in page(farm, "/jobs")
    assert "nothing now" in page(farm, "/settings")
    assert re.search(r'id="stock">1.MB of 1 job, counted <', page(farm, "/settings"))

    assert http.post(f"/jobs/{starred}/star", json={"starred": False}).json()["starred"] is False
    assert look(farm) == [starred]
    assert farm.stored_files == []
    again = http.post("/jobs", data={"input_sha256": told["input_sha256"], "settings": '{"preset": "draft"}'})
    assert again.status_code == 422
    assert send(http).status_code == 201


def test_a_failed_job_whose_picture_is_gone_is_not_tried_again(farm: RunningDashboard, http: httpx.Client):
    job_id = send(http).json()["id"]
    assert farm.writer.give_up_queued(job_id, "no card", 1000.0)
    assert look(farm) == [job_id]
    for path in ("/jobs", f"/jobs/{job_id}"):
        assert 'data-do="retry"' not in page(farm, path)
    refused = http.post(f"/jobs/{job_id}/retry")
    assert (refused.status_code, "deleted" in refused.json()["detail"]) == (409, True)


def test_a_removed_job_is_made_again_without_its_picture_and_with_one_that_another_job_has(
    farm: RunningDashboard, http: httpx.Client
):
    """The form showed a broken picture, and sending it ended in an error."""
    gone, kept = (send(http).json() for _ in range(2))
    for job in (gone, kept):
        assert farm.writer.give_up_queued(job["id"], "no card", 1000.0)
    assert http.post(f"/jobs/{kept['id']}/star").status_code == 200
    assert look(farm) == [gone["id"]]
    path = f"/submit?again={gone['id']}"
    shown = page(farm, path)
    assert f'data-input="{gone["input_sha256"]}"' in shown
    assert f'src="/api/v1/jobs/{kept["id"]}/input"' in shown
    assert http.post(f"/jobs/{kept['id']}/star", json={"starred": False}).status_code == 200
    assert look(farm) == [kept["id"]]
    shown = page(farm, path)
    assert "Its picture was removed" in shown
    assert "data-input" not in shown
    assert "/input" not in shown


@pytest.mark.parametrize("body", [{"starred": "perhaps"}, [], "yes"])
def test_a_bad_star_is_refused(http: httpx.Client, body: object):
    job_id = send(http).json()["id"]
    assert http.post(f"/jobs/{job_id}/star", json=body).status_code == 422
    assert http.get(f"/jobs/{job_id}").json()["starred"] is False


def test_settings_show_accounts_and_tokens_to_an_admin_only(farm: RunningDashboard):
    engine = open_engine(farm.data.database_url, writes=True)
    Users(engine).add("ann", Role.SUBMITTER, "hash", 1.0)
    secrets = {scope: new_token() for scope in Scope}
    for scope, secret in secrets.items():
        farm.registry.add_token(secret, TokenKind.API, f"for {scope}", 1.0, scope=scope)
    farm.registry.add_token(new_token(), TokenKind.API, "expired one", 1.0, scope=Scope.READ, expires_at=2.0)
    engine.dispose()
    shown = page(farm, "/settings")
    for text in ('<th scope="row">ann</th><td>submitter</td>', "for submit", "never"):
        assert text in shown
    assert "expired one" not in shown
    assert not any(secret in shown for secret in secrets.values())
    for scope in (Scope.READ, Scope.SUBMIT):
        seen = page(farm, "/settings", {"authorization": f"Bearer {secrets[scope]}"})
        assert "for submit" not in seen
        assert '<th scope="row">ann</th>' not in seen
        assert "<dd>7 days</dd>" in seen
