"""Whatever is wrong with a model's files, loading says which file and what to do, and the next load may succeed."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farm.catalogue.models import ModelRow, builtin_models
from farm.errors import FarmError, MissingWeightsError
from farm.model import MemoryPlan
from node_agent.pipelines import i2vgen_xl, svd
from node_agent.pipelines.stored import weight_files
from node_agent.pipelines.weights import check_weights, has_weights, layout_of
from tests import checkpoints
from tests.renders import SETTINGS, Recorder, clip, edit_tensors

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


pytestmark = pytest.mark.torch

LAYOUTS = {"i2vgen_xl": i2vgen_xl.LAYOUT, "svd": svd.LAYOUT}
PARTS = [(pipeline, part) for pipeline, layout in LAYOUTS.items() for part in layout.weighted]


@pytest.fixture(scope="module")
def whole(checkpoint_cache: Path) -> dict[str, Path]:
    return {
        "i2vgen_xl": checkpoints.small_i2vgen(checkpoint_cache),
        "svd": checkpoints.small_svd(checkpoint_cache),
    }


@dataclass
class Damaged:
    """A copy of a small checkpoint, with the weight file of one part to damage."""

    directory: Path
    pipeline: str
    part: str

    @property
    def file(self) -> Path:
        (file,) = weight_files(self.directory / self.part, LAYOUTS[self.pipeline].weighted[self.part][0])
        return file

    def refused(self) -> MissingWeightsError:
        return refusal(self.directory, self.pipeline)


@pytest.fixture
def damaged(request: pytest.FixtureRequest, whole: dict[str, Path], tmp_path: Path) -> Damaged:
    pipeline, part = request.param
    return Damaged(shutil.copytree(whole[pipeline], tmp_path / "copy"), pipeline, part)


def refusal(directory: Path | str, pipeline: str) -> MissingWeightsError:
    module = {"i2vgen_xl": i2vgen_xl, "svd": svd}[pipeline]
    model = module.open_model(ModelRow("m", "My model", pipeline, str(directory)), "cpu")
    with pytest.raises(MissingWeightsError) as caught:
        model.load(MemoryPlan(), Recorder())
    assert caught.value.remedy
    return caught.value


def rewrite_header(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    head = json.dumps(header).encode()
    file.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + length :])


def rewrite_tensors(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def tensor_names(tensors: dict[str, Any]) -> list[str]:
    return sorted(name for name in tensors if name != "__metadata__")


each_part = pytest.mark.parametrize("damaged", PARTS, indirect=True, ids="-".join)


@pytest.mark.parametrize("pipeline", LAYOUTS)
def test_no_weights_at_all(pipeline: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    error = refusal("nobody/has-this", pipeline)

    assert "The weights of nobody/has-this are not on this PC" in error.message
    assert "hf download nobody/has-this" in error.remedy
    assert "accept the model's licence" in error.remedy


@each_part
def test_a_part_that_is_not_there_yet(damaged: Damaged) -> None:
    file = damaged.file
    file.unlink()

    assert f"{file} is missing" in damaged.refused().message


@each_part
def test_only_pickles(damaged: Damaged) -> None:
    """A pickle can run code: it is not opened, though the libraries could."""
    file = damaged.file
    torch.save({}, file.with_name(file.name.replace(".safetensors", ".bin")))
    file.unlink()

    assert "only pickle files" in damaged.refused().message


@each_part
def test_a_file_that_was_cut_short(damaged: Damaged) -> None:
    data = damaged.file.read_bytes()
    for length in (0, 6, 50, len(data) // 2, len(data) - 1):
        damaged.file.write_bytes(data[:length])
        assert str(damaged.file) in damaged.refused().message


@each_part
def test_tensors_that_overlap(damaged: Damaged) -> None:
    """Two names for the same bytes would load without a word."""

    def overlap(header: dict[str, Any]) -> None:
        spans = sorted((header[name]["data_offsets"], name) for name in tensor_names(header))
        start, end = spans[1][0]
        header[spans[1][1]]["data_offsets"] = [start - 2, end - 2]

    rewrite_header(damaged.file, overlap)
    assert f"{damaged.file} is not usable" in damaged.refused().message


@each_part
@pytest.mark.parametrize(
    "entry", [{"shape": [3, 3]}, {"dtype": "F64"}, {"dtype": "I3"}, {"shape": [-2]}, {"shape": None}], ids=str
)
def test_a_tensor_whose_shape_and_type_do_not_make_its_length(
    damaged: Damaged, entry: dict[str, Any]
) -> None:
    rewrite_header(damaged.file, lambda header: header[tensor_names(header)[0]].update(entry))
    error = damaged.refused()

    assert f"{damaged.file} is not usable" in error.message


@each_part
def test_a_tensor_of_another_shape(damaged: Damaged) -> None:
    changed: list[str] = []

    def widen(tensors: dict[str, Any]) -> None:
        name = tensor_names(tensors)[-1]
        tensors[name] = torch.cat([tensors[name]] * 2)
        changed.append(name.removeprefix("text_model."))

    rewrite_tensors(damaged.file, widen)
    message = damaged.refused().message
    assert f"{damaged.file} has the tensor {changed[0]} in the shape (" in message
    assert "the model in (" in message


@each_part
@pytest.mark.parametrize(("kind", "name"), [("int16", "I16"), ("float8_e4m3fn", "F8_E4M3")])
def test_a_tensor_of_another_type(damaged: Damaged, kind: str, name: str) -> None:
    """The libraries cast whole numbers and fp8 without their scales to weights that mean nothing."""

    def recast(tensors: dict[str, Any]) -> None:
        first = tensor_names(tensors)[0]
        tensors[first] = tensors[first].to(getattr(torch, kind))

    rewrite_tensors(damaged.file, recast)
    assert f" as {name}; weights are read as BF16, F16, F32" in damaged.refused().message


@each_part
def test_a_tensor_that_is_lacking(damaged: Damaged) -> None:
    rewrite_tensors(damaged.file, lambda tensors: tensors.pop(tensor_names(tensors)[0]))

    assert f"{damaged.file} lacks 1 of the model's tensors" in damaged.refused().message


@each_part
@pytest.mark.parametrize("text", ["", "[]", "{", '{"block_out_channels": 7, "hidden_size": "x"}'])
def test_a_damaged_configuration(damaged: Damaged, text: str) -> None:
    file = damaged.directory / damaged.part / "config.json"
    file.write_text(text)

    assert str(file) in damaged.refused().message


@pytest.mark.parametrize(("pipeline", "other"), [("svd", "i2vgen_xl"), ("i2vgen_xl", "svd")])
def test_the_checkpoint_of_another_model(whole: dict[str, Path], pipeline: str, other: str) -> None:
    message = refusal(whole[other], pipeline).message

    assert "is of another model" in message
    assert f"{LAYOUTS[other].pipeline_class}, not {LAYOUTS[pipeline].pipeline_class}" in message
    assert has_weights(ModelRow("m", "M", pipeline, str(whole[other]))) is False


def test_the_checkpoint_of_a_model_with_the_same_shapes(whole: dict[str, Path], tmp_path: Path) -> None:
    """SVD's weights under SVD-XT's row, which has the same network, made clips of 25 frames that nobody had trained it for."""
    rows = {
        name: replace(row, source=str(whole["svd"]))
        for name, row in builtin_models().items()
        if row.checkpoint
    }
    check_weights(whole["svd"], rows["svd"])
    with pytest.raises(MissingWeightsError) as caught:
        check_weights(whole["svd"], rows["svd-xt"])
    assert caught.value.message == (
        f"{whole['svd'] / 'unet' / 'config.json'} is of another model: its num_frames is 14, not 25."
    )
    assert (has_weights(rows["svd"]), has_weights(rows["svd-xt"])) == (True, False)
    directory = shutil.copytree(whole["svd"], tmp_path / "copy")
    file = directory / "unet" / "config.json"
    file.write_text(
        json.dumps({name: one for name, one in json.loads(file.read_text()).items() if name != "num_frames"})
    )
    check_weights(directory, rows["svd-xt"])


@each_part
def test_a_part_of_another_class(damaged: Damaged) -> None:
    """The stock pipelines only warn, and stumble once they render."""
    file = damaged.directory / "model_index.json"
    index = json.loads(file.read_text())
    index[damaged.part] = ["diffusers", "UNet2DConditionModel"]
    file.write_text(json.dumps(index))

    assert f"names another {damaged.part}" in damaged.refused().message


@pytest.mark.parametrize("pipeline", ["nothing_such", "base", "animatic", "../svd", ""])
def test_a_row_whose_model_this_pc_does_not_know(whole: dict[str, Path], pipeline: str) -> None:
    with pytest.raises(MissingWeightsError, match="has no model"):
        layout_of(pipeline)
    with pytest.raises(MissingWeightsError, match="update the farm"):
        check_weights(whole["svd"], ModelRow("m", "M", pipeline))
    assert has_weights(ModelRow("m", "M", pipeline, str(whole["svd"]))) is False


def test_a_model_that_could_not_be_loaded_loads_once_its_files_are_there(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    directory = shutil.copytree(whole["svd"], tmp_path / "copy")
    (file,) = weight_files(directory / "unet", "diffusers")
    away = file.rename(tmp_path / "away")
    model = svd.open_model(ModelRow("m", "M", "svd", str(directory)), "cpu")
    with pytest.raises(MissingWeightsError):
        model.load(MemoryPlan(), Recorder())
    away.rename(file)

    model.load(MemoryPlan(), Recorder())


BY_STAGE = MemoryPlan("by_stage")


class Meddling(Recorder):
    """Somebody does something to the model's files once the picture is encoded."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        super().__init__()
        self.meddle = meddle

    def step(self, done: int, total: int) -> None:
        super().step(done, total)
        if done == 1:
            self.meddle()


