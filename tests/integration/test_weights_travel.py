"""Weights on their way from a real dashboard to a node's shelf: resumed, hashed, whole or not at all. The files are small and real."""

import errno
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from farm.auth import TokenKind, new_token
from farm.catalogue.models import ModelRow, builtin_models
from farm.errors import DiskFullError, HeadUnreachableError, MissingWeightsError, WeightsTransferError
from farm.model import Card, CardKind, Coming, Node
from farm.pull import Checks, Watcher, pull_from_directory
from farm.weights import Manifest, Shelf, manifest_to_json
from node_agent import fetch, fetcher
from node_agent.fetcher import Fetcher
from node_agent.head_shelf import HeadShelf
from node_agent.pipelines.files import wanted_files
from node_agent.pipelines.weights import check_weights
from tests import plain_http
from tests.hub import files_of
from tests.integration.dashboard_server import RunningDashboard, running_dashboard
from tests.unit.test_weights import safetensors_bytes, write_checkpoint

NAME = "i2vgen-xl"
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
ROW = builtin_models()[NAME]


def pull(farm: RunningDashboard, directory: Path, row: ModelRow = ROW) -> Manifest:
    """What `farm models pull --from` does."""
    deaf = Watcher(total=lambda _size: None, more=lambda _size: None)
    return pull_from_directory(
        row, directory, Shelf(farm.data.models), Checks(wanted_files, check_weights), deaf, kept_free=0
    )


class Pc:
    """A node as far as its weights go: its shelf, its fetcher, and what it was told."""

    def __init__(
        self,
        farm: RunningDashboard,
        root: Path,
        pace: Callable[[], float | None] = lambda: None,
        head: str | None = None,
        rows: Mapping[str, ModelRow] = MappingProxyType({NAME: ROW}),
    ) -> None:
        self.token = new_token()
        farm.registry.see_node(Node("n1", "attic", "127.0.0.1"), [], time.time())
        farm.registry.add_token(self.token, TokenKind.NODE, "attic", time.time(), node_id="n1")
        self.shelf = Shelf(root)
        self.fetched = 0
        self.head = head or farm.base_url
        self.fetcher = Fetcher(
            self.shelf,
            lambda: HeadShelf(self.head, self.token),
            lambda: rows,
            pace,
            self._came,
            known=rows.keys(),
            kept_free=0,
        )

    def _came(self) -> None:
        self.fetched += 1

    def has_exactly(self, manifest: Manifest, source: Path) -> None:
        directory = self.shelf.directory(NAME)
        assert directory is not None
        assert self.shelf.manifest(NAME) == manifest
        theirs = files_of(source)
        ours = files_of(directory)
        assert {path: data for path, data in ours.items() if path != "manifest.json"} == {
            file.path: theirs[file.path] for file in manifest.files
        }
        check_weights(directory, ROW)
        assert not self.shelf.half(NAME).exists()
        assert self.fetcher.coming == ()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint whose unet takes many pieces to send."""
    directory = write_checkpoint(tmp_path / "source")
    (directory / UNET).write_bytes(safetensors_bytes({"a": os.urandom(6_000_000)}))
    return directory


def test_a_model_comes_whole_and_is_asked_for_once(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    pc = Pc(farm, tmp_path / "pc")
    pc.fetcher.look()
    assert (pc.fetcher.coming, pc.fetched) == ((), 0), "the head has nothing yet"
    manifest = pull(farm, source)
    pc.fetcher.look()
    pc.has_exactly(manifest, source)
    pc.fetcher.look()
    assert pc.fetched == 1


@pytest.mark.parametrize("kept", [None, 1_000_000])
def test_a_file_that_a_pc_has_lost_comes_again(
    farm: RunningDashboard, tmp_path: Path, source: Path, kept: int | None
) -> None:
    """A failing disk, a power cut or a person: the PC was without the model for good, since its list still named it."""
    manifest = pull(farm, source)
    pc = Pc(farm, tmp_path / "pc")
    pc.fetcher.look()
    file = tmp_path / "pc" / NAME / UNET
    if kept is None:
        file.unlink()
    else:
        os.truncate(file, kept)
    with pytest.raises(MissingWeightsError) as caught:
        check_weights(tmp_path / "pc" / NAME, ROW)
    assert caught.value.remedy == (
        f"A PC of the farm fetches it again by itself; on the head run `farm models pull {NAME}`."
    )
    pc.fetcher.look()
    pc.has_exactly(manifest, source)
    assert pc.fetched == 2


def test_what_is_in_use_after_a_power_cut_was_on_the_disk(
    farm: RunningDashboard, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file's name came to the disk before its bytes: it was taken for hashed, and was short."""
    synced: set[str] = set()
    real = os.fsync

    def fsync(number: int) -> None:
        synced.add(Path(f"/proc/self/fd/{number}").readlink().name)
        real(number)

    manifest = pull(farm, source)
    monkeypatch.setattr(os, "fsync", fsync)
    Pc(farm, tmp_path / "pc").fetcher.look()
    assert {f"{Path(file.path).name}.part" for file in manifest.files} <= synced


