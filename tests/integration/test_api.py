"""The HTTP API over a real uvicorn and a real SQLite file: jobs in, files out, machines, events."""

import hashlib
import io
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from PIL import Image

from farm.auth import TokenKind
from farm.catalogue.presets import presets
from farm.feed import CardChanged, JobChanged, LiveCard, LiveJob, Snapshot
from farm.ids import new_id
from farm.model import Card, CardKind, FailureClass, Job, MemoryPlan, Node
from farm.states import AttemptMove, JobMove
from farm.store.claims import Assignment
from farm.store.engine import open_engine
from farm.store.requests import RequestKind, Requests
from farm.store.telemetry import Figures, Row
from farm.store.writer import Result
from farm.vitals import CardFacts
from tests import plain_http
from tests.integration.dashboard_server import FakeScheduler, RunningDashboard, running_dashboard
from tests.waiting import wait_until

CARD = Card(
    id="CPU-n1",
    node_id="n1",
    kind=CardKind.CPU,
    name="CPU of attic",
    usable_gib=4.0,
    models=frozenset({"animatic"}),
)
VIDEO = bytes(range(256)) * 40  # any bytes do: the head never looks into a stored video


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as running:
        yield running


def picture(colour: tuple[int, int, int] = (9, 99, 200), kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 240), colour).save(out, kind)
    return out.getvalue()


def send(http: httpx.Client, settings: dict | None = None, image: bytes | None = None, **headers: str):
    return http.post(
        "/jobs",
        files={"image": ("a.jpg", image or picture())},
        data={"settings": json.dumps(settings or {"preset": "draft"})},
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def assign(farm: RunningDashboard, job_id: str) -> str:
    """Gives the job to the card, as the scheduler does; returns the attempt's id."""
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [CARD], 1.0)
    attempt = new_id()
    (won,) = farm.writer.assign([Assignment(attempt, job_id, "n1", CARD.id, CARD.name, MemoryPlan())], 1000.0)
    farm.writer.progress(won.id, AttemptMove.RUN, 1001.0, 1)
    return attempt


def finish(farm: RunningDashboard, job_id: str) -> None:
    """Renders the job, as far as the store can tell."""
    attempt = assign(farm, job_id)
    from farm.artifacts import ArtifactStore

    store = ArtifactStore(farm.data.artifacts)
    video, thumbnail = store.put(VIDEO, "video/mp4"), store.put(picture((1, 2, 3)), "image/jpeg")
    assert farm.writer.finish(
        attempt, Result(video.sha256, thumbnail.sha256, {"load": 1.0}, 0.5, 1009.0), 1010.0
    )


def test_a_submitted_job_is_stored_with_its_picture_while_no_scheduler_runs(
    farm: RunningDashboard, http: httpx.Client
):
    answer = send(http, {"preset": "draft", "prompt": "slow zoom", "frames": 24, "seed": 7, "priority": 3})
    assert answer.status_code == 201
    told = answer.json()
    assert answer.headers["location"] == f"/api/v1/jobs/{told['id']}"
    assert "scheduler is not running" in told["why_pending"]
    job: Job = farm.reader.job(told["id"])
    assert (job.settings.frames, job.settings.seed, job.settings.prompt) == (24, 7, "slow zoom")
    assert (job.preset, job.draft, job.priority, job.submitted_by) == ("draft", True, 3, "admin")
    (stored,) = farm.stored_files
    assert hashlib.sha256(stored.read_bytes()).hexdigest() == job.input_sha256 == stored.name
    shown = http.get(f"/jobs/{told['id']}").json()
    assert shown["position"] == 1
    assert http.get(shown["urls"]["input"].removeprefix("/api/v1")).content == stored.read_bytes()


def test_the_scheduler_is_woken_by_a_submit(farm: RunningDashboard, http: httpx.Client):
    with FakeScheduler(farm.data) as scheduler:
        wait_until(lambda: scheduler.connected)
        wait_until(
            lambda: plain_http.get(f"{farm.base_url}/readyz", headers=farm.headers).json()["scheduler"]
        )
        assert send(http).json()["why_pending"].startswith("No card has joined the farm yet")
        wait_until(lambda: scheduler.wakes == 1, what="the wake")
    wait_until(
        lambda: not plain_http.get(f"{farm.base_url}/readyz", headers=farm.headers).json()["scheduler"]
    )


