"""`farm models pull` as a person runs it, from a directory and from a small hub on a local port."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.catalogue.models import builtin_models
from farm.weights import Shelf, sha256_of
from node_agent.pipelines.weights import check_weights
from tests.farm_verbs import run_here
from tests.hub import Hub, files_of, running_hub
from tests.unit.test_weights import (
    UNET_INDEX,
    UNET_SHARDS,
    safetensors_bytes,
    shard_unet,
    write_checkpoint,
)

REPOSITORY = "ali-vilab/i2vgen-xl"
UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
SECRET = "hf_thisIsAToken"  # noqa: S105 - nobody's


class Head:
    """A head's data directory and its command line, in an environment without anybody's tokens."""

    def __init__(self, root: Path, endpoint: str = "http://127.0.0.1:9") -> None:
        self.data = root / "data"
        self.shelf = Shelf(self.data / "models")
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(root / "hf"),
            "FARM_DATA": str(self.data),
            "OMP_NUM_THREADS": "1",
        }

    def run_here(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Without a hub: what asks one needs a process of its own, since the library reads its environment once."""
        return run_here(["models", *words], {"FARM_DATA": str(self.data)})

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "farm.cli.main", "models", *words],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A whole checkpoint, with the clutter that repositories have."""
    directory = write_checkpoint(tmp_path / "source")
    (directory / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    (directory / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"full precision")
    (directory / "README.md").write_text("hello")
    (directory / "docs").mkdir()
    (directory / "docs" / "cover.json").write_text("{}")
    return directory


@pytest.fixture
def hub(source: Path) -> Iterator[Hub]:
    with running_hub(Hub(REPOSITORY, files_of(source))) as hub:
        yield hub


def only_what_is_needed(shelf: Shelf, source: Path) -> None:
    manifest = shelf.manifest("i2vgen-xl")
    assert manifest is not None
    there = {file.path for file in manifest.files}
    assert UNET in there
    assert "model_index.json" in there
    assert all(path.endswith((".json", ".txt", ".fp16.safetensors")) for path in there)
    assert not any(path.startswith("docs") for path in there)
    directory = shelf.directory("i2vgen-xl")
    assert directory is not None
    assert set(files_of(directory)) == there | {"manifest.json"}
    for file in manifest.files:
        assert (directory / file.path).read_bytes() == (source / file.path).read_bytes()
        assert (file.bytes, file.sha256) == (
            (source / file.path).stat().st_size,
            sha256_of(source / file.path),
        )


def test_a_directory_is_taken_in_and_removed_again(tmp_path: Path, source: Path) -> None:
    head = Head(tmp_path)
    pulled = head.run("pull", "i2vgen-xl", "--from", str(source))
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.startswith("i2vgen-xl: 14 files, ")
    only_what_is_needed(head.shelf, source)
    removed = head.run_here("rm", "i2vgen-xl")
    assert removed.returncode == 0, removed.stderr
    assert head.shelf.directory("i2vgen-xl") is None
    assert head.shelf.removed() == ["i2vgen-xl"]
    again = head.run_here("rm", "i2vgen-xl")
    assert (again.returncode, "The head has no weights of i2vgen-xl" in again.stderr) == (1, True)


def test_a_removal_that_was_broken_off_is_ended_by_the_next(tmp_path: Path) -> None:
    """The next one said that the head had no weights, and the PCs kept theirs for ever."""
    head = Head(tmp_path)
    left = head.shelf.root / ".i2vgen-xl.old" / "unet"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"1234")
    removed = head.run_here("rm", "i2vgen-xl")
    assert removed.returncode == 0, removed.stderr
    assert head.shelf.removed() == ["i2vgen-xl"]
    assert not left.exists()


def test_what_lies_beside_the_parts_is_not_looked_into(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model at the top of a disk of its own: its lost+found is root's, and the command ended with a trace."""
    (source / "lost+found").mkdir()
    real = Path.iterdir

    def iterdir(place: Path) -> Iterator[Path]:
        if place.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(place))
        return real(place)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    head = Head(tmp_path)
    pulled = head.run_here("pull", "i2vgen-xl", "--from", str(source))
    assert pulled.returncode == 0, pulled.stderr
    only_what_is_needed(head.shelf, source)


