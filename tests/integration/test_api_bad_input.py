"""Bad input: each with an answer that names the field, and nothing stored, neither file nor row."""

import io
import json
import resource
import socket
import struct
import time
import zlib
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard, running_dashboard

LIMIT_MIB = 4


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path_factory.mktemp("dashboard"), max_upload_mib=LIMIT_MIB) as running:
        yield running


@pytest.fixture
def http(farm: RunningDashboard) -> Iterator[httpx.Client]:
    """A client, and afterwards the look whether anything was stored."""
    with plain_http.Client(base_url=f"{farm.base_url}/api/v1", headers=farm.headers, timeout=30) as client:
        before = (len(farm.reader.jobs(limit=1000).jobs), sorted(farm.stored_files))
        yield client
        assert (len(farm.reader.jobs(limit=1000).jobs), sorted(farm.stored_files)) == before


def png(width: int = 64, height: int = 64) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (5, 120, 220)).save(out, "PNG")
    return out.getvalue()


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header is of this size, with honest checksums and a few bytes of data: a decompression bomb."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def fields(answer: httpx.Response) -> list[str]:
    """The fields that a 422 names; every message must be a sentence for a person."""
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == 422
    for error in told["errors"]:
        assert len(error["message"]) > 10, error
        assert "Traceback" not in error["message"]
    return [error["field"] for error in told["errors"]]


def send(http: httpx.Client, image: bytes, settings: str) -> httpx.Response:
    return http.post("/jobs", files={"image": ("a.png", image)}, data={"settings": settings})


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"this is not a picture",
        b"GIF89a" + bytes(100),
        png()[: len(png()) // 2],
        png_that_claims(20_000, 20_000),
        png_that_claims(2**31 - 1, 2**31 - 1),
        png(8, 8),
    ],
    ids=["empty", "text", "gif", "truncated", "20000 x 20000", "bomb", "tiny"],
)
def test_a_picture_that_cannot_be_used(http: httpx.Client, image: bytes):
    assert fields(send(http, image, '{"preset": "draft"}')) == ["image"]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ('{"preset": "draft", "width": 513}', ["settings.width"]),
        ('{"preset": "draft", "height": 500}', ["settings.height"]),
        ('{"preset": "draft", "frames": 0}', ["settings.frames"]),
        ('{"preset": "draft", "frames": 1000000}', ["settings.frames"]),
        ('{"preset": "draft", "frames": "many"}', ["settings.frames"]),
        ('{"preset": "draft", "guidance": NaN}', ["settings.guidance"]),
        ('{"preset": "draft", "guidance": Infinity}', ["settings.guidance"]),
        ('{"preset": "draft", "prompt": "' + "x" * 10_000 + '"}', ["settings.prompt"]),
        ('{"preset": "preview", "prompt": ""}', ["settings.prompt"]),
        ('{"preset": "masterpiece"}', ["settings.preset"]),
        ('{"model": "sora"}', ["settings.model"]),
        ('{"preset": "draft", "colour": "red"}', ["settings.colour"]),
        ('{"preset": "draft", "frames": 0, "width": 1}', ["settings.frames", "settings.width"]),
        ("not json", ["settings"]),
        ("[]", ["settings"]),
        ('{"seed": 1, "seed": 2}', ["settings"]),
        ("[" * 100_000, ["settings"]),
    ],
)
def test_settings_that_cannot_be_used(http: httpx.Client, settings: str, wrong: list[str]):
    assert sorted(fields(send(http, png(), settings))) == wrong


def test_a_request_without_picture_or_of_another_kind_names_the_picture(http: httpx.Client):
    assert fields(http.post("/jobs", data={"settings": "{}"})) == ["image"]
    assert fields(http.post("/jobs", json={"image": "x"})) == ["image"]
    assert fields(http.post("/jobs", data={"image": "a text field"})) == ["image"]