def test_without_settings_a_farm_without_gpu_makes_a_draft(http: httpx.Client, farm: RunningDashboard):
    answer = http.post("/jobs", files={"image": ("a.jpg", picture())})
    assert answer.json()["preset"] == "draft"
    gpu = Card("GPU-1", "n2", CardKind.CUDA, "RTX 3060", 12.0, 11.0, models=frozenset({"i2vgen-xl"}))
    farm.registry.see_node(Node("n2", "den", "10.0.0.8"), [gpu], 1.0)
    answer = http.post(
        "/jobs", files={"image": ("a.jpg", picture())}, data={"settings": '{"prompt": "waves roll in"}'}
    )
    assert answer.json()["preset"] == "preview"


def test_the_same_key_and_request_give_the_same_job_once(farm: RunningDashboard, http: httpx.Client):
    first = send(http, {"preset": "draft", "prompt": "zoom"}, idempotency_key="k1")
    again = send(http, {"prompt": "zoom", "preset": "draft"}, idempotency_key="k1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert again.json()["settings"]["seed"] == first.json()["settings"]["seed"]
    other = send(http, {"preset": "draft", "prompt": "pan left"}, idempotency_key="k1")
    assert other.status_code == 409
    assert "Idempotency-Key" in other.json()["detail"]
    picture_changed = send(
        http, {"preset": "draft", "prompt": "zoom"}, picture((1, 1, 1)), idempotency_key="k1"
    )
    assert picture_changed.status_code == 409
    assert len(http.get("/jobs").json()["jobs"]) == 1


def test_ten_racing_repeats_make_one_job(farm: RunningDashboard, http: httpx.Client):
    answers: list[httpx.Response] = []

    def repeat() -> None:
        answers.append(send(http, idempotency_key="race"))

    threads = [threading.Thread(target=repeat) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_the_list_has_filters_and_a_cursor_that_survives_new_jobs(http: httpx.Client):
    ids = [
        send(http, {"preset": "draft", "prompt": f"clip {n} {'cat' if n % 2 else 'dog'}"}).json()["id"]
        for n in range(5)
    ]
    page = http.get("/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in page["jobs"]] == [ids[4], ids[3]]
    send(http)
    following = http.get("/jobs", params={"limit": 2, "cursor": page["cursor"]}).json()
    assert [job["id"] for job in following["jobs"]] == [ids[2], ids[1]]
    last = http.get("/jobs", params={"limit": 2, "cursor": following["cursor"]}).json()
    assert [job["id"] for job in last["jobs"]] == [ids[0]]
    assert last["cursor"] is None
    cats = http.get("/jobs", params={"q": "cat"}).json()["jobs"]
    assert [job["id"] for job in cats] == [ids[3], ids[1]]
    assert http.get("/jobs", params={"status": "running"}).json()["jobs"] == []
    assert http.get("/jobs", params={"model": "i2vgen-xl"}).json()["jobs"] == []
    assert len(http.get("/jobs", params={"model": "animatic", "status": "queued"}).json()["jobs"]) == 6


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 1000}, {"cursor": "x"}, {"cursor": -1}, {"status": "sleeping"}]
)
def test_a_bad_query_names_its_field(http: httpx.Client, query: dict):
    answer = http.get("/jobs", params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == list(query)


def test_a_running_job_shows_live_progress_card_and_preview(farm: RunningDashboard, http: httpx.Client):
    job_id = send(http).json()["id"]
    assign(farm, job_id)
    with FakeScheduler(farm.data) as scheduler:
        scheduler.publish(
            JobChanged(LiveJob(job_id, "running", 5, 16, 0.5, 5.5, CARD.id, CARD.name, phase="render"))
        )
        wait_until(lambda: (http.get(f"/jobs/{job_id}").json()["progress"] or {}).get("done") == 5)
        shown = http.get(f"/jobs/{job_id}").json()
        assert shown["progress"] == {
            "done": 5,
            "total": 16,
            "seconds_per_step": 0.5,
            "eta_s": 5.5,
            "phase": "render",
            "stage": "generate",
        }
        assert shown["card_name"] == "CPU of attic"
        assert shown["urls"]["preview"] is None
        assert http.get(f"/jobs/{job_id}/preview").status_code == 404
        (farm.data.previews / f"{job_id}.jpg").write_bytes(picture())
        seen = http.get(f"/jobs/{job_id}/preview")
        assert (seen.content, seen.headers["cache-control"]) == (picture(), "no-store")
        assert [job["id"] for job in http.get("/jobs", params={"card": CARD.id}).json()["jobs"]] == [job_id]


def test_a_finished_video_is_served_whole_by_range_and_not_twice(farm: RunningDashboard, http: httpx.Client):
    job_id = send(http).json()["id"]
    assert http.get(f"/jobs/{job_id}/video").status_code == 404
    finish(farm, job_id)
    shown = http.get(f"/jobs/{job_id}").json()
    assert (shown["status"], shown["attempts"][0]["stage_seconds"], shown["attempts"][0]["peak_gib"]) == (
        "finished",
        {"load": 1.0},
        0.5,
    )
    whole = http.get(f"/jobs/{job_id}/video")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, VIDEO, "video/mp4")
    assert whole.headers["etag"] == f'"{hashlib.sha256(VIDEO).hexdigest()}"'
    assert "immutable" in whole.headers["cache-control"]
    assert "private" in whole.headers["cache-control"]
    assert "content-disposition" not in whole.headers
    part = http.get(f"/jobs/{job_id}/video", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, VIDEO[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(VIDEO)}"
    tail = http.get(f"/jobs/{job_id}/video", headers={"Range": "bytes=-10"})
    assert (tail.status_code, tail.content) == (206, VIDEO[-10:])
    assert http.get(f"/jobs/{job_id}/video", headers={"Range": "bytes=999999-"}).status_code == 416
    same = http.get(f"/jobs/{job_id}/video", headers={"If-None-Match": whole.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    saved = http.get(f"/jobs/{job_id}/video", params={"download": "true"})
    assert f'filename="{job_id}-draft.mp4"' in saved.headers["content-disposition"]
    assert http.get(f"/jobs/{job_id}/thumbnail").content == picture((1, 2, 3))


def test_a_file_that_was_deleted_is_a_404_with_a_sentence(farm: RunningDashboard, http: httpx.Client):
    job_id = send(http).json()["id"]
    for path in farm.stored_files:
        path.unlink()
    answer = http.get(f"/jobs/{job_id}/input")
    assert answer.status_code == 404
    assert "not in the farm's store any more" in answer.json()["detail"]


def test_cancel_is_a_wish_until_the_scheduler_has_stopped_the_job(farm: RunningDashboard, http: httpx.Client):
    job_id = send(http).json()["id"]
    answer = http.post(f"/jobs/{job_id}/cancel")
    assert answer.status_code == 202
    assert (answer.json()["status"], answer.json()["cancel_requested"]) == ("queued", True)
    wishes = Requests(open_engine(farm.data.database_url, writes=True)).waiting()
    assert [(wish.kind, wish.job_id) for wish in wishes] == [(RequestKind.CANCEL, job_id)]
    assert farm.writer.cancel_queued(job_id, 5.0)
    again = http.post(f"/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["detail"]) == (
        409,
        f"Job {job_id} is cancelled already; there is nothing to cancel.",
    )
    assert http.post(f"/jobs/{job_id}/retry").status_code == 202


def test_retry_priority_and_rating_are_refused_where_they_make_no_sense(
    farm: RunningDashboard, http: httpx.Client
):
    job_id = send(http).json()["id"]
    assert http.post(f"/jobs/{job_id}/retry").status_code == 409
    assert http.post(f"/jobs/{job_id}/rating", json={"rating": 4}).status_code == 409
    assert http.post(f"/jobs/{job_id}/priority", json={"priority": 5}).status_code == 202
    for path, body, field in (
        ("rating", {"rating": 6}, "rating"),
        ("rating", {"rating": 0}, "rating"),
        ("rating", {}, "rating"),
        ("priority", {"priority": 101}, "priority"),
    ):
        wrong = http.post(f"/jobs/{job_id}/{path}", json=body)
        assert (wrong.status_code, wrong.json()["errors"][0]["field"]) == (422, field)
    finish(farm, job_id)
    rated = http.post(f"/jobs/{job_id}/rating", json={"rating": 4})
    assert (rated.status_code, rated.json()["rating"]) == (200, 4)
    assert http.post(f"/jobs/{job_id}/priority", json={"priority": 5}).status_code == 409
    assert http.post(f"/jobs/{job_id}/retry").status_code == 409


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/video"),
        ("GET", "/thumbnail"),
        ("GET", "/preview"),
        ("GET", "/input"),
        ("GET", "/log"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ],
)
def test_an_unknown_job_is_404_everywhere(http: httpx.Client, method: str, path: str):
    for name in ("01NOSUCHJOB", "..%2f..%2fsecrets"):
        answer = http.request(method, f"/jobs/{name}{path}")
        assert (answer.status_code, answer.json()["status"]) == (404, 404)


def test_the_log_tells_the_story_with_reasons_and_details(farm: RunningDashboard, http: httpx.Client):
    job_id = send(http).json()["id"]
    attempt = assign(farm, job_id)
    farm.writer.fail(
        attempt,
        FailureClass.OUT_OF_MEMORY,
        "out of memory at step 3",
        1005.0,
        then=JobMove.GIVE_UP,
        detail="Traceback:\n  line 1",
    )
    log = http.get(f"/jobs/{job_id}/log")
    assert log.headers["content-type"].startswith("text/plain")
    assert "[attempt 1 on CPU of attic]  failed: out of memory at step 3\n    Traceback:" in log.text
    assert 'submitted by admin: {"preset": "draft", "model": "animatic", "width": 512,' in log.text
    assert "1970-01-01 00:16:40" in log.text  # assigned at second 1000
    shown = http.get(f"/jobs/{job_id}").json()
    assert (shown["status"], shown["failure"]) == ("failed", "out of memory at step 3")
    assert shown["attempts"][0]["failure_class"] == "out_of_memory"


def test_cards_say_what_they_do_or_that_it_is_not_known(farm: RunningDashboard, http: httpx.Client):
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7", versions={"ray": "2.60.0"}), [CARD], 9.0)
    (card,) = http.get("/cards").json()
    assert (card["state"], card["node_name"]) == ("not known", "attic")
    live = LiveCard(CARD.id, "n1", "attic", CARD.name, "idle")
    with FakeScheduler(farm.data, Snapshot(cards=(live,))) as scheduler:
        wait_until(lambda: http.get("/cards").json()[0]["state"] == "idle")
        scheduler.publish(
            CardChanged(
                LiveCard(CARD.id, "n1", "attic", CARD.name, "not answering", silent_s=7.5, why="silent")
            )
        )
        wait_until(lambda: http.get("/cards").json()[0]["state"] == "not answering")
        (node,) = http.get("/nodes").json()
        assert (node["name"], node["cards"][0]["silent_s"], node["cards"][0]["why"]) == (
            "attic",
            7.5,
            "silent",
        )
    wait_until(lambda: http.get("/cards").json()[0]["state"] == "not known")


def test_a_pc_is_drained_and_resumed_and_the_scheduler_hears_of_it(
    farm: RunningDashboard, http: httpx.Client
):
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [CARD], 9.0)
    with FakeScheduler(farm.data) as scheduler:
        wait_until(lambda: scheduler.connected)
        drained = http.post("/nodes/n1/drain")
        assert (drained.status_code, drained.json()["id"]) == (202, "n1")
        assert drained.json()["drained_at"] is not None, "also while nobody schedules"
        wait_until(lambda: scheduler.wakes == 1)
        resumed = http.post("/nodes/n1/resume")
        assert (resumed.status_code, resumed.json()["drained_at"]) == (202, None)
        wait_until(lambda: scheduler.wakes == 2)
    asked = Requests(farm.writer._engine).waiting()
    assert [(one.kind, one.node_id, one.job_id) for one in asked] == [
        (RequestKind.DRAIN, "n1", ""),
        (RequestKind.RESUME, "n1", ""),
    ]


def test_a_pc_that_is_gone_is_forgotten_with_its_credential_and_one_that_is_there_is_not(
    farm: RunningDashboard, http: httpx.Client
):
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [CARD], time.time())
    farm.registry.add_token("its-own", TokenKind.NODE, "attic", 9.0, node_id="n1")
    refused = http.delete("/nodes/n1")
    assert refused.status_code == 409
    assert "was heard from" in refused.json()["detail"]
    assert len(http.get("/nodes").json()) == 1
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [CARD], time.time() - 61.0)
    gone = http.delete("/nodes/n1")
    assert (gone.status_code, gone.json()["name"]) == (202, "attic")
    assert (http.get("/nodes").json(), http.get("/cards").json()) == ([], [])
    assert [node.name for node in farm.reader.nodes(forgotten=True)] == ["attic"], "the history knows it"
    credential = farm.reader.token("its-own")
    assert credential is not None
    assert credential.revoked_at is not None
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [CARD], time.time())
    assert len(http.get("/cards").json()) == 1, "one that joins again is there again"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/nodes/n9/drain"), ("POST", "/nodes/n9/resume"), ("DELETE", "/nodes/n9")],
)
def test_a_pc_that_nobody_knows_is_not_found(http: httpx.Client, method: str, path: str):
    answer = http.request(method, path)
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no PC n9.")