def newer(directory: Path) -> None:
    """Another version takes a checkpoint's place, as a shelf puts it there: every file has come later."""
    beside = shutil.copytree(directory, directory.with_name("newer"))
    edit_tensors(
        beside,
        "text_encoder",
        lambda tensors: tensors.update({name: one * 1.5 for name, one in tensors.items()}),
    )
    for file in beside.rglob("*"):
        file.touch()
    directory.rename(directory.with_name("older"))
    beside.rename(directory)


def test_a_warm_model_whose_files_were_replaced_is_opened_anew(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    """It went on with what it held of the older version, and read the rest out of the newer one."""
    directory = shutil.copytree(whole["i2vgen_xl"], tmp_path / "copy")
    row = ModelRow("m", "M", "i2vgen_xl", str(directory))
    warm = i2vgen_xl.open_model(row, "cpu")
    before = clip(warm)
    newer(directory)
    after = clip(warm)
    assert np.array_equal(after, clip(i2vgen_xl.open_model(row, "cpu")))
    assert not np.array_equal(after, before)


def test_a_render_whose_model_is_replaced_under_way_says_so_and_the_next_takes_the_new_one(
    whole: dict[str, Path], tmp_path: Path
) -> None:
    """The picture was encoded by one version and decoded by the other."""
    directory = shutil.copytree(whole["i2vgen_xl"], tmp_path / "copy")
    model = i2vgen_xl.open_model(ModelRow("m", "M", "i2vgen_xl", str(directory)), "cpu")
    with pytest.raises(FarmError, match=r"Another version of .* came while it was in use") as caught:
        clip(model, plan=BY_STAGE, report=Meddling(lambda: newer(directory)))
    assert not isinstance(caught.value, MissingWeightsError), "it is there, and the card may try again"
    assert len(clip(model, plan=BY_STAGE)) == SETTINGS.frames


def test_a_model_that_is_removed_under_way_is_missing(whole: dict[str, Path], tmp_path: Path) -> None:
    """`farm models rm` while a clip was made: the job ended with "an error of the program: FileNotFoundError"."""
    directory = shutil.copytree(whole["i2vgen_xl"], tmp_path / "copy")
    model = i2vgen_xl.open_model(ModelRow("m", "M", "i2vgen_xl", str(directory)), "cpu")
    with pytest.raises(MissingWeightsError, match=r"vae.* cannot be read any more"):
        clip(model, plan=BY_STAGE, report=Meddling(lambda: shutil.rmtree(directory)))
    with pytest.raises(MissingWeightsError, match="is not a directory on this PC"):
        clip(model, plan=BY_STAGE)
