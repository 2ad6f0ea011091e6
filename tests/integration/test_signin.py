"""Who gets in: tokens, sessions, the sign-in link, other sites' pages, and spare PCs that join."""

import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path

import httpx
import pytest

from dashboard import stream
from dashboard.signin import local_path
from farm.auth import TokenKind, new_token
from farm.build import build
from farm.client import Farm
from farm.store.engine import open_engine
from farm.store.users import Ended, Users
from farm.wire import ticket_from_dict
from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard, ray_is_up, running_dashboard
from tests.waiting import wait_until

HTML = {"accept": "text/html,application/xhtml+xml"}


class MovedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def farm(tmp_path: Path, clock: MovedClock) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path, clock=clock) as running:
        yield running


def get(
    farm: RunningDashboard, path: str = "/api/v1/jobs", token: str | None = None, **more
) -> httpx.Response:
    headers = {} if token is None else {"authorization": f"Bearer {token}".strip()}
    return plain_http.get(f"{farm.base_url}{path}", headers=headers | more.pop("headers", {}), **more)


def give(farm: RunningDashboard, clock: MovedClock, kind: TokenKind, **more) -> str:
    token = new_token()
    farm.registry.add_token(token, kind, "test", clock.at, **more)
    return token


def test_a_revoked_token_and_the_browsers_that_came_in_by_it_are_out_at_once(
    farm: RunningDashboard, clock: MovedClock
):
    lost = give(farm, clock, TokenKind.ADMIN)
    with plain_http.Client(base_url=farm.base_url) as thief, plain_http.Client(base_url=farm.base_url) as own:
        thief.post("/signin", data={"token": lost})
        own.post("/signin", data={"token": farm.admin_token})
        assert thief.get("/api/v1/jobs").status_code == own.get("/api/v1/jobs").status_code == 200
        engine = open_engine(farm.data.database_url, writes=True)
        assert Users(engine).end_tokens("test", clock.at) == Ended(1, 1, this_pc=False)
        engine.dispose()
        assert "revoked" in thief.get("/api/v1/jobs").json()["detail"]
        assert own.get("/api/v1/jobs").status_code == 200
    assert get(farm, token=lost).status_code == 401


def test_each_kind_of_bad_token_has_its_own_sentence(farm: RunningDashboard, clock: MovedClock):
    expired = give(farm, clock, TokenKind.ADMIN, expires_at=clock.at + 10)
    revoked = give(farm, clock, TokenKind.ADMIN)
    assert get(farm, token=expired).status_code == get(farm, token=revoked).status_code == 200
    clock.at += 10
    farm.registry.revoke_one(revoked, clock.at)
    said = {}
    for name, token in {
        "missing": None,
        "wrong": new_token(),
        "expired": expired,
        "revoked": revoked,
        "join": give(farm, clock, TokenKind.JOIN),
        "signin": farm.signin_token,
        "session": give(farm, clock, TokenKind.SESSION),
        "empty": "",
    }.items():
        answer = get(farm, token=token)
        assert answer.status_code == 401, name
        assert answer.headers["www-authenticate"].startswith("Bearer"), name
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["remedy"], name
        said[name] = answer.json()["detail"]
    assert "needed" in said["missing"] == said["empty"]
    assert "not one of this farm's" in said["wrong"]
    assert "expired" in said["expired"]
    assert "revoked" in said["revoked"]
    assert "of the kind join" in said["join"]
    assert "session" in said["session"]


def test_every_route_is_closed_save_the_named_ones(farm: RunningDashboard):
    described = get(farm, "/openapi.json", farm.admin_token).json()
    closed = 0
    assert {path for path in described["paths"] if path.startswith("/join/")} == {
        "/join/redeem",
        "/join/farm",
        "/join/ca.pem",
        "/join/install.sh",
        "/join/install.ps1",
        "/join/wheel",
        "/join/lock/{name}",
    }
    for path, methods in described["paths"].items():
        for method in methods:
            answer = plain_http.request(method, farm.base_url + path.replace("{job_id}", "x"))
            if path == "/healthz" or path.startswith("/join/"):
                assert answer.status_code in (200, 404, 422), path
            else:
                assert answer.status_code == 401, (method, path)
                closed += 1
    assert closed > 15
    for path in (
        "/openapi.json",
        "/readyz",
        "/nothing",
        "/api/v1/nothing",
        "//healthz",
        "/static/../api/v1/jobs",
    ):
        assert get(farm, path).status_code == 401, path


