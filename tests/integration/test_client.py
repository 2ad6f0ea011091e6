"""The typed client against a real dashboard."""

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from farm.animation import ClipFormat
from farm.artifacts import ArtifactStore
from farm.client import Farm
from farm.errors import (
    BadInputError,
    BadSettingsError,
    BodyTooLargeError,
    ConfigurationError,
    ConflictError,
    FarmError,
    HeadUnreachableError,
    NotFoundError,
    SignInError,
)
from farm.ids import new_id
from farm.model import Card, CardKind, MemoryPlan, Node
from farm.states import AttemptMove
from farm.store.claims import Assignment
from farm.store.writer import Result
from tests.integration.dashboard_server import RunningDashboard, running_dashboard

CARD = Card("CPU-n1", "n1", CardKind.CPU, "CPU of attic", models=frozenset({"animatic"}))
VIDEO = bytes(range(256)) * 5000


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path, max_upload_mib=4) as running:
        yield running


@pytest.fixture
def client(farm: RunningDashboard) -> Iterator[Farm]:
    with Farm(farm.base_url, farm.admin_token) as made:
        yield made


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.jpg"
    Image.new("RGB", (320, 240), (200, 120, 40)).save(path)
    return path


def finish(farm: RunningDashboard, job_id: str) -> None:
    """Does with the job in the store what scheduler and card would."""
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [CARD], 1.0)
    attempt = new_id()
    assert farm.writer.assign([Assignment(attempt, job_id, "n1", CARD.id, CARD.name, MemoryPlan())], 1000.0)
    farm.writer.progress(attempt, AttemptMove.RUN, 1001.0, 1)
    store = ArtifactStore(farm.data.artifacts)
    video, thumbnail = store.put(VIDEO, "video/mp4"), store.put(b"jpeg", "image/jpeg")
    assert farm.writer.finish(attempt, Result(video.sha256, thumbnail.sha256, {}, None, 1009.0), 1010.0)


def test_a_job_from_submit_to_file(farm: RunningDashboard, client: Farm, picture: Path, tmp_path: Path):
    job = client.submit(picture, preset="draft", prompt="slow zoom", seed=5, frames=None)
    assert (job.status, job.settings.seed, job.prompt, job.draft) == ("queued", 5, "slow zoom", True)
    assert [one.id for one in client.jobs().jobs] == [job.id]
    seen = []

    def on_progress(now):
        seen.append(str(now.status))
        if len(seen) == 1:
            finish(farm, job.id)

    done = client.wait(job.id, on_progress)
    assert (done.status, done.ended, seen) == ("finished", True, ["queued", "finished"])
    saved = client.video(job.id, tmp_path / "cat.mp4")
    assert saved.read_bytes() == VIDEO
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["cat.jpg", "cat.mp4"]
    longest = (
        tmp_path / f"{'x' * 251}.mp4"
    )  # a longer one beside it, for what has come so far, ended in a trace
    assert client.video(job.id, longest).read_bytes() == VIDEO
    assert client.rate(job.id, 5).rating == 5
    assert "submitted by admin" in client.log(job.id)
    assert client.cards()[0].name == "CPU of attic"
    assert client.card_history(CARD.id) == []
    with pytest.raises(NotFoundError, match="no card GPU-9"):
        client.card_history("GPU-9")
    assert client.nodes()[0].cards[0].id == CARD.id
    assert {preset.name for preset in client.presets()} >= {"draft", "preview"}
    assert client.models()[0].name == "animatic"


def test_a_known_picture_needs_not_be_sent(client: Farm, picture: Path):
    first = client.submit(picture, preset="draft", seed=5)
    again = client.submit(input_sha256=first.input_sha256, preset="draft", seed=5)
    assert (again.settings, again.input_sha256) == (first.settings, first.input_sha256)
    with pytest.raises(BadInputError) as one:
        client.submit(input_sha256="ab" * 32, preset="draft")
    assert one.value.field == "input_sha256"
    with pytest.raises(BadInputError, match="No picture was sent"):
        client.submit(preset="draft")


def test_a_gif_that_cannot_be_made_replaces_nothing(
    farm: RunningDashboard, client: Farm, picture: Path, tmp_path: Path
):
    job = client.submit(picture, preset="draft")
    finish(farm, job.id)  # with bytes that are no video
    target = tmp_path / "clip.gif"
    target.write_bytes(b"an older clip")
    with pytest.raises(FarmError, match="ffmpeg could not make the GIF"):
        client.video(job.id, target, kind=ClipFormat.GIF)
    assert target.read_bytes() == b"an older clip"
    assert not list(tmp_path.glob("*.part"))


def test_wishes(farm: RunningDashboard, client: Farm, picture: Path):
    job = client.submit(picture, preset="draft")
    assert client.set_priority(job.id, 9).status == "queued"
    assert client.cancel(job.id).cancel_requested
    farm.writer.cancel_queued(job.id, 1.0)
    assert client.wait(job.id).status == "cancelled"
    with pytest.raises(ConflictError, match="cancelled already"):
        client.cancel(job.id)
    assert client.retry(job.id).id == job.id
    with pytest.raises(ConflictError, match="only a finished clip"):
        client.rate(job.id, 3)


def test_a_repeat_under_the_same_key_is_the_same_job(client: Farm, picture: Path):
    first = client.submit(picture, key="mine", preset="draft")
    assert client.submit(picture, key="mine", preset="draft").id == first.id
    with pytest.raises(ConflictError, match="Idempotency-Key"):
        client.submit(picture, key="mine", preset="draft", frames=8)


