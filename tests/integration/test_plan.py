"""`POST /api/v1/plan` and `farm plan` over a real dashboard, SQLite file and process."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from dashboard.api.plan import EXAMPLE
from farm.client import Farm
from farm.errors import BadInputError
from farm.feed import CardChanged, LiveCard, Snapshot
from farm.ids import new_id
from farm.model import Card, CardKind, MemoryPlan, Node
from farm.planning.foresee import imagined_card
from farm.states import AttemptMove
from farm.store.claims import Assignment
from farm.store.writer import Result
from tests import plain_http
from tests.farm_verbs import run_here
from tests.integration.dashboard_server import FakeScheduler, RunningDashboard, running_dashboard
from tests.integration.test_api import send
from tests.integration.test_cli_client import run
from tests.waiting import wait_until

RTX_2060 = replace(
    imagined_card("RTX 2060", models=("i2vgen-xl", "animatic")), id="GPU-0f7d", node_id="n1", name="RTX 2060"
)
CPU = Card("CPU-n2", "n2", CardKind.CPU, "CPU of den", usable_gib=4.0, models=frozenset({"animatic"}))


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as running:
        running.registry.see_node(Node("n1", "attic", "10.0.0.7"), [RTX_2060], 1.0)
        running.registry.see_node(Node("n2", "den", "10.0.0.8"), [CPU], 1.0)
        yield running


def test_each_card_is_foreseen_as_the_description_shows_it(http: httpx.Client, farm: RunningDashboard):
    answer = http.post("/plan", json={"preset": "native"})
    assert answer.status_code == 200
    best, other = answer.json()
    assert best == EXAMPLE | {"card_id": "GPU-0f7d", "state": "not known"}  # no scheduler runs
    assert (other["card"], other["node_name"], other["fits"], other["eligible"]) == (
        "CPU of den",
        "den",
        False,
        False,
    )
    assert "i2vgen-xl needs a GPU, CPU of den is a CPU" in other["reasons"]
    assert http.get("/jobs").json()["jobs"] == []
    described = plain_http.get(f"{farm.base_url}/openapi.json", headers=farm.headers).json()
    post = described["paths"]["/api/v1/plan"]["post"]
    assert post["requestBody"]["content"]["application/json"]["example"]["preset"] == "native"
    assert "preset" in post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert post["responses"]["200"]["content"]["application/json"]["example"] == [EXAMPLE]
    assert set(described["components"]["schemas"]["CardForecast"]["properties"]) == set(EXAMPLE)


def test_a_card_that_does_not_answer_comes_last_and_says_so(http: httpx.Client, farm: RunningDashboard):
    """It was offered in green, and as the best where it was the fastest."""
    near = replace(RTX_2060, id="GPU-near", node_id="n2", name="GTX 1660", usable_gib=5.0)
    kept = replace(near, id="GPU-kept", name="GTX 1070")
    farm.registry.see_node(Node("n2", "den", "10.0.0.8"), [CPU, near, kept], 1.0)
    cards = (
        LiveCard(near.id, "n2", "den", near.name, "busy"),
        LiveCard(kept.id, "n2", "den", kept.name, "kept"),
        LiveCard(CPU.id, "n2", "den", CPU.name, "idle"),
    )
    live = farm.server.config.app.state.parts.live
    told, reasons = {}, {}
    with FakeScheduler(farm.data, Snapshot(cards=cards)) as scheduler:
        for state in ("idle", "not answering"):
            first = LiveCard(RTX_2060.id, "n1", "attic", RTX_2060.name, state)  # type: ignore[arg-type]  # both are states of cards
            scheduler.publish(CardChanged(first))
            wait_until(lambda now=first: live.cards.get(now.id) == now, what=state)
            found = http.post("/plan", json={"preset": "native"}).json()
            told[state] = [(one["card"], one["state"], one["eligible"], one["able"]) for one in found]
            reasons = {one["card"]: one["reasons"] for one in found}
    at_rest = ("GTX 1070", "kept", False, True)
    cpu = ("CPU of den", "idle", False, False)
    assert told["idle"] == [("RTX 2060", "idle", True, True), ("GTX 1660", "busy", True, True), at_rest, cpu]
    assert told["not answering"] == [
        ("GTX 1660", "busy", True, True),
        at_rest,
        ("RTX 2060", "not answering", False, True),
        cpu,
    ]
    assert reasons["RTX 2060"] == ["RTX 2060 does not answer"]


def test_nothing_sent_is_what_a_job_without_settings_would_get(http: httpx.Client):
    for empty in (b"", b"{}"):
        best = http.post("/plan", content=empty).json()[0]
        assert (best["card"], best["tier"], best["eligible"]) == ("RTX 2060", "preview", True)


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"preset": "native", "frames": 0}, "settings.frames"),
        ({"preset": "nativ"}, "settings.preset"),
        ({"width": 513}, "settings.width"),
        ({"colour": "red"}, "settings.colour"),
        ([1], "settings"),
    ],
)
def test_what_cannot_be_planned_is_refused_by_its_field(http: httpx.Client, sent: object, field: str):
    answer = http.post("/plan", json=sent)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_a_token_is_needed(farm: RunningDashboard):
    assert plain_http.post(f"{farm.base_url}/api/v1/plan", json={"preset": "draft"}).status_code == 401


def test_what_a_card_did_makes_its_forecast_measured(http: httpx.Client, farm: RunningDashboard):
    before = http.post("/plan", json={"preset": "standard"}).json()[0]
    job_id = send(http, {"preset": "standard", "prompt": "waves"}).json()["id"]
    attempt = new_id()
    plan = MemoryPlan(**before["memory_plan"])
    farm.writer.assign([Assignment(attempt, job_id, "n1", RTX_2060.id, RTX_2060.name, plan)], 1000.0)
    farm.writer.progress(attempt, AttemptMove.RUN, 1001.0, 1)
    spent = {"load": 5.0, "denoise": 2 * before["seconds"]}
    picture = farm.stored_files[0].name
    assert farm.writer.finish(attempt, Result(picture, picture, spent, before["peak_gib"], 1009.0), 1010.0)
    after = http.post("/plan", json={"preset": "standard"}).json()[0]
    assert (before["basis"], after["basis"]) == ("catalogue", "measured")
    assert after["seconds"] == pytest.approx(before["seconds"] * 2**0.885, rel=0.01)
    assert after["seconds_high"] / after["seconds"] < before["seconds_high"] / before["seconds"]


def test_how_often_predictions_held_is_told_by_the_api_and_on_the_page_of_cards(
    http: httpx.Client, farm: RunningDashboard
):
    assert http.get("/stats/calibration").json() == {
        "aim": 0.8, "renders": 0, "within": None, "quicker": None, "slower": None, "median_error": None, "by_basis": {},
    }  # fmt: skip
    picture = None
    for number, (took, basis) in enumerate(((100.0, "catalogue"), (119.0, "measured"), (121.0, "measured"))):
        job_id = send(http, {"preset": "standard", "prompt": "waves"}).json()["id"]
        picture = picture or farm.stored_files[0].name
        assignment = Assignment(
            new_id(), job_id, "n1", RTX_2060.id, RTX_2060.name, MemoryPlan(),
            predicted_s=100.0, predicted_low_s=80.0, predicted_high_s=120.0, predicted_basis=basis,
        )  # fmt: skip
        farm.writer.assign([assignment], 1000.0 + number)
        farm.writer.progress(assignment.attempt_id, AttemptMove.RUN, 1001.0, 1)
        spent = {"load": 500.0, "denoise": took}
        assert farm.writer.finish(assignment.attempt_id, Result(picture, picture, spent, 5.0, 1009.0), 1010.0)
        told = http.get(f"/jobs/{job_id}").json()["attempts"][0]
        assert (told["predicted_low_s"], told["predicted_high_s"], told["predicted_basis"]) == (
            80.0,
            120.0,
            basis,
        )
    found = http.get("/stats/calibration").json()
    assert (found["renders"], found["slower"], found["quicker"]) == (3, pytest.approx(1 / 3), 0.0)
    assert found["within"] == pytest.approx(2 / 3)
    assert {basis: one["within"] for basis, one in found["by_basis"].items()} == {
        "catalogue": 1.0,
        "measured": 0.5,
    }
    page = plain_http.get(f"{farm.base_url}/cards", headers=farm.headers).text
    assert "Of the last 3 renders, 67 % took as long as was foretold (aim: 80 %)." in page


def test_the_client_and_the_command_tell_the_same(farm: RunningDashboard, http: httpx.Client):
    told = http.post("/plan", json={"preset": "native"}).json()
    with Farm(farm.base_url, farm.admin_token) as client:
        assert [one.model_dump(mode="json") for one in client.plan(preset="native", steps=None)] == told
        with pytest.raises(BadInputError) as wrong:
            client.plan(preset="native", frames=0)
        assert wrong.value.field == "settings.frames"
    assert json.loads(run(farm, "plan", "--preset", "native", "--json").stdout) == told
    said = run(farm, "plan", "--preset", "native").stdout
    assert "RTX 2060 6 GB on attic" in said
    share = told[0]["memory_plan"]["weights_on_card"]
    assert f"{100 * share:.0f} % of the weights stay, the rest streams" in said
    assert "CPU of den on den: i2vgen-xl needs a GPU" in said


def test_bad_arguments_end_with_2_and_no_farm_with_1(farm: RunningDashboard, tmp_path: Path):
    assert "RTX 2060" in run(farm, "plan", "--card", "RTX 2061", code=2).stderr
    assert "--card" in run(farm, "plan", "--vram", "6", code=2, process=True).stderr
    away = run(farm, "plan", code=1, FARM_HEAD="http://127.0.0.1:9").stderr
    assert "does not answer" in away
    assert "--card" in away
    alone = run(farm, "plan", "--card", "RTX 2060", "--preset", "native", FARM_HEAD="http://127.0.0.1:9")
    assert "fits" in alone.stdout


def test_where_no_farm_ever_ran_it_says_so(tmp_path: Path):
    done = run_here(["plan"], {"FARM_DATA": str(tmp_path / "none")})
    assert done.returncode == 1
    assert "No farm runs on this PC" in done.stderr
    assert 'farm plan --card "RTX 2060"' in done.stderr