def test_where_no_page_names_it_a_browser_finds_the_farm_s_icon(farm: RunningDashboard):
    """A tab with a clip or an answer of the API in it asks for /favicon.ico: it was answered with 404."""
    icon = get(farm, "/favicon.ico", follow_redirects=True)
    assert (icon.status_code, icon.headers["content-type"], icon.url.path) == (
        200,
        "image/svg+xml",
        "/static/favicon.svg",
    )
    assert f'href="{icon.url.path}"' in get(farm, "/signin").text


def test_a_node_token_opens_one_door_only(farm: RunningDashboard, clock: MovedClock):
    token = give(farm, clock, TokenKind.NODE)
    assert get(farm, token=token).status_code == 401
    assert get(farm, "/openapi.json", token).status_code == 401
    refused = plain_http.post(f"{farm.base_url}/api/v1/nodes/hello", headers=farm.headers, json={})
    assert "one of the kind node is needed" in refused.json()["detail"]


def test_the_link_signs_a_browser_in_and_the_cookie_is_kept_from_scripts(farm: RunningDashboard):
    with plain_http.Client(base_url=farm.base_url) as browser:
        answer = browser.get("/signin", params={"token": farm.signin_token})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"]
        for part in ("farm_session=", "HttpOnly", "SameSite=lax", "Path=/", f"Max-Age={30 * 86400}"):
            assert part in cookie
        assert farm.signin_token not in cookie
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert browser.get("/api/v1/jobs").status_code == 200


def test_a_session_ends_after_thirty_days_and_on_signing_out(farm: RunningDashboard, clock: MovedClock):
    with plain_http.Client(base_url=farm.base_url) as browser:
        browser.post("/signin", data={"token": f" {farm.admin_token} "})  # pasted with blanks
        session = browser.cookies["farm_session"]
        clock.at += 30 * 86400 - 1
        assert browser.get("/api/v1/jobs").status_code == 200
        clock.at += 1
        assert "expired" in browser.get("/api/v1/jobs").json()["detail"]
        browser.post("/signin", data={"token": farm.admin_token})
        session = browser.cookies["farm_session"]
        assert browser.post("/signout", headers={"origin": farm.base_url}).headers["location"] == "/signin"
        assert "farm_session" not in browser.cookies
    stolen = plain_http.get(f"{farm.base_url}/api/v1/jobs", cookies={"farm_session": session})
    assert "revoked" in stolen.json()["detail"]


def test_a_wrong_token_shows_the_page_again_with_the_reason(farm: RunningDashboard, clock: MovedClock):
    expired = give(farm, clock, TokenKind.SIGN_IN, expires_at=clock.at - 1)
    for answer, word in (
        (get(farm, "/signin?token=nonsense"), "not one of this farm"),
        (get(farm, f"/signin?token={expired}"), "expired"),
        (plain_http.post(f"{farm.base_url}/signin", data={"token": ""}), "token is needed"),
    ):
        assert answer.status_code == 401
        assert word in answer.text
        assert "<form" in answer.text
        assert "set-cookie" not in answer.headers
    assert get(farm, "/signin").status_code == 200


def test_a_browser_is_led_to_the_sign_in_page_and_back(farm: RunningDashboard):
    answer = get(farm, "/jobs?status=failed", headers=HTML)
    assert (answer.status_code, answer.headers["location"]) == (303, "/signin?next=%2Fjobs%3Fstatus%3Dfailed")
    assert get(farm, "/api/v1/jobs", headers=HTML).status_code == 401
    back = plain_http.post(
        f"{farm.base_url}/signin", data={"token": farm.admin_token, "next": "/jobs?status=failed"}
    )
    assert back.headers["location"] == "/jobs?status=failed"
    elsewhere = get(farm, f"/signin?token={farm.signin_token}&next=//evil.example/")
    assert elsewhere.headers["location"] == "/"


@pytest.mark.parametrize(
    "path",
    [
        "//evil",
        "/\\evil",
        "https://evil",
        "evil",
        "",
        "/a\r\nset-cookie: x",
        "/signin?token=x",
        "/\tx",
        "\\/x",
    ],
)
def test_signing_in_leads_nowhere_else(path: str):
    assert local_path(path) == "/"