def test_catalogues_are_those_of_the_farm(http: httpx.Client):
    assert [one["name"] for one in http.get("/presets").json()] == list(presets())
    models = {one["name"]: one for one in http.get("/models").json()}
    assert models["animatic"]["draft"] is True
    assert models["i2vgen-xl"]["multiple"] == 8


def lines_until(stream: Iterator[str], word: str) -> list[str]:
    got = []
    for line in stream:
        got.append(line)
        if word in line:
            return got
    message = f"the stream ended before {word!r}: {got}"
    raise AssertionError(message)


def test_events_reach_a_page_and_are_caught_up_after_a_break(farm: RunningDashboard, http: httpx.Client):
    with FakeScheduler(farm.data) as scheduler:
        wait_until(lambda: scheduler.connected)
        with http.stream("GET", "/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.iter_lines()
            lines_until(lines, "event: snapshot")
            job_id = send(http).json()["id"]
            assert job_id in lines_until(lines, '"status":"queued"')[-1]
            scheduler.publish(JobChanged(LiveJob(job_id, "running", done=1, total=16)))
            got = lines_until(lines, '"done":1,')
            last = [line for line in got if line.startswith("id: ")][-1].removeprefix("id: ")
        scheduler.publish(JobChanged(LiveJob(job_id, "running", done=2, total=16)))
        scheduler.publish(JobChanged(LiveJob("other", "running", done=9, total=16)))
        with http.stream("GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": last}) as stream:
            got = lines_until(stream.iter_lines(), '"done":2,')
            assert not any("other" in line or "snapshot" in line for line in got)
        with http.stream("GET", "/events", headers={"Last-Event-ID": "gone-1"}) as stream:
            lines_until(stream.iter_lines(), "event: reset")


