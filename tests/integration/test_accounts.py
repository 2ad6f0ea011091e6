"""Accounts over HTTP: signing in, what each role may do on every route, whose jobs are whose, and the brake on guessing."""

import io
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from PIL import Image

from dashboard.access import NEEDS, needed
from dashboard.app import create_app
from dashboard.signin import NODE_PATHS
from dashboard.tries import PER_NAME, WINDOW_S
from farm.auth import Role, Scope, TokenKind, new_token
from farm.model import Node
from farm.settings import FarmSettings
from farm.store.engine import open_engine
from farm.store.users import Users
from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard, running_dashboard
from tests.integration.test_api import finish

PASSWORD = "correct horse battery"  # noqa: S105  # of made-up people
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""A hash tells what it takes to check a password by it. What a real one takes is for `tests/unit/test_accounts.py` to bear."""
HTML = {"accept": "text/html,application/xhtml+xml"}


class HandClock:
    """A clock that a test moves."""

    at = 1_800_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def farm(tmp_path: Path, clock: HandClock) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path, clock=clock) as running:
        engine = open_engine(running.data.database_url, writes=True)
        for name, role in (
            ("vic", Role.VIEWER),
            ("sue", Role.SUBMITTER),
            ("sam", Role.SUBMITTER),
            ("ada", Role.ADMIN),
        ):
            Users(engine).add(name, role, QUICK.hash(PASSWORD), clock.at)
        yield running
        engine.dispose()


@contextmanager
def sign_in(farm: RunningDashboard, name: str, password: str = PASSWORD) -> Iterator[httpx.Client]:
    with plain_http.Client(base_url=farm.base_url, headers={"origin": farm.base_url}) as browser:
        answer = browser.post("/signin", data={"name": name, "password": password, "next": "/jobs"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs"), answer.text
        yield browser


def token_of(farm: RunningDashboard, clock: HandClock, scope: Scope, user: str | None = None) -> dict:
    secret = new_token()
    farm.registry.add_token(secret, TokenKind.API, "script", clock.at, scope=scope, user=user)
    return {"authorization": f"Bearer {secret}"}


def submit(http: httpx.Client) -> httpx.Response:
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(data, "PNG")
    return http.post(
        "/api/v1/jobs", files={"image": data.getvalue()}, data={"settings": '{"preset": "draft"}'}
    )


def app_of(farm: RunningDashboard) -> FastAPI:
    return create_app(farm.data, FarmSettings(data=farm.data.root))


ANY_ID = defaultdict(lambda: "none")
"""Whatever a path is filled in with."""


def test_every_route_says_what_it_needs_and_the_table_names_no_other(farm: RunningDashboard):
    app = app_of(farm)
    described = {
        (method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods
    }
    assert len(described) > 25
    assert described <= set(NEEDS)
    routes = {
        (method, str(route.path).replace(":path}", "}"))
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
        if method != "HEAD"
        and not str(route.path).startswith("/{")  # the page that says that there is nothing
    }
    assert routes == set(NEEDS)
    for (method, path), need in NEEDS.items():
        filled = path.format_map(ANY_ID)
        assert needed(method, filled) == (need or Scope.READ), (method, path)
    assert needed("HEAD", "/submit") == Scope.SUBMIT
    assert needed("DELETE", "/api/v1/unheard") == Scope.ADMIN


@pytest.mark.parametrize("scope", Scope)
def test_every_route_refuses_what_is_too_small_and_says_what_is_missing(
    farm: RunningDashboard, clock: HandClock, scope: Scope
):
    headers = token_of(farm, clock, scope)
    refused = 0
    for (method, path), need in NEEDS.items():
        if need is None or path.endswith("/events"):
            continue
        filled = path.format_map(ANY_ID)
        answer = plain_http.request(method, farm.base_url + filled, headers=headers)
        assert (answer.status_code == 403) == (not scope.covers(need)), (method, path, answer.text)
        assert answer.status_code < 500, (method, path)
        if answer.status_code == 403:
            refused += 1
            assert answer.headers["content-type"] == "application/problem+json"
            said = answer.json()
            assert f"has the scope {scope}; this needs {need}." in said["detail"]
            assert said["remedy"]
            assert "content-security-policy" in answer.headers
    assert refused == {Scope.READ: 15, Scope.SUBMIT: 7, Scope.ADMIN: 0}[scope]
    for path in NODE_PATHS:
        assert plain_http.post(farm.base_url + path, headers=headers, json={}).status_code == 401


def test_a_submitter_controls_their_own_jobs_and_an_admin_all(farm: RunningDashboard):
    with sign_in(farm, "sue") as sue, sign_in(farm, "sam") as sam, sign_in(farm, "ada") as ada:
        job = submit(sue).json()
        assert job["submitted_by"] == "sue"
        path = f"/api/v1/jobs/{job['id']}"
        assert sam.get(path).status_code == 200
        for verb, body in (
            ("priority", {"priority": 3}),
            ("cancel", None),
            ("retry", None),
            ("star", {}),
            ("rating", {"rating": 3}),
        ):
            answer = sam.post(f"{path}/{verb}", json=body)
            assert answer.status_code == 403, verb
            assert "is sue's" in answer.json()["detail"]
        assert farm.reader.job(job["id"]).cancel_requested is False
        assert sue.post(f"{path}/priority", json={"priority": 2}).status_code == 202
        assert ada.post(f"{path}/priority", json={"priority": 5}).status_code == 202
        assert sue.post(f"{path}/cancel").status_code == 202
        assert sam.post("/api/v1/jobs/none/cancel").status_code == 404


def test_a_viewer_sees_and_changes_nothing(farm: RunningDashboard):
    with sign_in(farm, "vic") as vic:
        assert submit(vic).status_code == 403
        assert farm.stored_files == []
        page = vic.get("/jobs", headers=HTML)
        assert page.status_code == 200
        assert 'href="/submit"' not in page.text
        refused = vic.get("/submit", headers=HTML)
        assert refused.status_code == 403
        assert refused.headers["content-type"].startswith("text/html")
        assert "this needs submit" in refused.text
        first = vic.get("/", headers=HTML).text
        assert 'href="/cards#add"' not in first
        assert "The farm's admin can add one." in first
        assert "with the line below" not in vic.get("/cards", headers=HTML).text
        assert vic.post("/signout").headers["location"] == "/signin"
    with sign_in(farm, "sue") as sue:
        assert 'href="/submit"' in sue.get("/", headers=HTML).text
    with sign_in(farm, "ada") as ada:
        assert 'href="/cards#add"' in ada.get("/", headers=HTML).text


def test_a_page_offers_only_what_whoever_looks_at_it_may_do(farm: RunningDashboard):
    """Stars, check boxes and buttons for many jobs were shown to everyone, and each ended in a 403."""
    with sign_in(farm, "sue") as sue:
        job_id = submit(sue).json()["id"]
        finish(farm, job_id)
        assert sue.post(f"/api/v1/jobs/{job_id}/rating", json={"rating": 4}).status_code == 200
    for name, chooses, controls in (
        ("vic", False, False),
        ("sam", True, False),
        ("sue", True, True),
        ("ada", True, True),
    ):
        with sign_in(farm, name) as http:
            many = http.get("/jobs", headers=HTML).text
            assert ('id="bulk"' in many, 'id="pick-all"' in many) == (chooses, chooses), name
            assert ('name="pick"' in many) == controls, name
            one = http.get(f"/jobs/{job_id}", headers=HTML).text
            assert ("data-rate=" in one, "Rated 4 of 5" in one) == (controls, not controls), name


def test_a_token_is_its_owners_and_does_no_more_than_its_scope(farm: RunningDashboard, clock: HandClock):
    with plain_http.Client(
        base_url=farm.base_url, headers=token_of(farm, clock, Scope.ADMIN, "sue")
    ) as program:
        job = submit(program).json()
        assert job["submitted_by"] == "sue"
        refused = program.post("/api/v1/tokens", json={})
        assert (refused.status_code, "account sue" in refused.json()["detail"]) == (403, True)
    with sign_in(farm, "sue") as sue:
        assert sue.post(f"/api/v1/jobs/{job['id']}/cancel").status_code == 202
    reads = token_of(farm, clock, Scope.READ, "ada")
    assert plain_http.post(f"{farm.base_url}/api/v1/tokens", json={}, headers=reads).status_code == 403


def test_an_admin_ends_a_token_and_others_and_a_pc_s_own_cannot_be_ended_so(
    farm: RunningDashboard, clock: HandClock
) -> None:
    script = token_of(farm, clock, Scope.SUBMIT, "ada")
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [], clock.at)
    farm.registry.add_token(new_token(), TokenKind.NODE, "attic", clock.at, node_id="n1")
    here = farm.server.config.app.state.parts.users.tokens(clock.at)
    (its_id,) = [one.id for one in here if one.user == "ada"]
    address = f"{farm.base_url}/api/v1/tokens/{its_id}"
    assert plain_http.delete(address, headers=script).status_code == 403
    with sign_in(farm, "ada") as ada:  # an admin
        ended = ada.delete(f"/api/v1/tokens/{its_id}")
        assert (ended.status_code, ended.json()["sessions"], ended.json()["this_pc"]) == (200, 0, False)
        assert "revoked" in plain_http.get(f"{farm.base_url}/api/v1/jobs", headers=script).json()["detail"]
        again = ada.delete(f"/api/v1/tokens/{its_id}")
        assert (again.status_code, "farm token list" in again.json()["remedy"]) == (404, True)
        assert ada.delete("/api/v1/tokens/attic").status_code == 404
        assert ada.get("/api/v1/jobs").status_code == 200, "who came in by another way stays"
        assert (
            ada.delete(f"/api/v1/tokens/{its_id}", headers={"sec-fetch-site": "cross-site"}).status_code
            == 403
        )


def test_an_account_that_is_taken_away_is_out_at_once(farm: RunningDashboard, clock: HandClock):
    engine = open_engine(farm.data.database_url, writes=True)
    with sign_in(farm, "sue") as sue:
        assert sue.get("/api/v1/jobs").status_code == 200
        (kept,) = [user for user in Users(engine).all() if user.name == "sue"]
        assert kept.signed_in_at == clock.at
        Users(engine).remove("sue", clock.at)
        assert "revoked" in sue.get("/api/v1/jobs").json()["detail"]
    engine.dispose()


def test_a_session_with_a_password_ends_after_thirty_days(farm: RunningDashboard, clock: HandClock):
    with sign_in(farm, "sue") as sue:
        clock.at += 30 * 86400 - 1
        assert sue.get("/api/v1/jobs").status_code == 200
        clock.at += 1
        assert "expired" in sue.get("/api/v1/jobs").json()["detail"]


def wrong(farm: RunningDashboard, name: str, password: str = "wrong") -> httpx.Response:  # noqa: S107  # made up
    return plain_http.post(f"{farm.base_url}/signin", data={"name": name, "password": password})


def test_name_and_password_are_refused_in_the_same_words_whichever_is_wrong(farm: RunningDashboard):
    one, two = wrong(farm, "sue"), wrong(farm, "nobody")
    assert (one.status_code, one.text) == (401, two.text)
    assert "do not belong together" in one.text
    assert "set-cookie" not in one.headers
    assert wrong(farm, "SUE", PASSWORD).status_code == 401


def test_guessing_is_braked_and_a_right_password_does_not_help_while_it_is(
    farm: RunningDashboard, clock: HandClock
):
    for _ in range(PER_NAME):
        assert wrong(farm, "sue").status_code == 401
    for password in ("wrong", PASSWORD):
        braked = wrong(farm, "sue", password)
        assert braked.status_code == 429
        assert braked.headers["retry-after"] == str(int(WINDOW_S))
        assert "failed too often" in braked.text
    with sign_in(farm, "sam"):
        pass
    link = plain_http.get(f"{farm.base_url}/signin", params={"token": farm.signin_token})
    assert link.status_code == 303
    clock.at += WINDOW_S
    with sign_in(farm, "sue"):
        pass


def test_the_form_asks_for_a_name_only_where_there_are_accounts(farm: RunningDashboard, tmp_path: Path):
    assert 'name="password"' in plain_http.get(f"{farm.base_url}/signin").text
    with running_dashboard(tmp_path / "other") as other:
        assert 'name="password"' not in plain_http.get(f"{other.base_url}/signin").text
