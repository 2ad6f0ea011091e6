"""Which files of a repository or directory make up a model's checkpoint: what its layout names, and nothing else. Pure."""

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from farm.errors import MissingWeightsError
from node_agent.pipelines.weights import CONFIGURATIONS, PICKLES, VARIANT, WEIGHT_STEMS, part_named

INDEX = "model_index.json"
_SMALL = {".json", ".txt"}


def wanted_files(index: Mapping[str, Any], names: Collection[str], where: str) -> tuple[str, ...]:
    """The files of a checkpoint among `names` (paths with `/`): the index, each part's small files, and its weights as safetensors.

    Of the weights the half-precision variant is taken where there is one. `index` is the content of `model_index.json`; `where`
    names the place in errors. Whether the files are complete is `check_weights`' to say, once they are there.

    Raises:
        MissingWeightsError: a part has no safetensors file; says so if it has pickles only.
    """
    chosen = {INDEX}
    for part in index:
        named = part_named(index, part)
        if named is None:
            continue
        library, class_name = named
        within = {PurePosixPath(name).name for name in names if str(PurePosixPath(name).parent) == part}
        chosen |= {f"{part}/{name}" for name in within if PurePosixPath(name).suffix in _SMALL}
        if not any(class_name.removesuffix("Fast").endswith(ending) for ending in CONFIGURATIONS):
            chosen.add(f"{part}/{_weights(within, library, f'{where}/{part}')}")
    return tuple(sorted(chosen))


def _weights(within: Collection[str], library: str, where: str) -> str:
    stem = WEIGHT_STEMS.get(library, "model")
    for name in (f"{stem}.{VARIANT}.safetensors", f"{stem}.safetensors"):
        if name in within:
            return name
    pickles = sorted(name for name in within if PurePosixPath(name).suffix in PICKLES)
    if pickles:
        raise MissingWeightsError(
            f"{where} has only pickle files ({', '.join(pickles)}), which the farm does not take: they can run code.",
            "Name a repository or directory that has the model as safetensors.",
        )
    raise MissingWeightsError(
        f"{where} has no {stem}.{VARIANT}.safetensors and no {stem}.safetensors.",
        "Name a repository or directory that has the whole model.",
    )