def test_a_restarted_scheduler_is_found_again(farm: RunningDashboard, http: httpx.Client):
    with http.stream("GET", "/events") as stream:
        lines = stream.iter_lines()
        for _ in range(2):
            with FakeScheduler(farm.data):
                lines_until(lines, '{"scheduler":true}')
            lines_until(lines, '{"scheduler":false}')


def test_health_needs_no_token_and_readiness_does(farm: RunningDashboard):
    assert plain_http.get(f"{farm.base_url}/healthz").json() == {"status": "ok"}
    assert plain_http.get(f"{farm.base_url}/readyz").status_code == 401


def test_the_description_has_a_summary_per_route_and_our_own_errors(
    farm: RunningDashboard, http: httpx.Client
):
    described = plain_http.get(f"{farm.base_url}/openapi.json", headers=farm.headers).json()
    text = json.dumps(described)
    assert "HTTPValidationError" not in text
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            assert route.get("summary"), (method, path)
            if path.startswith("/api/"):
                assert "401" in route["responses"], (method, path)
    assert {"title", "status", "detail", "errors"} <= set(
        described["components"]["schemas"]["Problem"]["properties"]
    )
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in described["components"]["schemas"]


def test_a_job_tells_what_its_attempts_drew_and_a_card_how_it_fared(
    farm: RunningDashboard, http: httpx.Client
) -> None:
    job_id = send(http).json()["id"]
    attempt = assign(farm, job_id)
    assert http.get(f"/jobs/{job_id}").json()["energy_wh"] is None
    farm.writer.yielded(attempt, "The card is kept for its owner: a game.", 1100.0)
    farm.writer.drew(attempt, 1.5)
    second = assign(farm, job_id)
    farm.writer.fail(second, FailureClass.BAD_INPUT, "No picture.", 1200.0, then=JobMove.GIVE_UP)
    farm.writer.drew(second, 0.25)
    told = http.get(f"/jobs/{job_id}").json()
    assert told["energy_wh"] == 1.75
    assert [one["energy_wh"] for one in http.get("/jobs").json()["jobs"]] == [1.75], "a list tells it too"
    assert [one["energy_wh"] for one in told["attempts"]] == [1.5, 0.25]
    assert told["attempts"][0]["reason"] == "The card is kept for its owner: a game."

    now = time.time()
    farm.writer.telemetry.keep(
        [
            Row(CARD.id, 10, now - 30, Figures(power_w=120.0, temperature_c=66.0)),
            Row(CARD.id, 10, now - 20, Figures(utilization=0.97)),
        ]
    )
    first, then = http.get(f"/cards/{CARD.id}/telemetry").json()
    assert (first["power_w"], first["temperature_c"], first["utilization"], first["span_s"]) == (
        120,
        66,
        None,
        10,
    )
    assert (then["power_w"], then["utilization"]) == (None, 0.97)
    assert http.get(f"/cards/{CARD.id}/telemetry", params={"window": "7d"}).json() == []
    assert http.get("/cards/GPU-nobody/telemetry").status_code == 404
    assert http.get(f"/cards/{CARD.id}/telemetry", params={"window": "2h"}).status_code == 422