def test_another_sites_page_can_change_nothing(farm: RunningDashboard):
    """A cookie goes along with whatever page asks; only our own pages may make it do something."""
    with plain_http.Client(base_url=farm.base_url) as browser:
        browser.get("/signin", params={"token": farm.signin_token})
        path = "/api/v1/tokens"
        for headers in (
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"sec-fetch-site": "cross-site", "origin": farm.base_url},
            {"sec-fetch-site": "same-site"},
            {},
        ):
            answer = browser.post(path, json={}, headers=headers)
            assert answer.status_code == 403, headers
            assert answer.headers["content-type"] == "application/problem+json"
        for headers in ({"origin": farm.base_url}, {"sec-fetch-site": "same-origin"}):
            assert browser.post(path, json={}, headers=headers).status_code == 201, headers
    program = plain_http.post(farm.base_url + path, json={}, headers=farm.headers)
    assert program.status_code == 201  # a bearer token is never sent by itself


def test_every_answer_carries_the_security_headers(farm: RunningDashboard):
    for answer in (
        get(farm),
        get(farm, token=farm.admin_token),
        get(farm, "/healthz"),
        get(farm, "/signin"),
        get(farm, "/", headers=HTML),
        get(farm, "/api/v1/jobs/none", farm.admin_token),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] in ("no-referrer", "same-origin")
        assert "cache-control" in answer.headers
    assert get(farm, "/signin").headers["referrer-policy"] == "no-referrer"


def test_a_fault_of_ours_is_a_sentence_with_the_headers_and_without_a_trace(
    farm: RunningDashboard, caplog: pytest.LogCaptureFixture
):
    """Starlette answers such faults outside all middleware: the page came without a policy."""
    farm.data.database.rename(farm.data.database.with_suffix(".away"))
    for end in ("-wal", "-shm"):
        Path(f"{farm.data.database}{end}").unlink(missing_ok=True)
    farm.data.database.write_bytes(b"not a database" * 1000)
    answer = get(farm, token=new_token())
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "content-security-policy" in answer.headers
    assert "Traceback" not in answer.text
    assert "sqlite" not in answer.text.lower()
    assert any(record.exc_info for record in caplog.records if record.name == "dashboard.problems")


def test_no_token_is_logged(
    farm: RunningDashboard, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("DEBUG")
    get(farm, f"/signin?token={farm.signin_token}")
    get(farm, "/signin?token=wrong-but-private")
    get(farm, token="wrong-and-private")  # noqa: S106  # made up
    out, err = capfd.readouterr()
    mine = [
        record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]
    for text in (out, err, *mine):
        assert farm.signin_token not in text
        assert "private" not in text


WHO = {
    "name": "attic",
    "farm_version": build(),
    "ray_version": metadata.version("ray"),
    "python_version": platform.python_version(),
}


def code(farm: RunningDashboard, minutes: int = 60) -> str:
    answer = plain_http.post(
        f"{farm.base_url}/api/v1/tokens", headers=farm.headers, json={"minutes": minutes}
    )
    assert answer.status_code == 201
    return answer.json()["token"]


def redeem(farm: RunningDashboard, **more) -> httpx.Response:
    return plain_http.post(f"{farm.base_url}/join/redeem", json={**WHO, **more})


def hello(farm: RunningDashboard, token: str, **more) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"}
    return plain_http.post(f"{farm.base_url}/api/v1/nodes/hello", headers=headers, json={**WHO, **more})


def test_a_code_makes_one_pc_a_node_and_it_can_come_back(farm: RunningDashboard):
    ray_is_up(farm.data)
    first = code(farm)
    answer = redeem(farm, code=first)
    assert answer.status_code == 200
    ticket = ticket_from_dict(answer.json())
    assert (ticket.ray_address, ticket.ray_token, ticket.epoch) == ("10.0.0.1:6380", "ray-secret", "epoch-1")
    (node,) = farm.reader.nodes()
    assert (node.id, node.name, node.address) == (ticket.node_id, "attic", "127.0.0.1")
    again = redeem(farm, code=first)
    assert (again.status_code, "used before" in again.json()["detail"]) == (401, True)
    ray_is_up(farm.data, epoch="epoch-2")
    back = ticket_from_dict(hello(farm, ticket.node_token).json())
    assert (back.node_id, back.node_token, back.epoch) == (ticket.node_id, "", "epoch-2")
    assert back.farm_id == ticket.farm_id


def test_a_code_does_not_let_one_pc_take_the_name_of_another(farm: RunningDashboard):
    """Whoever held a join code could name a known PC, get its identity and have its own token revoked."""
    ray_is_up(farm.data)
    ticket = ticket_from_dict(redeem(farm, code=code(farm)).json())
    other = ticket_from_dict(redeem(farm, code=code(farm), node_id=ticket.node_id).json())
    assert other.node_id != ticket.node_id
    assert len(farm.reader.nodes()) == 2
    for one in (ticket, other):
        assert hello(farm, one.node_token).status_code == 200


def test_each_bad_code_has_its_own_sentence(farm: RunningDashboard, clock: MovedClock):
    ray_is_up(farm.data)
    old = code(farm, minutes=5)
    clock.at += 300
    for sent, word in (
        ("", "needed"),
        ("nonsense", "not one of this farm's"),
        (old, "expired"),
        (farm.admin_token, "of the kind admin"),
    ):
        answer = redeem(farm, code=sent)
        assert (answer.status_code, word in answer.json()["detail"]) == (401, True), answer.text
        assert "farm token" in answer.json()["remedy"]
    assert not farm.reader.nodes()


@pytest.mark.parametrize(
    ("versions", "word"),
    [
        ({"ray_version": "2.9.0"}, f'pip install "ray=={metadata.version("ray")}"'),
        ({"python_version": "3.9.1"}, f"with Python {'.'.join(platform.python_version_tuple()[:2])},"),
        (
            {"farm_version": "0.0.9+000000000000"},
            "Bring the farm's program on this PC to the head's version, or let the head do it: `",
        ),
        ({"farm_version": ""}, "curl -fsS"),
    ],
)
def test_other_versions_are_told_what_to_install_and_the_code_stays_good(
    farm: RunningDashboard, versions: dict, word: str
):
    ray_is_up(farm.data)
    good = code(farm)
    answer = redeem(farm, code=good, **versions)
    assert (answer.status_code, word in answer.json()["remedy"]) == (409, True), answer.text
    assert not farm.reader.nodes()
    joined = redeem(farm, code=good)
    assert joined.status_code == 200
    assert hello(farm, joined.json()["node_token"], **versions).status_code == 409


def test_while_ray_is_not_up_a_pc_is_told_to_wait_and_keeps_its_code(farm: RunningDashboard):
    good = code(farm)
    answer = redeem(farm, code=good)
    assert (answer.status_code, "not running yet" in answer.json()["detail"]) == (503, True)
    ray_is_up(farm.data)
    assert redeem(farm, code=good).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"node_id": "../x"}, "node_id"),
        ({"python_version": "new"}, "python_version"),
    ],
)
def test_what_a_pc_says_of_itself_is_checked(farm: RunningDashboard, wrong: dict, field: str):
    answer = redeem(farm, **{"code": "x", **wrong})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


