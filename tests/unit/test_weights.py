"""Weights are found, and half of them is not taken for the whole. The files are written by hand, without torch."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.models import ModelRow, builtin_models
from farm.errors import MissingWeightsError
from farm.weights import Manifest, Shelf
from node_agent.pipelines.files import wanted_files
from node_agent.pipelines.stored import read_header
from node_agent.pipelines.weights import (
    check_weights,
    find_weights,
    has_weights,
    layout_of,
    weights_of,
)
from tests.checkpoints import MODEL_INDEX

REPOSITORY = "ali-vilab/i2vgen-xl"

WEIGHTS = {
    "unet": "diffusion_pytorch_model.fp16.safetensors",
    "vae": "diffusion_pytorch_model.fp16.safetensors",
    "text_encoder": "model.fp16.safetensors",
    "image_encoder": "model.fp16.safetensors",
}

SMALL_FILES = {
    "feature_extractor": ("preprocessor_config.json",),
    "scheduler": ("scheduler_config.json",),
    "tokenizer": ("tokenizer_config.json", "vocab.json", "merges.txt"),
    **dict.fromkeys(WEIGHTS, ("config.json",)),
}


def safetensors_bytes(tensors: dict[str, bytes]) -> bytes:
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(tensors.values())


def write_checkpoint(directory: Path) -> Path:
    """The layout of the real repository, with weights of a few bytes."""
    for part, names in SMALL_FILES.items():
        (directory / part).mkdir(parents=True)
        for name in names:
            (directory / part / name).write_text("{}")
    for part, name in WEIGHTS.items():
        (directory / part / name).write_bytes(safetensors_bytes({"a": b"12345678", "b": b"1234"}))
    (directory / "model_index.json").write_text(json.dumps(MODEL_INDEX))
    return directory


UNET_INDEX = "diffusion_pytorch_model.safetensors.index.fp16.json"
UNET_SHARDS = [f"diffusion_pytorch_model.fp16-0000{number}-of-00002.safetensors" for number in (1, 2)]


def shard_unet(directory: Path) -> Path:
    """Puts two shards and their index, as diffusers writes them, in the place of the UNet's one file; the UNet's directory."""
    unet = directory / "unet"
    (unet / WEIGHTS["unet"]).unlink()
    (unet / UNET_SHARDS[0]).write_bytes(safetensors_bytes({"a": b"12345678"}))
    (unet / UNET_SHARDS[1]).write_bytes(safetensors_bytes({"b": b"1234"}))
    (unet / UNET_INDEX).write_text(json.dumps({"weight_map": dict(zip("ab", UNET_SHARDS, strict=True))}))
    return unet


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "checkpoint")


def row(source: str) -> ModelRow:
    return replace(builtin_models()["i2vgen-xl"], source=source)


def refusal(directory: Path) -> MissingWeightsError:
    with pytest.raises(MissingWeightsError) as caught:
        check_weights(directory, row(str(directory)))
    assert has_weights(row(str(directory))) is False
    assert caught.value.remedy
    return caught.value


def test_a_whole_checkpoint_in_a_directory_is_found_and_accepted(checkpoint: Path) -> None:
    assert find_weights(str(checkpoint)) == checkpoint
    check_weights(checkpoint, row(str(checkpoint)))
    assert has_weights(row(str(checkpoint))) is True


def test_a_model_without_weights_always_has_them() -> None:
    assert has_weights(builtin_models()["animatic"]) is True


def test_every_model_with_weights_says_what_its_checkpoint_holds() -> None:
    with_weights = {name: layout_of(row.pipeline) for name, row in builtin_models().items() if row.source}

    assert set(with_weights) == {"i2vgen-xl", "svd", "svd-xt"}
    for layout in with_weights.values():
        assert {"unet", "vae", "image_encoder"} <= set(layout.weighted)
        assert {"scheduler", "feature_extractor"} <= layout.others
        assert {library for library, _ in layout.weighted.values()} == {"diffusers", "transformers"}


def test_the_snapshot_that_main_points_to_is_found_in_the_cache(tmp_path: Path) -> None:
    folder = tmp_path / "models--ali-vilab--i2vgen-xl"
    write_checkpoint(folder / "snapshots" / "aaa")
    other = write_checkpoint(folder / "snapshots" / "bbb")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("bbb\n")
    os.utime(other, (1, 1))

    assert find_weights(REPOSITORY, tmp_path) == other
    assert has_weights(row(REPOSITORY), tmp_path) is True


def test_without_a_main_the_newest_snapshot_is_taken(tmp_path: Path) -> None:
    snapshots = tmp_path / "models--ali-vilab--i2vgen-xl" / "snapshots"
    old, new = write_checkpoint(snapshots / "old"), write_checkpoint(snapshots / "new")
    os.utime(old, (1000, 1000))
    os.utime(new, (2000, 2000))

    assert find_weights(REPOSITORY, tmp_path) == new


def test_weights_that_are_nowhere_say_where_was_looked_and_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        find_weights(REPOSITORY, tmp_path)

    assert str(tmp_path / "models--ali-vilab--i2vgen-xl") in caught.value.message
    assert f"hf download {REPOSITORY}" in caught.value.remedy
    assert has_weights(row(REPOSITORY), tmp_path) is False


@pytest.mark.parametrize(
    "source",
    [
        "/nowhere/at/all",
        "~/nowhere-at-all",
        "../up",
        "a/b/c",
        "justaword",
        "",
        "~nobody-here/x",
        "x" * 5000,
        "a\0b",
    ],
)
def test_a_path_that_is_no_directory_is_not_looked_for_in_the_cache(source: str, tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match="is not a directory on this PC"):
        find_weights(source, tmp_path)


def test_half_a_download_names_the_missing_file_and_how_to_complete_it(tmp_path: Path) -> None:
    """In the cache a file appears in the snapshot only once it is whole; till then it is an `.incomplete` blob."""
    folder = tmp_path / "models--ali-vilab--i2vgen-xl"
    snapshot = write_checkpoint(folder / "snapshots" / "aaa")
    (snapshot / "unet" / WEIGHTS["unet"]).unlink()
    (folder / "blobs").mkdir()
    (folder / "blobs" / "abc.incomplete").write_bytes(b"...")

    error = refusal(snapshot)

    assert str(snapshot / "unet" / WEIGHTS["unet"]) in error.message
    assert f"hf download {REPOSITORY}" in error.remedy


def test_a_link_to_a_blob_that_is_gone_counts_as_missing(checkpoint: Path) -> None:
    file = checkpoint / "vae" / WEIGHTS["vae"]
    file.unlink()
    file.symlink_to(checkpoint / "blobs" / "gone")

    assert f"{file} is missing" in refusal(checkpoint).message


def locked(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """As for a user who may not enter `place`; root, who runs tests too, may enter everything."""
    for name in ("is_file", "is_dir"):
        real = getattr(Path, name)

        def look(path: Path, real: Callable[[Path], bool] = real) -> bool:
            if place in path.parents:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(Path, name, look)


@pytest.mark.parametrize("part", ["", "tokenizer", "unet"])
def test_what_may_not_be_read_is_missing_and_said(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A cache that root filled: the PC's whole inventory failed with a PermissionError, and it never came to the farm."""
    locked(monkeypatch, checkpoint / part)
    error = refusal(checkpoint)
    assert str(checkpoint / part) in error.message
    assert "cannot be read (Permission denied)" in error.message
    assert "the right to read it" in error.remedy