def test_a_card_tells_what_happened_to_it(farm: RunningDashboard, http: httpx.Client) -> None:
    now = time.time()
    lost, failed, good = (send(http).json()["id"] for _ in range(3))
    farm.writer.lose(assign(farm, lost), "Nothing was heard of it.", now - 9000)
    farm.writer.fail(
        assign(farm, failed), FailureClass.BAD_INPUT, "No picture.", now - 100, then=JobMove.GIVE_UP
    )
    finish(farm, good)
    path = f"/cards/{CARD.id}/history"
    begun = {
        "at": now - 9000,
        "until": None,
        "what": "lost",
        "why": "Nothing was heard of it.",
        "job_id": lost,
    }
    ended = {"at": now - 100, "until": None, "what": "failed", "why": "No picture.", "job_id": failed}
    assert http.get(path).json() == [ended, begun]
    farm.writer.telemetry.keep([Row(CARD.id, 300, at, Figures()) for at in (now - 6000, now - 3000)])
    farm.registry.clear_card(CARD.id, now - 2000)
    farm.registry.pause_card(CARD.id, "Three jobs failed on it.", now - 50)
    http.post("/nodes/n1/drain")
    told = http.get(path).json()
    assert [one["what"] for one in told] == ["drained", "paused", "failed", "cleared", "silent", "lost"]
    assert (told[1]["at"], told[1]["why"]) == (now - 50, "Three jobs failed on it.")
    assert (told[4]["at"], told[4]["until"]) == (now - 5700, now - 3000)
    assert http.get("/cards/GPU-nobody/history").status_code == 404


def test_a_kept_card_says_so(farm: RunningDashboard, http: httpx.Client) -> None:
    facts = CardFacts("00000000:01:00.0", (12, 4), 160.0)
    gpu = replace(
        CARD, id="GPU-1", kind=CardKind.CUDA, name="RTX 2060", usable_gib=1.1, others_gib=4.25, facts=facts
    )
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [gpu], 1.0)
    live = LiveCard(
        "GPU-1", "n1", "attic", "RTX 2060", "kept", why="kept for its owner: a game uses the card"
    )
    with FakeScheduler(farm.data, Snapshot(cards=(live,))) as scheduler:
        wait_until(lambda: scheduler.connected, what="the dashboard to follow the feed")
        wait_until(
            lambda: http.get("/cards").json()[0]["state"] == "kept", what="the card to be shown as kept"
        )
        (card,) = http.get("/cards").json()
        assert (card["why"], card["others_gib"]) == ("kept for its owner: a game uses the card", 4.25)
        assert card["facts"]["bus_id"] == "00000000:01:00.0"
