"""Finds a model's weights on this PC and checks that they are whole, without torch and without the network.

A checkpoint is a directory in the layout of diffusers: `model_index.json` names the parts, each part has a
directory with its configuration and, where it has weights, a safetensors file. Only safetensors are read: a
pickle file can run code.
"""

import importlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from farm.catalogue.models import ModelRow
from farm.errors import MissingWeightsError
from farm.settings import FarmSettings
from farm.weights import Shelf

VARIANT: Final = "fp16"
"""The variant of the files that is taken where a part has it: half the size, and what the cards use."""

PICKLES: Final = {".bin", ".ckpt", ".pt", ".pth"}
"""Endings of files that can run code when they are read; the farm neither opens nor passes on any."""
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LARGEST_HEADER: Final = 100_000_000
"""Bytes; the limit of the safetensors format itself."""

CONFIGURATIONS: Final = {
    "Scheduler": ("scheduler_config.json",),
    "Tokenizer": ("tokenizer_config.json", "vocab.json", "merges.txt"),
    "ImageProcessor": ("preprocessor_config.json",),
}
"""The files of a part without weights, by the end of its class's name."""

WEIGHT_STEMS: Final = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}


_BYTES_OF: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes of one number, by the name that safetensors has for its type."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What `model_index.json` of a checkpoint must say; each model's file has its own, as `LAYOUT`.

    `pipeline_class` is the stock pipeline's name; `weighted` the parts with weights and the library ("diffusers" or
    "transformers") and class of each; `others` the parts without, of whatever class the checkpoint says.
    """

    pipeline_class: str
    weighted: Mapping[str, tuple[str, str]]
    others: frozenset[str]


def layout_of(pipeline: str) -> Layout:
    """The layout of a model's checkpoints; `pipeline` names the module beside this one ("i2vgen_xl").

    Raises:
        MissingWeightsError: there is no such model here, or none that has weights.
    """
    try:
        layout: Layout = importlib.import_module(f"{__package__}.{pipeline}").LAYOUT
    except (ImportError, AttributeError) as error:
        raise MissingWeightsError(
            f"This PC's farm has no model {pipeline!r} that reads weights.",
            "Correct `pipeline` in the model's row, or update the farm on this PC.",
        ) from error
    return layout


def weights_of(row: ModelRow, cache: Path | None = None) -> Path:
    """The directory of the model's checkpoint: what the farm brought to this PC, else what `find_weights` finds.

    Raises:
        MissingWeightsError: as `find_weights`.
    """
    brought = Shelf(FarmSettings().shelf).directory(row.name)
    return find_weights(row.source, cache) if brought is None else brought


def find_weights(source: str, cache: Path | None = None) -> Path:
    """The directory of a checkpoint: `source` itself, or its snapshot in the Hugging Face cache.

    `cache` is the cache's directory, by default the one that Hugging Face's own library uses. Of several
    snapshots the one that `main` points to is taken, else the newest.

    Raises:
        MissingWeightsError: there is none; says where it looked and how to get it.
    """
    try:
        local = Path(source).expanduser()
        if source and local.is_dir():
            return local
    except (OSError, RuntimeError, ValueError):  # a name too long, no such user's home, a zero byte
        pass
    if not _REPOSITORY.fullmatch(source):
        raise MissingWeightsError(
            f"Cannot find the weights: {source!r} is not a directory on this PC.",
            "Set the model's `source` to a directory or to a Hugging Face repository (owner/name).",
        )
    folder = (cache or _default_cache()) / f"models--{source.replace('/', '--')}"
    snapshots = folder / "snapshots"
    try:
        snapshot = snapshots / (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        try:
            snapshot = max(
                snapshots.iterdir(), key=lambda found: found.stat().st_mtime, default=snapshots / "main"
            )
        except OSError:
            snapshot = snapshots / "main"
    if not snapshot.is_dir():
        raise MissingWeightsError(
            f"The weights of {source} are not on this PC: nothing in {folder}.", download_hint(source)
        )
    return snapshot


def check_weights(directory: Path, pipeline: str) -> None:
    """Checks that `directory` holds a whole checkpoint of `pipeline` ("i2vgen_xl"), each file complete.

    Reads configurations and the heads of the weight files only; a flipped byte within a tensor goes unseen.

    Raises:
        MissingWeightsError: it does not; names the file and what is wrong with it.
    """
    layout = layout_of(pipeline)
    index_file = directory / "model_index.json"
    index = _read_json(index_file)
    found = index.get("_class_name")
    if found != layout.pipeline_class:
        raise MissingWeightsError(
            f"{index_file} is of another model: it says {found}, not {layout.pipeline_class}.",
            "Set the model's `source` to a checkpoint of this model.",
        )
    absent = sorted(name for name in {*layout.weighted, *layout.others} if not part_named(index, name))
    if absent:
        raise MissingWeightsError(f"{index_file} does not name {', '.join(absent)}.", _again(directory))
    for name, wanted in layout.weighted.items():
        if part_named(index, name) != wanted:
            raise MissingWeightsError(
                f"{index_file} names another {name}: {part_named(index, name)}, not {wanted}.",
                "Set the model's `source` to a checkpoint of this model.",
            )
    for name in index:
        part = part_named(index, name)
        if part:
            library, class_name = part
            _check_part(directory / name, library, class_name)


def has_weights(row: ModelRow, cache: Path | None = None) -> bool:
    """Whether this PC has the model's weights; true for a model without any. Takes milliseconds, no network."""
    if not row.source:
        return True
    try:
        check_weights(weights_of(row, cache), row.pipeline)
    except MissingWeightsError:
        return False
    return True


