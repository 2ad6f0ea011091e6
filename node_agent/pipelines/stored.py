"""A part's weights on the disk: one safetensors file, or shards with an index that says which tensor lies in which. Without torch."""

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from farm.errors import MissingWeightsError
from farm.weights import MANIFEST

VARIANT: Final = "fp16"
"""The variant of the files that is taken where a part has it: half the size, and what the cards use."""

PICKLES: Final = {".bin", ".ckpt", ".pt", ".pth"}
"""Endings of files that can run code when they are read; the farm neither opens nor passes on any."""

_LARGEST_HEADER: Final = 100_000_000
"""Bytes; the limit of the safetensors format itself."""


PATTERNS: Final = ("*.json", "*.txt", f"*.{VARIANT}.safetensors", f"*.{VARIANT}-*.safetensors")
"""The files of a checkpoint of the variant; the last are shards."""
INDEX_MARK: Final = ".safetensors.index."
"""What the name of an index of shards has in its middle; an ordinary weight file's has not."""
WEIGHT_STEMS: Final = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}


_BYTES_OF: Final = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
"""Bytes of one number, by the name that safetensors has for its type."""
_SHARD: Final = re.compile(r"\w[\w.-]*\.safetensors")
"""The name of a file beside its index; a path would lead out of the part's directory."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as its file's head has it: where it lies, its shape, and the name that safetensors have for its type."""

    file: Path
    shape: tuple[int, ...]
    kind: str


def main_file(names: Collection[str], library: str) -> str | None:
    """Which of a directory's files stands for a part's weights: the only one, or the index of its shards.

    The half-precision variant goes before the other, whichever way it comes. None if there is no safetensors file.
    """
    stem = WEIGHT_STEMS.get(library, "model")
    choice = (
        f"{stem}.{VARIANT}.safetensors",
        f"{stem}{INDEX_MARK}{VARIANT}.json",
        f"{stem}.safetensors",
        f"{stem}{INDEX_MARK}json",
    )
    return next((name for name in choice if name in names), None)


def shards_among(names: Collection[str], index: str) -> list[str]:
    """Those of `names` that are called like the shards of `index`: `model-00001-of-00002.safetensors`, the variant before or after."""
    stem, ending = index.split(INDEX_MARK)
    variant = re.escape("." + ending).removesuffix(re.escape(".json"))
    count = r"-\d+-of-\d+"
    called = re.compile(rf"{re.escape(stem)}({variant}{count}|{count}{variant})\.safetensors")
    return sorted(name for name in names if called.fullmatch(name))


def weight_files(part: Path, library: str) -> tuple[Path, ...]:
    """The safetensors files of the part in the directory `part`: the only one, or its shards, all there.

    `library` is "diffusers" or "transformers".

    Raises:
        MissingWeightsError: there is none, a shard is missing, or the index is damaged or names a file elsewhere.
    """
    return _files(*_main(part, library))


def read_heads(part: Path, library: str) -> dict[str, Stored]:
    """All tensors of a part's files by their names, read from the files' heads.

    Raises:
        MissingWeightsError: as `weight_files` and `read_header`, or a shard is not the one that the index means.
    """
    main, placed = _main(part, library)
    found: dict[str, Stored] = {}
    for file in _files(main, placed):
        for name, entry in read_header(file).items():
            if name in found:
                raise broken(file, f"its tensor {name} lies in {found[name].file.name} too")
            found[name] = Stored(file, tuple(int(side) for side in entry["shape"]), str(entry["dtype"]))
    for shard in sorted(set(placed.values())):
        names = sorted(name for name, where in placed.items() if where == shard)
        lacking = [name for name in names if name not in found or found[name].file.name != shard]
        if lacking:
            raise broken(
                part / shard,
                f"it lacks {len(lacking)} of the {len(names)} tensors that {main.name} places in it, the first of them {lacking[0]}",
            )
    return found


def _main(part: Path, library: str) -> tuple[Path, dict[str, str]]:
    """The only weight file, or the index of the shards with what it places in which; see `main_file`."""
    files = {file.name for file in part.glob("*") if file.is_file()}
    main = main_file(files, library)
    if main is None:
        raise _none(part, library, files)
    return part / main, _placed(part / main) if INDEX_MARK in main else {}