class Cutting:
    """A line to the head that breaks after so many bytes from the head, once; it counts what went through."""

    def __init__(self, address: str, after: int) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._head, self._left = (host, int(port)), after
        self.cut = False
        self.passed = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    @contextmanager
    def open(self) -> Iterator["Cutting"]:
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()
        try:
            yield self
        finally:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            accepting.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            far = socket.create_connection(self._head)
            threading.Thread(target=self._carry, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, True), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with closing(source), closing(target):
            try:
                while data := source.recv(65536):
                    if counted:
                        self.passed += len(data)
                        if not self.cut and self.passed > self._left:
                            self.cut = True
                            break
                    target.sendall(data)
                source.shutdown(socket.SHUT_RDWR)
                target.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def test_a_cut_line_costs_what_was_under_way_and_no_more(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    manifest = pull(farm, source)
    with Cutting(farm.base_url, after=4_000_000).open() as line:
        pc = Pc(farm, tmp_path / "pc", head=line.url)
        pc.fetcher.look()
        assert line.cut
        (coming,) = pc.fetcher.coming
        assert (coming.model, coming.total_bytes, coming.trouble) == (NAME, manifest.bytes, None)
        assert 2_000_000 < coming.done_bytes < manifest.bytes
        assert pc.shelf.directory(NAME) is None, "half a model is in nobody's use"
        before = line.passed
        pc.fetcher.look()
        pc.has_exactly(manifest, source)
        assert line.passed - before < manifest.bytes - coming.done_bytes + 20_000, "what was there came once"


def test_a_head_that_goes_away_in_the_middle_is_waited_for(tmp_path: Path, source: Path) -> None:
    """The same head comes back under its address, as after a restart."""
    with running_dashboard(tmp_path) as farm:
        manifest = pull(farm, source)
        port, admin = int(farm.base_url.rsplit(":", 1)[1]), farm.admin_token
        with Cutting(farm.base_url, after=3_000_000).open() as line:
            pc = Pc(farm, tmp_path / "pc", head=line.url)
            pc.fetcher.look()
    pc.head = farm.base_url
    pc.fetcher.look()
    (coming,) = pc.fetcher.coming
    assert (coming.trouble, coming.done_bytes > 0) == (None, True)
    with running_dashboard(tmp_path, port=port, admin_token=admin):
        pc.fetcher.look()
        pc.has_exactly(manifest, source)


def test_a_model_that_changes_while_it_comes_is_fetched_in_its_new_version(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    pull(farm, source)
    with Cutting(farm.base_url, after=4_000_000).open() as line:
        pc = Pc(farm, tmp_path / "pc", head=line.url)
        pc.fetcher.look()
    (source / UNET).write_bytes(safetensors_bytes({"a": os.urandom(6_000_000)}))
    manifest = pull(farm, source)
    pc.head = farm.base_url
    pc.fetcher.look()
    pc.has_exactly(manifest, source)
    (source / "vae" / "config.json").write_text('{"newer": true}')
    newest = pull(farm, source)
    pc.fetcher.look()
    pc.has_exactly(newest, source)


def test_what_comes_damaged_is_never_in_use_and_is_said(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    """A flipped byte on the head's disk: the length is right and the file opens, only the hash tells."""
    manifest = pull(farm, source)
    stored = farm.data.models / NAME / UNET
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    pc = Pc(farm, tmp_path / "pc")
    pc.fetcher.look()
    pc.fetcher.look()
    assert pc.fetcher.coming[0].trouble is None, "once more may do"
    pc.fetcher.look()
    (coming,) = pc.fetcher.coming
    assert coming.trouble is not None
    assert coming.trouble.startswith(f"{UNET} of {NAME} came damaged")
    assert (pc.shelf.directory(NAME), pc.fetched) == (None, 0)
    stored.write_bytes(whole)
    pc.fetcher.look()
    assert pc.shelf.directory(NAME) is None, "it rests"
    assert manifest.bytes > 0


def test_pickles_in_a_manifest_are_refused_before_any_byte(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    manifest = pull(farm, source)
    pickle = manifest_to_json(manifest).replace(b"model.fp16.safetensors", b"model.bin")
    (farm.data.models / NAME / "manifest.json").write_bytes(pickle)
    pc = Pc(farm, tmp_path / "pc")
    pc.fetcher.look()
    assert pc.fetcher.coming == (), "the head itself does not offer it"
    with (
        pytest.raises(WeightsTransferError, match="changed meanwhile"),
        HeadShelf(pc.head, pc.token) as line,
    ):
        line.manifest(NAME)


def test_a_model_that_the_pc_does_not_know_is_named(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    pull(farm, source)
    pc = Pc(farm, tmp_path / "pc", rows={})
    pc.fetcher.look()
    (coming,) = pc.fetcher.coming
    assert coming.trouble is not None
    assert coming.trouble.startswith("that PC's catalogue has no such model")
    assert pc.shelf.directory(NAME) is None


def test_an_incomplete_model_of_the_head_is_not_taken(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    manifest = pull(farm, source)
    less = Manifest(NAME, "x", tuple(file for file in manifest.files if file.path != UNET))
    (farm.data.models / NAME / "manifest.json").write_bytes(manifest_to_json(less))
    pc = Pc(farm, tmp_path / "pc")
    pc.fetcher.look()
    (coming,) = pc.fetcher.coming
    assert coming.trouble is not None
    assert UNET in coming.trouble
    assert (pc.shelf.directory(NAME), pc.shelf.half(NAME).exists()) == (None, False)


def test_a_version_that_is_not_taken_is_not_fetched_again_and_again(
    farm: RunningDashboard, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ten minutes all of its gigabytes came, and were thrown away."""
    manifest = pull(farm, source)
    less = Manifest(NAME, "x", tuple(file for file in manifest.files if file.path != UNET))
    kept = farm.data.models / NAME / "manifest.json"
    kept.write_bytes(manifest_to_json(less))
    tries: list[str] = []

    def counted(*args: object) -> None:
        tries.append("once")
        fetch.fetch_model(*args)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(fetcher, "fetch_model", counted)
    monkeypatch.setattr(fetcher, "REST_S", 0.0)
    pc = Pc(farm, tmp_path / "pc")
    pc.fetcher.look()
    pc.fetcher.look()
    assert (len(tries), pc.fetcher.coming[0].trouble is None) == (1, False)
    kept.write_bytes(manifest_to_json(manifest))
    pc.fetcher.look()
    pc.has_exactly(manifest, source)


def test_a_file_that_the_head_has_lost_is_said_and_other_models_come(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    """Its answer was "HTTP 500", every ten seconds for ever, and no model behind it ever came."""
    other = replace(ROW, name="other")
    pull(farm, source)
    (source / UNET).write_bytes(safetensors_bytes({"a": os.urandom(6_100_000)}))
    pull(farm, source, other)
    (farm.data.models / NAME / UNET).unlink()
    pc = Pc(farm, tmp_path / "pc", rows={NAME: ROW, "other": other})
    for _ in range(fetcher.DAMAGED_TRIES + 1):  # with the first some of the other files came
        pc.fetcher.look()
    (coming,) = pc.fetcher.coming
    assert (coming.model, coming.trouble) == (
        NAME,
        f"The head's own file {UNET} of {NAME} is missing. Run `farm models pull {NAME}` on the head.",
    )
    assert pc.shelf.directory("other") is not None


def test_an_owner_at_the_pc_stops_the_fetching_and_it_goes_on_after(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    manifest = pull(farm, source)
    paces: list[float | None] = [None, None, None, 0.0]
    pc = Pc(farm, tmp_path / "pc", pace=lambda: paces.pop(0) if paces else None)
    pc.fetcher.look()
    (coming,) = pc.fetcher.coming
    assert 0 < coming.done_bytes < manifest.bytes
    assert coming.trouble is None
    pc.fetcher.look()
    pc.has_exactly(manifest, source)


def test_the_pace_is_kept(farm: RunningDashboard, tmp_path: Path, source: Path) -> None:
    pull(farm, source)
    pc = Pc(farm, tmp_path / "pc", pace=lambda: 12_000_000.0)
    began = time.monotonic()
    pc.fetcher.look()
    assert time.monotonic() - began > 0.45, "6 MB at 12 MB/s"
    assert pc.shelf.directory(NAME) is not None


def test_a_removed_model_goes_from_the_nodes_too_and_a_lost_one_stays(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    """A head that lost its disk must not cost every PC its models."""
    manifest = pull(farm, source)
    pc = Pc(farm, tmp_path / "pc")
    pc.fetcher.look()
    shutil.rmtree(farm.data.models)
    pc.fetcher.look()
    pc.has_exactly(manifest, source)
    pull(farm, source)
    head = Shelf(farm.data.models)
    head.remove(NAME)
    head.mark_removed(NAME)
    pc.fetcher.look()
    assert (pc.shelf.directory(NAME), pc.fetched) == (None, 2)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk of its own takes root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small_is_said_before_a_byte_comes(
    farm: RunningDashboard, small_disk: Path, source: Path
) -> None:
    pull(farm, source)
    pc = Pc(farm, small_disk / "models")
    pc.fetcher.look()
    (coming,) = pc.fetcher.coming
    assert coming.trouble is not None
    assert "has 4 MB free; i2vgen-xl needs 6 MB" in coming.trouble
    assert files_of(small_disk) == {}
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    pc.fetcher.look()
    assert pc.shelf.directory(NAME) is not None, "no person had to do more than make room"


def test_a_disk_that_becomes_full_under_way_is_given_back(
    farm: RunningDashboard, small_disk: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others fill the disk after it was looked at: the kernel's own ENOSPC."""
    pull(farm, source)
    monkeypatch.setattr(fetch, "check_room", lambda *_: None)
    pc = Pc(farm, small_disk / "models")
    pc.fetcher.look()
    (coming,) = pc.fetcher.coming
    assert coming.trouble is not None
    assert "became full while i2vgen-xl was fetched" in coming.trouble
    assert files_of(small_disk) == {}
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    pc.fetcher.look()
    assert pc.shelf.directory(NAME) is None, (
        "it rests: a quota is seen only by filling it, gigabytes each time"
    )


def test_a_head_s_disk_that_is_full_is_said_and_what_came_is_kept(
    farm: RunningDashboard, small_disk: Path, source: Path
) -> None:
    deaf = Watcher(total=lambda _size: None, more=lambda _size: None)
    checks = Checks(wanted_files, check_weights)
    with pytest.raises(DiskFullError, match="has 4 MB free; i2vgen-xl needs 6 MB"):
        pull_from_directory(ROW, source, Shelf(small_disk / "m"), checks, deaf, kept_free=0)
    with pytest.raises(DiskFullError, match="is full") as caught:
        pull_from_directory(ROW, source, Shelf(small_disk / "m"), checks, deaf, kept_free=-(10**9))
    assert "goes on where it stopped" in caught.value.remedy
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert Shelf(small_disk / "m").manifests() == []


def test_only_a_node_gets_at_the_weights_and_only_at_them(
    farm: RunningDashboard, tmp_path: Path, source: Path
) -> None:
    manifest = pull(farm, source)
    pc = Pc(farm, tmp_path / "pc")
    node = {"Authorization": f"Bearer {pc.token}"}
    (unet,) = (file for file in manifest.files if file.path == UNET)
    address = f"/api/v1/models/{NAME}/files/{UNET}?sha256={unet.sha256}"
    with plain_http.Client(base_url=farm.base_url) as http:
        for path in ("/api/v1/nodes/weights", f"/api/v1/models/{NAME}/manifest", address):
            assert http.get(path).status_code == 401
            assert http.get(path, headers=farm.headers).status_code == 401, "a person's token is not a node's"
            assert http.get(path, headers=node).status_code == 200
        assert http.get("/api/v1/jobs", headers=node).status_code == 401
        assert http.get("/api/v1/models", headers=node).status_code == 401
        part = http.get(address, headers={**node, "Range": "bytes=5999990-"})
        assert (part.status_code, part.content) == (206, (source / UNET).read_bytes()[5999990:])
        for path, status in (
            (f"/api/v1/models/{NAME}/files/{UNET}?sha256=00", 409),
            (f"/api/v1/models/{NAME}/files/{UNET}", 422),
            (f"/api/v1/models/{NAME}/files/unet/other.json?sha256=00", 404),
            (f"/api/v1/models/{NAME}/files/..%2f..%2fsecrets%2fadmin-token?sha256=00", 404),
            ("/api/v1/models/..%2fsecrets/manifest", 401),
            ("/api/v1/models/svd/manifest", 404),
        ):
            assert http.get(path, headers=node).status_code == status, path


def test_a_head_that_is_not_there_is_no_surprise(tmp_path: Path) -> None:
    with pytest.raises(HeadUnreachableError), HeadShelf("http://127.0.0.1:9", "x") as line:
        line.offer()
    with pytest.raises(MissingWeightsError):
        check_weights(tmp_path, ROW)


def test_progress_is_seen_in_the_api_and_on_the_page(farm: RunningDashboard, source: Path) -> None:
    coming = (Coming(NAME, 1_430_000_000, 3_330_000_000), Coming("svd", 0, 9, "The disk is full. Free 3 GB."))
    card = Card("GPU-1", "n1", CardKind.CUDA, "RTX 2060", 6.0, 5.4, coming=coming)
    farm.registry.see_node(Node("n1", "attic", "10.0.0.2"), [card], time.time())
    assert farm.reader.cards()[0].coming == coming
    pull(farm, source)
    lines = ["i2vgen-xl 42 %, 1.9 GB to go", "svd cannot be fetched: The disk is full. Free 3 GB."]
    with plain_http.Client(base_url=farm.base_url, headers=farm.headers) as http:
        (node,) = http.get("/api/v1/nodes").json()
        assert node["fetching"] == lines
        models = {model["name"]: model for model in http.get("/api/v1/models").json()}
        assert models[NAME]["weights_bytes"] > 6_000_000
        assert models["svd"]["weights_bytes"] is None
        http.headers["accept"] = "text/html"
        http.get(farm.signin_url)
        page = http.get("/cards").text
        assert all(line in page for line in lines)