def test_a_broken_form_is_a_400(http: httpx.Client):
    answer = http.post(
        "/jobs", content=b"--x\r\nbroken", headers={"content-type": "multipart/form-data; boundary=y"}
    )
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_idempotency_key_of_strange_length_is_named(http: httpx.Client):
    answer = http.post("/jobs", files={"image": ("a.png", png())}, headers={"idempotency-key": "k" * 300})
    assert fields(answer) == ["Idempotency-Key"]


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(
    farm: RunningDashboard, http: httpx.Client
):
    with connect(farm) as sock:
        sock.sendall(head(farm, f"Content-Length: {50 << 30}"))
        answer = read_answer(sock)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer
    assert f"larger than {LIMIT_MIB} MiB".encode() in answer


def test_requests_that_are_no_uploads_are_small(farm: RunningDashboard, http: httpx.Client):
    """The sign-in form needs no token: nobody may make the head hold 32 MiB for it."""
    for path in ("/signin", "/join/redeem", "/api/v1/tokens"):
        answer = plain_http.post(farm.base_url + path, headers=farm.headers, content=bytes((1 << 20) + 1))
        assert answer.status_code == 413, path
        assert "1 MiB" in answer.json()["detail"]


def test_a_file_just_over_the_limit_gets_its_answer(http: httpx.Client):
    """A refusal that closed the connection at once was lost in the reset: the client saw only a broken connection."""
    for _ in range(5):
        answer = send(http, bytes((LIMIT_MIB << 20) + 1), "{}")
        assert answer.status_code == 413
        assert "FARM_MAX_UPLOAD_MIB" in answer.json()["remedy"]


def test_a_body_that_never_ends_is_refused_while_it_streams(farm: RunningDashboard, http: httpx.Client):
    """Counted, not believed: a chunked body tells no length. The head must neither wait for its end nor keep it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    sent = 0
    piece = bytes(64 << 10)
    start = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    with connect(farm) as sock:
        sock.sendall(head(farm, "Transfer-Encoding: chunked") + chunk(start))
        sock.settimeout(0.0)
        answer = b""
        blocked_since = None
        while time.monotonic() - began < 20 and sent < (400 << 20):
            try:
                answer += sock.recv(65536)
                if b"\r\n\r\n" in answer:
                    break
            except BlockingIOError:
                pass
            try:
                sock.setblocking(True)
                sock.settimeout(0.05)
                sock.sendall(chunk(piece))
                sent += len(piece)
            except (TimeoutError, ConnectionError):
                blocked_since = blocked_since or time.monotonic()
            finally:
                sock.settimeout(0.0)
    assert answer.startswith(b"HTTP/1.1 413 "), answer[:200]
    assert time.monotonic() - began < 10
    assert sent < (LIMIT_MIB + 12) << 20, "far more was taken than the limit allows"
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 64, "the body was kept in memory"


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/nowhere", "/signin"])
@pytest.mark.parametrize(
    "start", [b"", b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n']
)
def test_the_head_hangs_up_on_a_sender_who_ignores_its_refusal(
    farm: RunningDashboard, http: httpx.Client, path: str, start: bytes
):
    """A body that was answered before its end (no form, nothing there, too large) was read on for ever."""
    sent = 0
    with connect(farm) as sock:
        sock.settimeout(10)
        sock.sendall(head(farm, "Transfer-Encoding: chunked", path) + (chunk(start) if start else b""))
        while sent < 1 << 30:
            try:
                sock.sendall(chunk(bytes(64 << 10)))
            except (BrokenPipeError, ConnectionResetError):
                break
            sent += 64 << 10
    assert sent < 64 << 20


def test_after_all_that_a_good_picture_is_still_taken(farm: RunningDashboard):
    answer = plain_http.post(
        f"{farm.base_url}/api/v1/jobs",
        headers=farm.headers,
        files={"image": ("a.png", png(640, 480))},
        data={"settings": json.dumps({"preset": "draft"})},
    )
    assert answer.status_code == 201


def connect(farm: RunningDashboard) -> socket.socket:
    host, port = farm.base_url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def head(farm: RunningDashboard, length: str, path: str = "/api/v1/jobs") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: farm\r\nAuthorization: Bearer {farm.admin_token}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\n{length}\r\n\r\n"
    ).encode()


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def read_answer(sock: socket.socket) -> bytes:
    """Reads until the body's JSON is whole."""
    got = b""
    while not got.endswith(b"}"):
        piece = sock.recv(65536)
        assert piece, got
        got += piece
    return got