def test_two_pcs_that_race_for_one_code_do_not_both_get_in(farm: RunningDashboard):
    from concurrent.futures import ThreadPoolExecutor

    ray_is_up(farm.data)
    good = code(farm)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: redeem(farm, code=good).status_code, range(8)))
    assert sorted(answers) == [200] + [401] * 7
    assert len(farm.reader.nodes()) == 1


def test_an_open_stream_ends_when_what_opened_it_is_revoked(
    farm: RunningDashboard, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: whoever had the stream open went on seeing all that happened, for as long as the line held."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    lost = give(farm, clock, TokenKind.ADMIN)
    headers = {"authorization": f"Bearer {lost}"}
    with plain_http.stream("GET", f"{farm.base_url}/api/v1/events", headers=headers, timeout=10) as following:
        chunks = following.iter_raw()
        for _ in range(4):  # the snapshot, and heartbeats with a look each
            next(chunks)
        farm.registry.revoke_one(lost, clock.at)
        assert next(islice(chunks, 100, None), None) is None, "it has ended by then"


def test_the_process_stops_at_once_with_streams_open_and_logs_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Uvicorn waits for open answers, and an event stream never ends by itself: `farm up` would hang on Ctrl-C."""
    with running_dashboard(tmp_path) as made:
        data, token, signin = made.data, made.admin_token, made.signin_token
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "dashboard", "--data", str(data.root), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url), 30, "the dashboard")
        assert plain_http.get(f"{url}/signin?token={signin}").status_code == 303
        monkeypatch.setenv("FARM_DATA", str(data.root))
        with Farm.local() as client:  # finds this PC's head on whatever port
            assert (client.head, client.jobs().jobs) == (url, [])
        with plain_http.stream(
            "GET", f"{url}/api/v1/events", headers={"authorization": f"Bearer {token}"}, timeout=10
        ) as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("id: ")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            list(lines)
            out, _ = process.communicate(timeout=10)
        assert time.monotonic() - began < 2.0
    finally:
        process.kill()
        process.wait()
    assert process.returncode in (0, -signal.SIGTERM), out
    assert signin not in out
    assert token not in out
    assert "Traceback" not in out


def answers(url: str) -> bool:
    try:
        return plain_http.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False
