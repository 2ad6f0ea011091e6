"""Clips over the API: a picture that the farm has already is submitted again, and a finished clip comes as GIF and WebP."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from farm.artifacts import ArtifactStore
from farm.ids import new_id
from farm.model import Card, CardKind, MemoryPlan, Node
from farm.states import AttemptMove
from farm.store.claims import Assignment
from farm.store.writer import Result
from node_agent.encode import encode
from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard, running_dashboard
from tests.pictures import street

CARD = Card("CPU-n1", "n1", CardKind.CPU, "CPU of attic", models=frozenset({"animatic"}))
DRAFT = '{"preset": "draft", "seed": 3}'


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as running:
        yield running


def picture(colour: tuple[int, int, int] = (9, 99, 200), kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (320, 240), colour).save(out, kind)
    return out.getvalue()


def send(http: httpx.Client, image: bytes | None = None, **more: str) -> httpx.Response:
    """Submits as multipart; `more` are further form fields."""
    key = {"idempotency-key": more.pop("key")} if "key" in more else {}
    parts: dict[str, tuple[str | None, str | bytes]] = {"settings": (None, DRAFT)}
    parts |= {name: (None, text) for name, text in more.items()}
    if image is not None:
        parts["image"] = ("a.jpg", image)
    return http.post("/jobs", files=parts, headers=key)


def wrong(answer: httpx.Response) -> tuple[str, str]:
    """The one field that a 422 names, and its message."""
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["remedy"] or "64 hexadecimal" in error["message"]
    return error["field"], error["message"]


def test_a_picture_that_the_farm_has_is_named_by_its_hash(farm: RunningDashboard, http: httpx.Client):
    first = send(http, picture()).json()
    assert first["input_sha256"] == farm.reader.job(first["id"]).input_sha256
    answer = send(http, input_sha256=first["input_sha256"])
    assert answer.status_code == 201
    again = answer.json()
    assert again["id"] != first["id"]
    assert again["settings"] == first["settings"]
    one, other = (http.get(f"/jobs/{job['id']}/input") for job in (first, again))
    assert (one.content, one.headers["content-type"]) == (other.content, other.headers["content-type"])
    assert len(farm.stored_files) == 1


def test_a_picture_that_is_sent_with_a_hash_must_come_to_it(farm: RunningDashboard, http: httpx.Client):
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = (
        6  # a phone held upright: the farm keeps the picture turned, so the hash is not that of the file
    )
    Image.new("RGB", (320, 240), (9, 99, 200)).save(turned, "JPEG", exif=exif)
    kept = send(http, turned.getvalue()).json()["input_sha256"]
    assert kept != hashlib.sha256(turned.getvalue()).hexdigest()
    assert send(http, turned.getvalue(), input_sha256=kept).status_code == 201
    as_kept = farm.stored_files[0].read_bytes()
    assert send(http, as_kept, input_sha256=kept).status_code == 201
    jobs = len(http.get("/jobs").json()["jobs"])
    field, message = wrong(send(http, picture((1, 1, 1)), input_sha256=kept))
    assert (field, "not the one with this SHA-256" in message) == ("input_sha256", True)
    assert (len(http.get("/jobs").json()["jobs"]), len(farm.stored_files)) == (jobs, 1)


@pytest.mark.parametrize("bad", ["abc", "../" + "a" * 61, "A" * 64, "\u0663" * 64])
def test_what_is_no_hash_names_its_field(farm: RunningDashboard, http: httpx.Client, bad: str):
    assert wrong(send(http, picture(), input_sha256=bad))[0] == "input_sha256"
    assert wrong(send(http, input_sha256=bad))[0] == "input_sha256"
    assert wrong(send(http, input_sha256=""))[0] == "image"  # a form's empty field counts as none
    assert farm.stored_files == []


def test_only_a_jobs_picture_that_is_still_there_counts(farm: RunningDashboard, http: httpx.Client):
    """Not any file of the store: videos and thumbnails are named by their hashes too."""
    assert "no picture with this SHA-256" in wrong(send(http, input_sha256="ab" * 32))[1]
    loose = ArtifactStore(farm.data.artifacts).put(picture((7, 7, 7)), "image/jpeg")
    assert wrong(send(http, input_sha256=loose.sha256))[0] == "input_sha256"
    gone = send(http, picture()).json()["input_sha256"]
    ArtifactStore(farm.data.artifacts).delete(gone)
    assert wrong(send(http, input_sha256=gone))[0] == "input_sha256"
    assert wrong(send(http))[0] == "image"


def test_a_key_tells_requests_by_hash_apart(http: httpx.Client):
    one, other = (send(http, picture(colour)).json()["input_sha256"] for colour in ((1, 2, 3), (3, 2, 1)))
    first = send(http, input_sha256=one, key="k")
    assert (first.status_code, send(http, input_sha256=one, key="k").status_code) == (201, 200)
    assert send(http, input_sha256=other, key="k").status_code == 409
    assert send(http, picture((1, 2, 3)), input_sha256=one, key="k").status_code == 409


def test_the_description_names_the_new_fields(farm: RunningDashboard, http: httpx.Client):
    described = plain_http.get(f"{farm.base_url}/openapi.json", headers=farm.headers).json()
    form = described["components"]["schemas"]["Body_submit_api_v1_jobs_post"]
    assert {"image", "settings", "input_sha256"} <= set(form["properties"])
    assert "image" not in form.get("required", [])
    assert "SHA-256" in form["properties"]["input_sha256"]["description"]
    query = {
        one["name"]: one for one in described["paths"]["/api/v1/jobs/{job_id}/video"]["get"]["parameters"]
    }
    assert {"format", "loop", "download"} <= set(query)
    assert described["components"]["schemas"]["ClipFormat"]["enum"] == ["mp4", "gif", "webp"]


def phone_photo() -> bytes:
    """12 megapixels of a phone that was held upright: it lies on its side in the file. Upright, its upper half is red, the lower blue."""
    lying = Image.new("RGB", (4032, 3024), (0, 0, 255))
    lying.paste((255, 0, 0), (0, 0, 2016, 3024))
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    lying.save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


def test_a_job_without_a_clip_shows_its_picture_small(farm: RunningDashboard, http: httpx.Client):
    """Lists of jobs showed the picture as it was kept, up to 4096 pixels a side: some MB for each phone's photo in a batch."""
    job = send(http, phone_photo()).json()
    base = f"/api/v1/jobs/{job['id']}"
    assert job["urls"]["thumbnail"] == f"{base}/thumbnail?of=input"
    page = plain_http.get(f"{farm.base_url}/jobs", headers=farm.headers).text
    assert (f'src="{base}/thumbnail?of=input"' in page, f'src="{base}/input"' in page) == (True, False)

    answer = http.get(f"/jobs/{job['id']}/thumbnail")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert len(answer.content) < 20_000
    with Image.open(io.BytesIO(answer.content)) as still:
        assert (still.format, still.size) == ("JPEG", (240, 320))
        upper, lower = still.getpixel((120, 80)), still.getpixel((120, 240))
    assert np.abs(np.subtract((upper, lower), ((255, 0, 0), (0, 0, 255)))).max() < 4

    (kept,) = farm.data.stills.iterdir()
    kept.write_bytes(b"as it was kept")
    again = http.get(f"/jobs/{job['id']}/thumbnail", params={"of": "input"})
    assert again.content == b"as it was kept"
    assert len(farm.stored_files) == 1  # the cache lies elsewhere