def test_a_cache_or_a_shelf_that_may_not_be_read_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "models--ali-vilab--i2vgen-xl" / "snapshots" / "main")
    shelf = Shelf(tmp_path / "shelf")
    shelf.half("i2vgen-xl").mkdir(parents=True)
    shelf.put(Manifest("i2vgen-xl", "head", ()))
    locked(monkeypatch, tmp_path)
    with pytest.raises(MissingWeightsError, match="Permission denied"):
        find_weights(REPOSITORY, tmp_path)
    assert has_weights(row(REPOSITORY), tmp_path) is False
    assert shelf.directory("i2vgen-xl") is None


@pytest.mark.parametrize("part", sorted(WEIGHTS))
def test_a_directory_with_only_pickle_weights_is_refused(checkpoint: Path, part: str) -> None:
    file = checkpoint / part / WEIGHTS[part]
    file.rename(file.with_name("pytorch_model.bin"))

    error = refusal(checkpoint)

    assert "only pickle files (pytorch_model.bin)" in error.message
    assert "safetensors" in error.remedy


def test_safetensors_without_the_variant_are_taken_too(checkpoint: Path) -> None:
    for part, name in WEIGHTS.items():
        file = checkpoint / part / name
        file.rename(file.with_name(name.replace(".fp16", "")))

    check_weights(checkpoint, row(str(checkpoint)))


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for part, names in SMALL_FILES.items() for name in names]
)
def test_each_small_file_is_needed(checkpoint: Path, part: str, name: str) -> None:
    (checkpoint / part / name).unlink()

    assert f"{checkpoint / part / name} is missing" in refusal(checkpoint).message


