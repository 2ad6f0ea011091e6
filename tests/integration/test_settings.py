"""Settings over HTTP: what holds and why, changing it, and who may."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from farm.auth import Scope, TokenKind, new_token
from farm.model import Card, CardKind, Coming, Node
from farm.planning.precedence import AFFINITY, AGEING_S, PATIENCE
from tests import plain_http
from tests.integration.dashboard_server import FakeScheduler, RunningDashboard, running_dashboard
from tests.integration.test_api import finish, send
from tests.waiting import wait_until


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningDashboard]:
    monkeypatch.setenv("FARM_LEASE_S", "45")
    with running_dashboard(tmp_path) as running:
        yield running


def test_a_setting_is_changed_kept_with_who_and_when_and_holds_at_once(
    farm: RunningDashboard, http: httpx.Client
) -> None:
    before = {one["name"]: one for one in http.get("/settings").json()}
    assert before["tiers"] == {
        "name": "tiers",
        "value": "soft",
        "default": "soft",
        "source": "default",
        "variable": "FARM_TIERS",
        "changed_at": None,
        "changed_by": None,
    }
    with FakeScheduler(farm.data) as scheduler:
        wait_until(lambda: scheduler.connected)
        told = http.patch("/settings", json={"tiers": "off", "keep_days": 90})
        wait_until(lambda: scheduler.wakes == 1, what="the scheduler is woken")
    assert told.status_code == 200
    after = {one["name"]: one for one in told.json()}
    assert (after["tiers"]["value"], after["tiers"]["source"]) == ("off", "page")
    assert (after["keep_days"]["value"], after["keep_days"]["changed_by"]) == (90.0, "admin")
    assert after["keep_days"]["changed_at"] is not None
    parts = farm.server.config.app.state.parts
    assert (parts.in_force().tiers, parts.in_force().keep_days) == ("off", 90.0)
    assert http.patch("/settings", json={"tiers": None}).json()[0]["source"] == "default"
    assert parts.in_force().tiers == "soft"


def test_what_the_environment_says_is_shown_so_and_not_changed(
    farm: RunningDashboard, http: httpx.Client
) -> None:
    (lease,) = (one for one in http.get("/settings").json() if one["name"] == "lease_s")
    assert (lease["value"], lease["source"], lease["variable"]) == (45.0, "environment", "FARM_LEASE_S")
    refused = http.patch("/settings", json={"tiers": "off", "lease_s": 60})
    assert refused.status_code == 409
    assert (
        refused.json()["detail"]
        == "lease_s cannot be changed here: set by FARM_LEASE_S where `farm up` was started."
    )
    assert farm.server.config.app.state.parts.knobs.newest() == {}, "all or nothing"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"keep_days": 0}, "keep_days"),
        ({"keep_gb": "many"}, "keep_gb"),
        ({"tiers": "hard"}, "tiers"),
        ({"keep_years": 3}, "keep_years"),
        ({"max_upload_mib": 0}, "max_upload_mib"),
        ({"max_upload_mib": 4096}, "max_upload_mib"),
    ],
)
def test_a_bad_value_is_refused_with_its_name(
    http: httpx.Client, body: dict[str, object], field: str
) -> None:
    refused = http.patch("/settings", json=body)
    assert refused.status_code == 422
    assert [one["field"] for one in refused.json()["errors"]] == [field]


def test_the_largest_picture_is_set_with_who_and_when_and_holds_at_once(
    farm: RunningDashboard, http: httpx.Client
) -> None:
    large = bytes(3 << 19)  # 1.5 MiB: no picture, but that is only found out once it is taken in
    assert send(http, image=large).status_code == 422
    told = {one["name"]: one for one in http.patch("/settings", json={"max_upload_mib": 1}).json()}
    set_to = told["max_upload_mib"]
    assert (set_to["value"], set_to["source"], set_to["changed_by"]) == (1.0, "page", "admin")
    assert set_to["changed_at"] is not None
    refused = send(http, image=large)
    assert refused.status_code == 413
    assert refused.json()["detail"] == "The upload is larger than 1 MiB, the most that this farm takes here."
    assert "Settings" in refused.json()["remedy"]
    shown = plain_http.get(f"{farm.base_url}/submit", headers=farm.headers | {"accept": "text/html"}).text
    assert "up to 1 MiB each" in shown
    http.patch("/settings", json={"max_upload_mib": None})
    assert send(http, image=large).status_code == 422, "the default again"


def test_what_is_wrong_with_a_limit_is_said(http: httpx.Client) -> None:
    for value, what in ((0.5, "greater than or equal to 1"), (600, "less than or equal to 512")):
        refused = http.patch("/settings", json={"max_upload_mib": value})
        (error,) = refused.json()["errors"]
        assert error["field"] == "max_upload_mib"
        assert what in error["message"]


def test_a_largest_picture_of_the_environment_is_not_changed(tmp_path: Path) -> None:
    with running_dashboard(tmp_path, max_upload_mib=2) as running:
        api, mine = f"{running.base_url}/api/v1", running.headers
        refused = httpx.patch(f"{api}/settings", json={"max_upload_mib": 8}, headers=mine)
        assert refused.status_code == 409
        assert "FARM_MAX_UPLOAD_MIB" in refused.json()["detail"]
        page = plain_http.get(f"{running.base_url}/settings", headers=mine | {"accept": "text/html"}).text
        assert 'value="2" disabled' in page


def test_only_an_admin_changes_settings(farm: RunningDashboard, http: httpx.Client) -> None:
    token = new_token()
    farm.registry.add_token(token, TokenKind.API, "script", 1.0, scope=Scope.SUBMIT)
    mine = {"authorization": f"Bearer {token}"}
    assert http.get("/settings", headers=mine).status_code == 200
    assert http.patch("/settings", json={"tiers": "off"}, headers=mine).status_code == 403
    page = plain_http.get(f"{farm.base_url}/settings", headers=mine | {"accept": "text/html"}).text
    assert 'value="strict" disabled' in page
    assert ">Save</button>" not in page


def test_the_page_tells_the_policy_in_force_and_what_lies_on_each_pc(
    farm: RunningDashboard, http: httpx.Client
) -> None:
    coming = Coming("svd-xt", 10**9, 4 * 10**9)
    card = Card(
        "GPU-1",
        "n1",
        CardKind.CUDA,
        "RTX 2060",
        models=frozenset({"animatic", "i2vgen-xl"}),
        coming=(coming,),
    )
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [card], 1.0)

    def page() -> str:
        headers = farm.headers | {"accept": "text/html"}
        text = html.unescape(plain_http.get(f"{farm.base_url}/settings", headers=headers).text)
        return re.sub(r"<[^>]*>|\s+", " ", text.replace("\u202f", " "))

    told = page()
    assert f"waited {PATIENCE:g} times its own length" in told
    assert (
        f"due by more than {AFFINITY:g} times the load: changing takes at the most {100 / AFFINITY:g} % of"
        in told
    )
    assert AGEING_S == 3600.0
    assert "Each hour in vain counts as one more step of priority" in told
    assert re.search(r"attic +comes with the farm +RTX 2060 +about 4\.6 GiB +RTX 2060", told), told
    assert "svd-xt 25 %, 3.0 GB to go" in told


def test_what_limits_would_delete_is_told_before_they_are_set(
    farm: RunningDashboard, http: httpx.Client
) -> None:
    job_id = send(http).json()["id"]
    finish(farm, job_id)  # in 1970
    size = sum(file.stat().st_size for file in farm.stored_files)
    assert http.get("/settings/retention", params={"keep_days": 7}).json() == {"jobs": 1, "bytes": size}
    assert http.get("/settings/retention", params={"keep_gb": 1}).json() == {"jobs": 0, "bytes": 0}
    assert http.get("/settings/retention").json() == {"jobs": 0, "bytes": 0}
    assert http.get("/settings/retention", params={"keep_days": -1}).status_code == 422