def _files(main: Path, placed: Mapping[str, str]) -> tuple[Path, ...]:
    files = tuple(main.with_name(name) for name in sorted(set(placed.values()))) or (main,)
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise MissingWeightsError(
            f"{missing} is missing, one of {len(files)} files that {main.name} names: the weights are not all on this PC.",
            again(
                main.parent.parent, (f"{main.parent.name}/{re.sub('-[0-9]+-of-', '-*-of-', missing.name)}",)
            ),
        )
    return files


def _placed(index: Path) -> dict[str, str]:
    """Which tensor lies in which file, as an index says; no name in it leads out of its directory."""
    placed = read_json(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise broken(index, "it places no tensors")
    for name in placed.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise broken(index, f"it names {str(name)[:80]!r}, which is no safetensors file beside it")
    return placed


def _none(part: Path, library: str, files: Collection[str]) -> MissingWeightsError:
    missing = part / f"{WEIGHT_STEMS.get(library, 'model')}.{VARIANT}.safetensors"
    pickles = sorted(name for name in files if Path(name).suffix in PICKLES)
    if pickles:
        return MissingWeightsError(
            f"{missing} is missing; {part} has only pickle files ({', '.join(pickles)}), "
            "which are not opened because they can run code.",
            "Get the model's safetensors files, or convert these on a PC that you can afford to lose.",
        )
    return MissingWeightsError(
        f"{missing} is missing: the weights are not all on this PC.", again(part.parent)
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
                raise broken(file, "it is no safetensors file")
            if size < 8 + length:
                raise broken(file, f"it ends after {size:,} bytes, within its head")
            header = json.loads(stream.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        spans = sorted(
            (int(start), int(end)) for start, end in (entry["data_offsets"] for entry in tensors.values())
        )
        wrong = [name for name, entry in tensors.items() if _size_of(entry) != _length_of(entry)]
    except OSError as error:
        raise broken(file, f"it cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise broken(file, "its head is damaged") from error
    reached = 0
    for start, end in spans:
        if start != reached or end < start:
            raise broken(file, "its head is damaged")
        reached = end
    if wrong:
        raise broken(file, f"the tensor {wrong[0]} is not as long as its shape and type say")
    if size != 8 + length + reached:
        raise broken(file, f"it should have {8 + length + reached:,} bytes and has {size:,}")
    return tensors


def download_hint(source: str, patterns: tuple[str, ...] = PATTERNS) -> str:
    """The sentence that says how to fetch the repository `source`, or the files of these `patterns`, by hand."""
    wanted = " ".join(f'--include "{pattern}"' for pattern in patterns)
    return (
        f"Download it on this PC with: hf download {source} {wanted}. If that is refused, accept the model's licence on "
        f"https://huggingface.co/{source} first, then run: hf auth login"
    )


def _size_of(entry: dict[str, Any]) -> int:
    return _BYTES_OF[entry["dtype"]] * math.prod(int(side) for side in entry["shape"])


def _length_of(entry: dict[str, Any]) -> int:
    start, end = entry["data_offsets"]
    return int(end) - int(start)


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a small file of a checkpoint.

    Raises:
        MissingWeightsError: it is missing or damaged.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingWeightsError(
            f"{file} is missing: the weights are not all on this PC.",
            again(file.parent if file.name == "model_index.json" else file.parent.parent),
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise broken(file, f"it cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise broken(file, "it is no JSON object")
    return value


def broken(file: Path, what: str) -> MissingWeightsError:
    """The error that says what is wrong with a file of a checkpoint."""
    whole = file.parent if file.name == "model_index.json" else file.parent.parent
    remedy = _from_the_head(whole) or "Delete that file and download it again."
    return MissingWeightsError(f"{file} is not usable: {what}.", remedy)


def again(directory: Path, patterns: tuple[str, ...] = PATTERNS) -> str:
    """How to complete a checkpoint: by the farm where it brought it, a download where it lies in the cache, else a copy."""
    by_farm = _from_the_head(directory)
    if by_farm:
        return by_farm
    for parent in (directory, *directory.parents):
        if parent.name.startswith("models--"):
            return download_hint("/".join(parent.name.split("--")[1:]), patterns)
    return f"Copy the whole checkpoint to {directory} again."


def _from_the_head(directory: Path) -> str:
    """How to mend a checkpoint that the farm keeps itself; empty for another."""
    if not (directory / MANIFEST).is_file():
        return ""
    return (
        f"A PC of the farm fetches it again by itself; on the head run `farm models pull {directory.name}`."
    )