def test_one_tokenizer_file_stands_for_the_vocabulary_and_the_merges(checkpoint: Path) -> None:
    (checkpoint / "tokenizer" / "vocab.json").unlink()
    (checkpoint / "tokenizer" / "merges.txt").unlink()
    (checkpoint / "tokenizer" / "tokenizer.json").write_text("{}")

    check_weights(checkpoint, row(str(checkpoint)))


def test_a_checkpoint_of_another_model_is_refused(checkpoint: Path) -> None:
    index = {**MODEL_INDEX, "_class_name": "StableVideoDiffusionPipeline"}
    (checkpoint / "model_index.json").write_text(json.dumps(index))

    error = refusal(checkpoint)

    assert "model_index.json is of another model" in error.message
    assert "StableVideoDiffusionPipeline, not I2VGenXLPipeline" in error.message


def test_a_row_that_speaks_of_a_part_that_there_is_not_is_to_blame_itself(checkpoint: Path) -> None:
    """A misspelt part was told as weights that are missing, to be copied again."""
    misspelt = replace(row(str(checkpoint)), checkpoint={"unett": {"num_frames": 14}})
    with pytest.raises(MissingWeightsError) as caught:
        check_weights(checkpoint, misspelt)
    assert "[i2vgen-xl.checkpoint] speaks of unett" in caught.value.message
    assert "unet, vae" in caught.value.remedy


def test_an_index_that_leaves_out_a_part_is_refused(checkpoint: Path) -> None:
    index = {**MODEL_INDEX, "image_encoder": [None, None]}
    (checkpoint / "model_index.json").write_text(json.dumps(index))

    assert "does not name image_encoder" in refusal(checkpoint).message


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_damaged_index_or_configuration_is_named(checkpoint: Path, text: str) -> None:
    (checkpoint / "unet" / "config.json").write_text(text)
    assert str(checkpoint / "unet" / "config.json") in refusal(checkpoint).message

    (checkpoint / "model_index.json").write_text(text)
    assert str(checkpoint / "model_index.json") in refusal(checkpoint).message


