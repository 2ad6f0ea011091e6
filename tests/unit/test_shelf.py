"""A model on the shelf is whole or not there; manifests name nothing outside and no pickle."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.errors import DiskFullError, WeightsTransferError
from farm.model import Coming
from farm.weights import (
    Manifest,
    Shelf,
    WeightFile,
    check_path,
    check_room,
    coming_text,
    manifest_from_json,
    manifest_to_json,
    sha256_of,
    size_text,
)


def made(shelf: Shelf, name: str, content: bytes = b"{}") -> Manifest:
    half = shelf.half(name)
    (half / "unet").mkdir(parents=True)
    file = half / "unet" / "config.json"
    file.write_bytes(content)
    return Manifest(name, "here", (WeightFile("unet/config.json", len(content), sha256_of(file)),))


def test_a_model_is_there_once_it_is_put_and_not_before(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    manifest = made(shelf, "svd")
    assert (shelf.directory("svd"), shelf.manifests()) == (None, [])
    shelf.put(manifest)
    assert shelf.directory("svd") == tmp_path / "svd"
    assert shelf.manifests() == [manifest]
    assert not shelf.half("svd").exists()


def test_what_is_put_is_on_the_disk_before_it_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub leaves that to the system: a power cut right after a pull left a model with short files."""
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda number: synced.append(Path(f"/proc/self/fd/{number}").readlink().name)
    )
    shelf = Shelf(tmp_path)
    shelf.put(made(shelf, "svd"))
    assert synced == ["config.json", "manifest.json.new"]


def test_a_newer_version_takes_the_place_of_the_older(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    old = made(shelf, "svd", b"old")
    shelf.put(old)
    new = made(shelf, "svd", b"newer")
    shelf.put(new)
    assert shelf.manifest("svd") == new
    assert old.digest != new.digest
    assert (tmp_path / "svd" / "unet" / "config.json").read_bytes() == b"newer"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["svd"]


def test_what_is_removed_is_gone_with_its_halves_and_marked_until_it_comes_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put(made(shelf, "svd", b"12345"))
    made(shelf, "svd", b"678")
    assert shelf.remove("svd") > 8
    shelf.mark_removed("svd")
    assert (shelf.directory("svd"), shelf.removed(), shelf.remove("svd")) == (None, ["svd"], 0)
    shelf.put(made(shelf, "svd"))
    assert shelf.removed() == []


def test_a_damaged_manifest_is_no_model(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.put(made(shelf, "svd"))
    (tmp_path / "svd" / "manifest.json").write_text('{"name": "svd", "files": [')
    assert (shelf.manifest("svd"), shelf.manifests()) == (None, [])


@pytest.mark.parametrize(
    "path",
    [
        "../x.json",
        "/etc/x.json",
        "unet/../../x.json",
        "unet//x.json",
        ".wanted.json",
        "a\\b.json",
        "",
        "a\n.txt",
        "manifest.json",
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(WeightsTransferError):
        check_path(path)


@pytest.mark.parametrize(
    "name", ["unet/a.bin", "a.pt", "unet/model.ckpt", "a.pkl", "unet/run.py", "unet/noending"]
)
def test_what_can_run_code_is_refused(name: str) -> None:
    manifest = Manifest("svd", "hub", (WeightFile(name, 1, "0"),))
    with pytest.raises(WeightsTransferError, match="pickle can run code"):
        manifest_from_json(manifest_to_json(manifest))


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_accepted_path_leaves_its_directory(first: str, second: str) -> None:
    root = Path("/models/svd")
    path = f"{first}/{second}.json"
    try:
        check_path(path)
    except WeightsTransferError:
        return
    found = (root / path).resolve()
    assert found.is_relative_to(root)
    assert found != root


def test_the_digest_is_of_the_files_alone() -> None:
    one, two = WeightFile("a.json", 1, "aa"), WeightFile("b.json", 2, "bb")
    assert Manifest("m", "hub", (one, two)).digest == Manifest("m", "/dir", (two, one)).digest
    assert Manifest("m", "hub", (one,)).digest != Manifest("m", "hub", (two,)).digest


def test_a_disk_without_room_is_said_with_figures(tmp_path: Path) -> None:
    check_room(tmp_path / "not" / "there", 1, "svd", kept_free=0)
    with pytest.raises(DiskFullError) as caught:
        check_room(tmp_path, 10**18, "svd", kept_free=2 * 10**9)
    assert "svd needs 1000000000.0 GB, and 2.0 GB stay free" in caught.value.message
    assert caught.value.remedy.startswith("Free ")


def test_lines_for_people() -> None:
    assert coming_text(Coming("i2vgen-xl", 1_430_000_000, 3_330_000_000)) == "i2vgen-xl 42 %, 1.9 GB to go"
    assert coming_text(Coming("svd", 0, 0)) == "svd 0 %, 0 kB to go"
    assert coming_text(Coming("svd", 1, 9, "No room.")) == "svd cannot be fetched: No room."
    damaged = Coming("svd", 0, 0, "A file is cut short. Delete it.", damaged=True)
    assert coming_text(damaged) == "svd cannot be used: A file is cut short. Delete it."
    assert [size_text(size) for size in (999, 34_000_000, 8_250_000_000)] == ["1 kB", "34 MB", "8.2 GB"]