def test_how_long_a_thumbnail_is_kept_follows_from_what_it_shows(http: httpx.Client, job_id: str):
    queued = f"/jobs/{send(http, picture((5, 5, 5))).json()['id']}/thumbnail"
    finished = f"/jobs/{job_id}/thumbnail"
    told = {
        (name, of): http.get(path, params={"of": of} if of else {}).headers.get("cache-control")
        for name, path in (("queued", queued), ("finished", finished))
        for of in ("", "clip", "input")
    }
    assert told == {
        ("queued", ""): "private, no-cache",
        ("queued", "clip"): "no-store",
        ("queued", "input"): "private, max-age=86400",
        ("finished", ""): "private, max-age=31536000, immutable",
        ("finished", "clip"): "private, max-age=31536000, immutable",
        ("finished", "input"): "private, max-age=86400",
    }
    assert http.get(queued, params={"of": "clip"}).status_code == 404
    assert http.get(queued, params={"of": "preview"}).status_code == 422
    assert http.get(finished).content != http.get(finished, params={"of": "input"}).content
    tag = http.get(queued).headers["etag"]
    same = http.get(queued, headers={"If-None-Match": tag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert http.get(finished, headers={"If-None-Match": tag}).status_code == 200


def test_a_picture_that_is_gone_or_damaged_has_no_still(farm: RunningDashboard, http: httpx.Client):
    job = send(http, picture()).json()
    path = f"/jobs/{job['id']}/thumbnail"
    farm.stored_files[0].write_bytes(picture()[:300])
    damaged = http.get(path)
    assert (damaged.status_code, "cannot be read any more" in damaged.json()["detail"]) == (503, True)
    assert list(farm.data.stills.iterdir()) == []
    farm.stored_files[0].write_bytes(picture())
    assert http.get(path).status_code == 200
    farm.stored_files[0].unlink()
    assert http.get(path).status_code == 404


@pytest.fixture
def job_id(farm: RunningDashboard, http: httpx.Client, tmp_path: Path) -> str:
    """A finished job with a real clip: 16 frames of 128x96 at 8 fps."""
    job = send(http, picture()).json()["id"]
    farm.registry.see_node(Node("n1", "attic", "10.0.0.7"), [CARD], 1.0)
    attempt = new_id()
    farm.writer.assign([Assignment(attempt, job, "n1", CARD.id, CARD.name, MemoryPlan())], 1000.0)
    farm.writer.progress(attempt, AttemptMove.RUN, 1001.0, 1)
    field = np.asarray(street(160, 96).image.convert("RGB"))
    frames = (np.ascontiguousarray(field[:, 2 * index : 2 * index + 128]) for index in range(16))
    clip = encode(frames, tmp_path / "v.mp4", fps=8, width=128, height=96, count=16, metadata={})
    store = ArtifactStore(farm.data.artifacts)
    video = store.put(clip.video.read_bytes(), "video/mp4")
    still = store.put(clip.thumbnail.read_bytes(), "image/jpeg")
    assert farm.writer.finish(attempt, Result(video.sha256, still.sha256, {}, None, 1009.0), 1010.0)
    return str(job)


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_clip_comes_as_gif_and_webp(farm: RunningDashboard, http: httpx.Client, job_id: str, kind: str):
    stored = farm.stored_files
    whole = http.get(f"/jobs/{job_id}/video", params={"format": kind, "loop": 3})
    assert (whole.status_code, whole.headers["content-type"]) == (200, f"image/{kind}")
    assert whole.headers["etag"] == f'"{hashlib.sha256(whole.content).hexdigest()}"'
    assert whole.headers["cache-control"] == "private, max-age=86400"
    with Image.open(io.BytesIO(whole.content)) as image:
        assert (image.format, image.size, image.n_frames) == (kind.upper(), (128, 96), 16)
        assert image.info["loop"] == (2 if kind == "gif" else 3)
    same = http.get(
        f"/jobs/{job_id}/video",
        params={"format": kind, "loop": 3},
        headers={"If-None-Match": whole.headers["etag"]},
    )
    assert (same.status_code, same.content) == (304, b"")
    part = http.get(
        f"/jobs/{job_id}/video", params={"format": kind, "loop": 3}, headers={"Range": "bytes=10-19"}
    )
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    saved = http.get(f"/jobs/{job_id}/video", params={"format": kind, "download": "true"})
    assert f'filename="{job_id}-draft.{kind}"' in saved.headers["content-disposition"]
    assert farm.stored_files == stored  # the cache lies elsewhere
    assert len(list(farm.data.animations.iterdir())) == 2


def test_the_web_answers_while_a_gif_is_made(http: httpx.Client, farm: RunningDashboard, job_id: str):
    came: list[httpx.Response] = []

    def ask(loop: int) -> None:
        came.append(
            plain_http.get(
                f"{farm.base_url}/api/v1/jobs/{job_id}/video",
                params={"format": "webp", "loop": loop},
                headers=farm.headers,
                timeout=30,
            )
        )

    threads = [threading.Thread(target=ask, args=(1 + number % 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert plain_http.get(f"{farm.base_url}/healthz", timeout=2).status_code == 200
    for thread in threads:
        thread.join(30)
    assert [answer.status_code for answer in came] == [200] * 4
    assert len({answer.content for answer in came}) == 2
    assert len(list(farm.data.animations.iterdir())) == 2


def test_what_cannot_be_made_is_said(farm: RunningDashboard, http: httpx.Client, job_id: str):
    queued = send(http, picture()).json()["id"]
    assert http.get(f"/jobs/{queued}/video", params={"format": "gif"}).status_code == 404
    for query in (
        {"format": "avi"},
        {"format": "gif", "loop": -1},
        {"format": "gif", "loop": 65_536},
        {"loop": 2},
    ):
        answer = http.get(f"/jobs/{job_id}/video", params=query)
        assert wrong_fields(answer) == [list(query)[-1]]
    stored = ArtifactStore(farm.data.artifacts).path(farm.reader.job(job_id).video_sha256 or "")
    stored.write_bytes(b"damaged")
    answer = http.get(f"/jobs/{job_id}/video", params={"format": "gif"})
    assert (answer.status_code, "ffmpeg could not make the GIF" in answer.json()["detail"]) == (503, True)
    assert str(farm.data.root) not in answer.text
    stored.unlink()
    assert http.get(f"/jobs/{job_id}/video", params={"format": "gif"}).status_code == 404
    assert list(farm.data.animations.iterdir()) == []


def wrong_fields(answer: httpx.Response) -> list[str]:
    """The fields that a 422 names."""
    assert answer.status_code == 422, answer.text
    return [error["field"] for error in json.loads(answer.text)["errors"]]