def _head(text: bytes) -> bytes:
    """A file with this head."""
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda whole: whole[:-1], "it should have"),
        (lambda whole: whole + b"x", "it should have"),
        (lambda whole: whole[:40], "within its head"),
        (lambda whole: whole[:5], "no safetensors file"),
        (lambda whole: b"", "no safetensors file"),
        (lambda whole: b"PK\x03\x04" + b"\0" * 200, "within its head"),
        (lambda whole: b"\xff" * 200, "no safetensors file"),
        (lambda whole: whole[:8] + b"\0" * 20 + whole[28:], "head is damaged"),
        (lambda whole: whole.replace(b'"data_offsets"', b'"data_offzets"'), "head is damaged"),
        (lambda whole: whole.replace(b"[0, 8]", b"[4, 8]"), "head is damaged"),
        # A number or a nesting that Python's own limits stop broke the whole PC's inventory.
        (
            lambda _whole: _head(b'{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,1e999]}}'),
            "head is damaged",
        ),
        (lambda _whole: _head(b"[" * 200_000), "head is damaged"),
        (
            lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
            "no safetensors",
        ),
    ],
)
def test_a_damaged_weight_file_is_refused_by_name(checkpoint: Path, damage, words: str) -> None:
    file = checkpoint / "unet" / WEIGHTS["unet"]
    file.write_bytes(damage(file.read_bytes()))

    error = refusal(checkpoint)

    assert str(file) in error.message
    assert words in error.message


@pytest.mark.parametrize("style", ["new", "old", "plain"])
def test_shards_are_found_by_their_index_and_taken_along(checkpoint: Path, style: str) -> None:
    """Only single files were known: no part of more than a few GB could be found, checked or passed on."""
    unet = shard_unet(checkpoint)
    index = UNET_INDEX if style != "plain" else UNET_INDEX.replace(".fp16", "")
    shards = [
        {
            "new": name,
            "old": name.replace(".fp16", "").replace(".safe", ".fp16.safe"),
            "plain": name.replace(".fp16", ""),
        }[style]
        for name in UNET_SHARDS
    ]
    for name, renamed in zip(UNET_SHARDS, shards, strict=True):
        (unet / name).rename(unet / renamed)
    (unet / UNET_INDEX).rename(unet / index)
    (unet / index).write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}))
    (unet / "pytorch_model.bin.index.json").write_text("{}")
    check_weights(checkpoint, row(str(checkpoint)))
    names = {str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file()}
    other = "unet/diffusion_pytorch_model.non_ema-00001-of-00002.safetensors"
    wanted = wanted_files(MODEL_INDEX, names | {other}, "here")
    assert set(wanted) == names - {"unet/pytorch_model.bin.index.json"}


def test_one_file_of_the_variant_goes_before_full_precision_in_shards(checkpoint: Path) -> None:
    unet = checkpoint / "unet"
    for name in (UNET_INDEX, *UNET_SHARDS):
        (unet / name.replace(".fp16", "")).write_text("full precision")
    check_weights(checkpoint, row(str(checkpoint)))
    names = {str(file.relative_to(checkpoint)) for file in unet.iterdir()}
    taken = {path for path in wanted_files({"unet": MODEL_INDEX["unet"]}, names, "here") if "unet" in path}
    assert taken == {"unet/config.json", f"unet/{WEIGHTS['unet']}"}


def test_a_missing_shard_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    snapshot = write_checkpoint(tmp_path / "models--ali-vilab--i2vgen-xl" / "snapshots" / "aaa")
    unet = shard_unet(snapshot)
    (unet / UNET_SHARDS[1]).unlink()
    error = refusal(snapshot)
    assert f"{unet / UNET_SHARDS[1]} is missing, one of 2 files that {UNET_INDEX} names" in error.message
    assert '--include "unet/diffusion_pytorch_model.fp16-*-of-00002.safetensors"' in error.remedy
    with pytest.raises(MissingWeightsError, match=f"has {UNET_INDEX} and none of the files that it names"):
        wanted_files({"unet": MODEL_INDEX["unet"]}, {f"unet/{UNET_INDEX}"}, "here")


