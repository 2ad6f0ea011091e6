"""Finds a model's weights on this PC and checks that they are whole, without torch and without the network.

A checkpoint is a directory in the layout of diffusers: `model_index.json` names the parts, each part has a
directory with its configuration and, where it has weights, safetensors files (see `stored`). Only safetensors are read: a
pickle file can run code.
"""

import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from farm.catalogue.models import ModelRow
from farm.errors import MissingWeightsError
from farm.settings import FarmSettings
from farm.weights import Shelf
from node_agent.pipelines.stored import again, download_hint, read_heads, read_json

_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ANOTHER: Final = "Set the model's `source` to a checkpoint of this model, or bring one in with `farm models pull MODEL --from DIR`."
CONFIGURATIONS: Final = {
    "Scheduler": ("scheduler_config.json",),
    "Tokenizer": ("tokenizer_config.json", "vocab.json", "merges.txt"),
    "ImageProcessor": ("preprocessor_config.json",),
}
"""The files of a part without weights, by the end of its class's name."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What `model_index.json` of a checkpoint must say; each model's file has its own, as `LAYOUT`.

    `pipeline_class` is the stock pipeline's name; `weighted` the parts with weights and the library ("diffusers" or
    "transformers") and class of each; `others` the parts without, of whatever class the checkpoint says. `published`: with what a
    part's class is made for the full-size model, where its defaults are not that; `farm calibrate` measures it so, without a checkpoint.
    """

    pipeline_class: str
    weighted: Mapping[str, tuple[str, str]]
    others: frozenset[str]
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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
    try:
        if snapshot.is_dir():
            return snapshot
    except OSError as error:
        raise _unreadable(error, folder) from error
    raise MissingWeightsError(
        f"The weights of {source} are not on this PC: nothing in {folder}.", download_hint(source)
    )


def check_weights(directory: Path, row: ModelRow) -> None:
    """Checks that `directory` holds a whole checkpoint of the model, each file complete.

    Reads configurations and the heads of the weight files only; a flipped byte within a tensor goes unseen.

    Raises:
        MissingWeightsError: it does not; names the file and what is wrong with it.
    """
    try:
        layout = layout_of(row.pipeline)
        _check(directory, layout)
        for part, said in row.checkpoint.items():
            if part not in layout.weighted:
                raise MissingWeightsError(
                    f"[{row.name}.checkpoint] speaks of {part}, and the model has no such part.",
                    f"Name one of {', '.join(sorted(layout.weighted))} there.",
                )
            _check_said(directory / part / "config.json", said)
    except OSError as error:
        raise _unreadable(error, directory) from error


def _check(directory: Path, layout: Layout) -> None:
    index_file = directory / "model_index.json"
    index = read_json(index_file)
    found = index.get("_class_name")
    if found != layout.pipeline_class:
        raise MissingWeightsError(
            f"{index_file} is of another model: it says {found}, not {layout.pipeline_class}.",
            _ANOTHER,
        )
    absent = sorted(name for name in {*layout.weighted, *layout.others} if not part_named(index, name))
    if absent:
        raise MissingWeightsError(f"{index_file} does not name {', '.join(absent)}.", again(directory))
    for name, wanted in layout.weighted.items():
        if part_named(index, name) != wanted:
            raise MissingWeightsError(
                f"{index_file} names another {name}: {part_named(index, name)}, not {wanted}.",
                _ANOTHER,
            )
    for name in index:
        part = part_named(index, name)
        if part:
            library, class_name = part
            _check_part(directory / name, library, class_name)


def _check_said(file: Path, said: Mapping[str, Any]) -> None:
    """Holds a configuration to what the model's own says; what it leaves out says nothing."""
    found = read_json(file)
    for name, value in said.items():
        if found.get(name, value) != value:
            raise MissingWeightsError(
                f"{file} is of another model: its {name} is {found[name]!r}, not {value!r}.", _ANOTHER
            )


def has_weights(row: ModelRow, cache: Path | None = None) -> bool:
    """Whether this PC has the model's weights; true for a model without any. Takes milliseconds, no network."""
    if not row.source:
        return True
    try:
        check_weights(weights_of(row, cache), row)
    except MissingWeightsError:
        return False
    return True


def why_unusable(row: ModelRow, cache: Path | None = None) -> str | None:
    """What is wrong with the weights that this PC has of a model, and what to do; None where they are whole, or where there are none."""
    if not row.source:
        return None
    try:
        found = weights_of(row, cache)
    except MissingWeightsError:
        return None
    try:
        check_weights(found, row)
    except MissingWeightsError as error:
        return str(error)
    return None


def _unreadable(error: OSError, place: Path) -> MissingWeightsError:
    return MissingWeightsError(
        f"{error.filename or place} cannot be read ({error.strerror or type(error).__name__}).",
        "Look at the disk, and give the user that the farm runs as the right to read it.",
    )


def _check_part(part: Path, library: str, class_name: str) -> None:
    for ending, names in CONFIGURATIONS.items():
        if class_name.removesuffix("Fast").endswith(ending):
            _check_configuration(part, names)
            return
    _check_configuration(part, ("config.json",))
    read_heads(part, library)


def _check_configuration(part: Path, names: tuple[str, ...]) -> None:
    """Checks small files; `tokenizer.json` stands for a tokenizer's vocabulary and merges."""
    whole_tokenizer = (part / "tokenizer.json").is_file()
    for name in names:
        if whole_tokenizer and name in {"vocab.json", "merges.txt"}:
            continue
        file = part / name
        if file.suffix == ".json":
            read_json(file)
        elif not file.is_file():
            raise MissingWeightsError(
                f"{file} is missing: the weights are not all on this PC.", again(part.parent)
            )


def part_named(index: Mapping[str, Any], name: str) -> tuple[str, str] | None:
    """The library and the class of a part, or None where the index names no part of that name."""
    entry = index.get(name)
    if name.startswith("_") or not isinstance(entry, list) or len(entry) != 2 or None in entry:
        return None
    return str(entry[0]), str(entry[1])


def _default_cache() -> Path:
    """Where Hugging Face's library keeps its downloads; it alone reads its variables (HF_HOME and others)."""
    try:
        constants = importlib.import_module("huggingface_hub.constants")
    except ImportError:
        return Path("~/.cache/huggingface/hub").expanduser()
    return Path(os.fspath(constants.HF_HUB_CACHE))