def test_a_disk_that_is_full_is_said_whichever_way_the_library_downloads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its faster one raises no OSError: "the connection or the disk failed (RuntimeError)"."""

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("IO Error: No space left on device (os error 28)")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", full)
    head = Head(tmp_path)
    pulled = head.run_here("pull", "i2vgen-xl")
    assert pulled.returncode == 1
    assert f"the disk of {head.shelf.half('i2vgen-xl')} is full" in " ".join(pulled.stderr.split())
    assert "Free space there" in pulled.stderr


def test_shards_are_taken_in_with_their_index(tmp_path: Path, source: Path) -> None:
    """Only single files were known: a sharded checkpoint "had no safetensors"."""
    shard_unet(source)
    head = Head(tmp_path)
    pulled = head.run_here("pull", "i2vgen-xl", "--from", str(source))
    assert pulled.returncode == 0, pulled.stderr
    manifest = head.shelf.manifest("i2vgen-xl")
    assert manifest is not None
    sizes = {file.path: file.bytes for file in manifest.files if "model" in file.path and "unet" in file.path}
    assert sizes == {
        f"unet/{name}": (source / "unet" / name).stat().st_size for name in (UNET_INDEX, *UNET_SHARDS)
    }
    directory = head.shelf.directory("i2vgen-xl")
    assert directory is not None
    check_weights(directory, builtin_models()["i2vgen-xl"])


def test_a_model_is_downloaded_once_and_only_what_it_needs(tmp_path: Path, source: Path, hub: Hub) -> None:
    head = Head(tmp_path, hub.url)
    pulled = head.run("pull", "i2vgen-xl")
    assert pulled.returncode == 0, pulled.stderr
    only_what_is_needed(head.shelf, source)
    assert not any(path.endswith((".bin", "model.safetensors", ".md")) for path in hub.served())
    manifest = head.shelf.manifest("i2vgen-xl")
    assert manifest is not None
    assert manifest.source == REPOSITORY


def test_a_download_that_was_cut_goes_on_where_it_stopped(tmp_path: Path, source: Path, hub: Hub) -> None:
    (source / UNET).write_bytes(safetensors_bytes({"a": bytes(25_000_000)}))
    hub.files[UNET] = (source / UNET).read_bytes()
    hub.cut_after[UNET] = 22_000_000
    head = Head(tmp_path, hub.url)
    pulled = head.run("pull", "i2vgen-xl")
    assert pulled.returncode == 0, pulled.stderr
    began, went_on = (start for path, start in hub.asked if path == UNET)
    assert (began, went_on > 10_000_000) == (0, True)
    only_what_is_needed(head.shelf, source)


def test_a_pull_that_failed_finds_what_it_had(tmp_path: Path, source: Path, hub: Hub) -> None:
    vae = "vae/diffusion_pytorch_model.fp16.safetensors"
    head = Head(tmp_path, hub.url)
    hub.damaged = {vae}
    assert head.run("pull", "i2vgen-xl").returncode == 1
    hub.damaged, hub.asked = set(), []
    assert head.run("pull", "i2vgen-xl").returncode == 0
    assert hub.served() == {vae}
    only_what_is_needed(head.shelf, source)


def test_what_is_changed_on_its_way_is_not_taken(tmp_path: Path, hub: Hub) -> None:
    hub.damaged = {UNET}
    head = Head(tmp_path, hub.url)
    pulled = head.run("pull", "i2vgen-xl")
    assert pulled.returncode == 1
    assert f"{UNET} of {REPOSITORY} was changed on its way" in pulled.stderr
    assert head.shelf.directory("i2vgen-xl") is None


def test_a_gated_model_asks_for_a_token_and_keeps_it_unseen(tmp_path: Path, source: Path, hub: Hub) -> None:
    hub.token = SECRET
    head = Head(tmp_path, hub.url)
    refused = head.run("pull", "i2vgen-xl")
    assert refused.returncode == 1
    assert "its licence must be accepted first" in refused.stderr
    assert "--hf-token-file" in refused.stderr
    file = tmp_path / "token"
    file.write_text(SECRET + "\n")
    pulled = head.run("pull", "i2vgen-xl", "--hf-token-file", str(file))
    assert pulled.returncode == 0, pulled.stderr
    only_what_is_needed(head.shelf, source)
    kept = head.data / "secrets" / "hf-token"
    assert (kept.read_text().strip(), kept.stat().st_mode & 0o777) == (SECRET, 0o600)
    head.shelf.remove("i2vgen-xl")
    again = head.run("pull", "i2vgen-xl")
    assert again.returncode == 0, "the kept token is used"
    said = "".join(done.stdout + done.stderr for done in (refused, pulled, again))
    assert SECRET not in said
    everywhere = [
        file for file in head.data.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()
    ]
    assert everywhere == [kept]


def test_a_token_may_come_from_the_environment(tmp_path: Path, hub: Hub) -> None:
    hub.token = SECRET
    head = Head(tmp_path, hub.url)
    assert head.run("pull", "i2vgen-xl", FARM_HF_TOKEN=SECRET).returncode == 0


def test_pickles_alone_are_refused(tmp_path: Path, source: Path, hub: Hub) -> None:
    for path in [path for path in hub.files if path.startswith("unet/") and path.endswith(".safetensors")]:
        del hub.files[path]
        (source / path).unlink()
    head = Head(tmp_path, hub.url)
    for refused in (
        head.run("pull", "i2vgen-xl"),
        head.run_here("pull", "i2vgen-xl", "--from", str(source)),
    ):
        assert refused.returncode == 1
        assert "only pickle files (diffusion_pytorch_model.bin)" in refused.stderr
    assert not any(path.endswith(".bin") for path in hub.served())
    assert head.shelf.directory("i2vgen-xl") is None


def test_bad_input_is_a_sentence(tmp_path: Path, source: Path, hub: Hub) -> None:
    head = Head(tmp_path, hub.url)
    unknown = head.run_here("pull", "i2vgen")
    assert (unknown.returncode, "There is no model i2vgen." in unknown.stderr) == (2, True)
    draft = head.run_here("pull", "animatic")
    assert (draft.returncode, "animatic needs no weights" in draft.stderr) == (2, True)
    other = head.run_here("pull", "svd", "--from", str(source))
    assert (other.returncode, "is of another model" in other.stderr) == (1, True)
    assert "farm models pull MODEL --from DIR" in other.stderr, "its `source` is right, the directory is not"
    nobody = head.run("pull", "svd")
    assert (nobody.returncode, "Hugging Face has no such repository" in nobody.stderr) == (1, True)
    whole = (source / UNET).read_bytes()
    (source / UNET).write_bytes(whole[:-3])
    half = head.run_here("pull", "i2vgen-xl", "--from", str(source))
    assert (half.returncode, UNET in half.stderr) == (1, True)
    away = head.run("pull", "i2vgen-xl", HF_ENDPOINT="http://127.0.0.1:9")
    assert (away.returncode, "the connection or the disk failed" in away.stderr) == (1, True)
    assert "--from DIR" in away.stderr
    for done in (unknown, draft, other, nobody, half, away):
        assert "Traceback" not in done.stderr
    assert head.shelf.manifests() == []


def test_a_part_that_leads_elsewhere_is_refused(tmp_path: Path, hub: Hub) -> None:
    """A model_index.json is data from elsewhere: it must not choose where files are written."""
    index = json.loads(hub.files["model_index.json"])
    index["../../evil"] = ["transformers", "CLIPTokenizer"]
    hub.files["model_index.json"] = json.dumps(index).encode()
    hub.files["../../evil/x.json"] = b"{}"
    head = Head(tmp_path, hub.url)
    refused = head.run("pull", "i2vgen-xl")
    assert (refused.returncode, "cannot be kept as" in refused.stderr) == (1, True)
    assert not list(tmp_path.rglob("evil"))