def weight_file(part: Path, library: str) -> Path:
    """The safetensors file of the part in the directory `part`; `library` is "diffusers" or "transformers".

    Raises:
        MissingWeightsError: there is none.
    """
    stem = WEIGHT_STEMS.get(library, "model")
    for name in (f"{stem}.{VARIANT}.safetensors", f"{stem}.safetensors"):
        if (part / name).is_file():
            return part / name
    missing = part / f"{stem}.{VARIANT}.safetensors"
    pickles = sorted(file.name for file in part.glob("*") if file.suffix in PICKLES)
    if pickles:
        raise MissingWeightsError(
            f"{missing} is missing; {part} has only pickle files ({', '.join(pickles)}), "
            "which are not opened because they can run code.",
            "Get the model's safetensors files, or convert these on a PC that you can afford to lose.",
        )
    raise MissingWeightsError(
        f"{missing} is missing: the weights are not all on this PC.", _again(part.parent)
    )


def read_header(file: Path) -> dict[str, Any]:
    """The head of a safetensors file: tensor names to `dtype`, `shape` and `data_offsets`.

    The format: 8 bytes with the head's length n (little-endian), n bytes of JSON, the tensors' bytes
    without gaps.

    Raises:
        MissingWeightsError: the file is cut short, longer than it says, or no safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or not 2 <= length <= _LARGEST_HEADER:
                raise _broken(file, "it is no safetensors file")
            if size < 8 + length:
                raise _broken(file, f"it ends after {size:,} bytes, within its head")
            header = json.loads(stream.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted(
            (int(start), int(end)) for start, end in (entry["data_offsets"] for entry in tensors.values())
        )
        wrong = [name for name, entry in tensors.items() if _size_of(entry) != _length_of(entry)]
    except OSError as error:
        raise _broken(file, f"it cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise _broken(file, "its head is damaged") from error
    reached = 0
    for start, end in spans:
        if start != reached or end < start:
            raise _broken(file, "its head is damaged")
        reached = end
    if wrong:
        raise _broken(file, f"the tensor {wrong[0]} is not as long as its shape and type say")
    if size != 8 + length + reached:
        raise _broken(file, f"it should have {8 + length + reached:,} bytes and has {size:,}")
    return tensors


def download_hint(source: str) -> str:
    """The sentence that says how to fetch the repository `source` by hand."""
    wanted = " ".join(f'--include "{pattern}"' for pattern in ("*.json", "*.txt", f"*.{VARIANT}.safetensors"))
    return (
        f"Download it on this PC with: hf download {source} {wanted}. If that is refused, accept the model's licence on "
        f"https://huggingface.co/{source} first, then run: hf auth login"
    )


def _size_of(entry: dict[str, Any]) -> int:
    return _BYTES_OF[entry["dtype"]] * math.prod(int(side) for side in entry["shape"])


def _length_of(entry: dict[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return int(end) - int(start)


def _check_part(part: Path, library: str, class_name: str) -> None:
    for ending, names in CONFIGURATIONS.items():
        if class_name.removesuffix("Fast").endswith(ending):
            _check_configuration(part, names)
            return
    _check_configuration(part, ("config.json",))
    read_header(weight_file(part, library))


def _check_configuration(part: Path, names: tuple[str, ...]) -> None:
    """Checks small files; `tokenizer.json` stands for a tokenizer's vocabulary and merges."""
    whole_tokenizer = (part / "tokenizer.json").is_file()
    for name in names:
        if whole_tokenizer and name in {"vocab.json", "merges.txt"}:
            continue
        file = part / name
        if file.suffix == ".json":
            _read_json(file)
        elif not file.is_file():
            raise MissingWeightsError(
                f"{file} is missing: the weights are not all on this PC.", _again(part.parent)
            )


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingWeightsError(
            f"{file} is missing: the weights are not all on this PC.",
            _again(file.parent if file.name == "model_index.json" else file.parent.parent),
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise _broken(file, f"it cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise _broken(file, "it is no JSON object")
    return value


def part_named(index: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """The library and the class of a part, or None where the index names no part of that name."""
    entry = index.get(name)
    if name.startswith("_") or not isinstance(entry, list) or len(entry) != 2 or None in entry:
        return None
    return str(entry[0]), str(entry[1])


def _broken(file: Path, what: str) -> MissingWeightsError:
    return MissingWeightsError(f"{file} is not usable: {what}.", "Delete that file and download it again.")


def _again(directory: Path) -> str:
    """How to complete a checkpoint: a download where it lies in the cache, else by copying it once more."""
    for parent in (directory, *directory.parents):
        if parent.name.startswith("models--"):
            return download_hint("/".join(parent.name.split("--")[1:]))
    return f"Copy the whole checkpoint to {directory} again."


def _default_cache() -> Path:
    """Where Hugging Face's library keeps its downloads; it alone reads its variables (HF_HOME and others)."""
    try:
        constants = importlib.import_module("huggingface_hub.constants")
    except ImportError:
        return Path("~/.cache/huggingface/hub").expanduser()
    return Path(os.fspath(constants.HF_HUB_CACHE))