def test_a_shard_that_is_cut_short_is_named(checkpoint: Path) -> None:
    file = shard_unet(checkpoint) / UNET_SHARDS[1]
    file.write_bytes(file.read_bytes()[:-1])
    assert f"{file} is not usable: it should have" in refusal(checkpoint).message


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"c": b"1234"}, f"it lacks 1 of the 1 tensors that {UNET_INDEX} places in it, the first of them b"),
        ({"a": b"1", "b": b"1234"}, f"its tensor a lies in {UNET_SHARDS[0]} too"),
    ],
    ids=["lacks", "twice"],
)
def test_a_shard_of_another_model_is_named(checkpoint: Path, tensors: dict[str, bytes], words: str) -> None:
    file = shard_unet(checkpoint) / UNET_SHARDS[1]
    file.write_bytes(safetensors_bytes(tensors))
    assert f"{file} is not usable: {words}" in refusal(checkpoint).message


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ("{", "it cannot be read"),
        ("{}", "it places no tensors"),
        ('{"weight_map": []}', "it places no tensors"),
        (
            '{"weight_map": {"a": "../vae/diffusion_pytorch_model.fp16.safetensors"}}',
            "no safetensors file beside it",
        ),
        ('{"weight_map": {"a": "/etc/passwd"}}', "it names '/etc/passwd'"),
        ('{"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}', "no safetensors file beside it"),
        ('{"weight_map": {"a": 7}}', "it names '7'"),
    ],
)
def test_an_index_that_is_damaged_or_leads_elsewhere_is_refused(
    checkpoint: Path, index: str, words: str
) -> None:
    """An index is data from elsewhere: it must not choose files outside its directory, nor pickles."""
    file = shard_unet(checkpoint) / UNET_INDEX
    file.write_text(index)
    message = refusal(checkpoint).message
    assert str(file) in message
    assert words in message


@given(st.data())
def test_a_weight_file_cut_anywhere_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    tensors = data.draw(
        st.dictionaries(st.text(min_size=1, max_size=8), st.binary(min_size=1, max_size=30), min_size=1)
    )
    whole = safetensors_bytes(tensors)
    file = tmp_path_factory.mktemp("cut") / "model.safetensors"
    file.write_bytes(whole)
    assert set(read_header(file)) == set(tensors)

    file.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(MissingWeightsError, match="is not usable"):
        read_header(file)


def test_the_default_cache_is_that_of_hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = write_checkpoint(tmp_path / "models--ali-vilab--i2vgen-xl" / "snapshots" / "aaa")

    assert find_weights(REPOSITORY) == snapshot


def test_a_node_without_torch_and_hugging_face_can_ask(checkpoint: Path) -> None:
    """`has_weights` and the listing of the model must import nothing of the gpu extra."""
    program = f"""
import sys
for name in ("torch", "diffusers", "transformers", "safetensors", "huggingface_hub"):
    sys.modules[name] = None
from farm.catalogue.models import ModelRow
from farm.errors import ConfigurationError
from node_agent.pipelines import i2vgen_xl, svd
from node_agent.pipelines.weights import has_weights
print(has_weights(ModelRow("m", "M", "i2vgen_xl", source={str(checkpoint)!r})))
print(has_weights(ModelRow("m", "M", "i2vgen_xl", source="nobody/has-this-one")))
for module in (i2vgen_xl, svd):
    try:
        module.open_model(ModelRow("m", "My model", "any"), "cpu")
    except ConfigurationError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    true, false, *refused = done.stdout.splitlines()
    assert (true, false) == ("True", "False")
    assert len(refused) == 2
    for words in refused:
        assert words.startswith("My model cannot run on this PC:")
        assert "pip install" in words


def test_what_the_farm_brought_comes_before_the_pc_s_own(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only once it is whole there."""
    monkeypatch.setenv("FARM_NODE_HOME", str(tmp_path / "node"))
    shelf = Shelf(tmp_path / "node" / "models")
    write_checkpoint(shelf.half("i2vgen-xl"))
    assert weights_of(row(str(checkpoint))) == checkpoint
    shelf.put(Manifest("i2vgen-xl", "head", ()))
    assert weights_of(row(str(checkpoint))) == shelf.root / "i2vgen-xl"
    assert has_weights(row("nobody/has-this-one")) is True
    monkeypatch.setenv("FARM_MODEL_STORE", str(tmp_path / "elsewhere"))
    assert weights_of(row(str(checkpoint))) == checkpoint