def test_errors_come_back_as_what_they_are(
    farm: RunningDashboard, client: Farm, picture: Path, tmp_path: Path
):
    with pytest.raises(BadInputError) as one:
        client.submit(picture, preset="drft")
    assert (one.value.field, "Did you mean 'draft'" in one.value.remedy) == ("settings.preset", True)
    with pytest.raises(BadSettingsError) as two:
        client.submit(picture, preset="draft", frames=0, width=3)
    assert {error.field for error in two.value.errors} == {"settings.frames", "settings.width"}
    text = tmp_path / "notes.txt"
    text.write_text("not a picture")
    with pytest.raises(BadInputError) as three:
        client.submit(text)
    assert three.value.field == "image"
    with pytest.raises(BadInputError, match="Cannot read the picture"):
        client.submit(tmp_path / "gone.jpg")
    text.write_bytes(bytes(5 << 20))
    with pytest.raises(BodyTooLargeError, match="4 MiB"):
        client.submit(text)
    with pytest.raises(NotFoundError, match="no job nothing"):
        client.job("nothing")
    with pytest.raises(NotFoundError):
        client.job("../../healthz")
    assert farm.stored_files == []


@pytest.mark.parametrize("token", ["wrong", "", "with blank", "ümlaut", "two\nlines"])
def test_a_bad_token_is_a_sign_in_error_even_with_a_large_picture(
    farm: RunningDashboard, picture: Path, token: str
):
    picture.write_bytes(bytes(3 << 20))
    with pytest.raises(SignInError), Farm(farm.base_url, token) as client:
        client.submit(picture)


def test_nobody_there_is_told_with_address_and_remedy(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        head = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(HeadUnreachableError) as error, Farm(head, "t") as client:
        client.jobs()
    assert head in error.value.message
    assert "farm up" in error.value.remedy
    for bad in ("127.0.0.1:8000", "ftp://head", "http://", "http://[", "http://head:port"):
        with pytest.raises(BadInputError, match="no address"):
            Farm(bad, "t")


@pytest.fixture
def stranger() -> Iterator[str]:
    """A web server that is no farm."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if "cards" in self.path else 404)
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_authority_that_cannot_be_used_is_said(tmp_path: Path):
    """It ended in a trace of ssl's."""
    wrong = tmp_path / "ca.pem"
    wrong.write_text("no certificate")
    for file in (wrong, tmp_path):
        with pytest.raises(ConfigurationError, match=f"authority in {file} cannot be used"):
            Farm("https://127.0.0.1:9", "t", file)


def test_a_server_that_is_no_farm_is_said_to_be_none(stranger: str):
    with Farm(stranger, "t") as client:
        with pytest.raises(HeadUnreachableError, match="not a farm"):
            client.jobs()
        with pytest.raises(HeadUnreachableError, match="speaks differently"):
            client.cards()


def test_a_video_that_arrives_damaged_replaces_nothing(
    farm: RunningDashboard, client: Farm, picture: Path, tmp_path: Path
):
    job = client.submit(picture, preset="draft")
    finish(farm, job.id)
    stored = ArtifactStore(farm.data.artifacts).path(hashlib.sha256(VIDEO).hexdigest())
    stored.write_bytes(b"!" + VIDEO[1:])
    target = tmp_path / "clip.mp4"
    target.write_bytes(b"an older clip")
    with pytest.raises(FarmError, match="damaged"):
        client.video(job.id, target)
    assert target.read_bytes() == b"an older clip"
    assert not list(tmp_path.glob("*.part"))
    stored.write_bytes(VIDEO)
    with pytest.raises(FarmError, match="Cannot write the video"):
        client.video(job.id, tmp_path / "no such folder" / "clip.mp4")
    queued = client.submit(picture, preset="draft")
    with pytest.raises(NotFoundError, match="no video"):
        client.video(queued.id, target)


def test_the_local_farm_is_found_and_its_token_goes_nowhere_else(
    farm: RunningDashboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("FARM_HEAD", farm.base_url)
    monkeypatch.setenv("FARM_DATA", str(farm.data.root))
    with Farm.local() as client:
        assert client.jobs().jobs == []
    with pytest.raises(SignInError, match=r"No token is given for the head at http://farm\.example"):
        Farm.local(head="http://farm.example:8000")
    monkeypatch.setenv("FARM_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(SignInError, match="cannot be read"):
        Farm.local()
    monkeypatch.setenv("FARM_TOKEN", farm.admin_token)
    with Farm.local() as client:
        assert client.jobs().jobs == []


def test_waiting_bears_a_head_that_restarts(tmp_path: Path, picture: Path):
    with running_dashboard(tmp_path) as first:
        url, token = first.base_url, first.admin_token
        client = Farm(url, token)
        job = client.submit(picture, preset="draft")
        seen, ended = threading.Event(), []
        waiting = threading.Thread(
            target=lambda: ended.append(client.wait(job.id, lambda _now: seen.set()).status), daemon=True
        )
        waiting.start()
        assert seen.wait(10)
    waiting.join(1.0)
    assert waiting.is_alive(), "it gave up while the head was away"
    with running_dashboard(tmp_path, port=int(url.rsplit(":", 1)[1]), admin_token=token) as second:
        assert second.writer.cancel_queued(job.id, 5.0)
        waiting.join(20)
    client.close()
    assert ended == ["cancelled"]
