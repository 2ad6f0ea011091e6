"""Which files of a repository or directory make up a model's checkpoint: what its layout names, and nothing else. Pure."""

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from farm.errors import MissingWeightsError
from node_agent.pipelines.stored import INDEX_MARK, PICKLES, VARIANT, WEIGHT_STEMS, main_file, shards_among
from node_agent.pipelines.weights import CONFIGURATIONS, part_named

INDEX = "model_index.json"
_SMALL = {".json", ".txt"}


def wanted_files(index: Mapping[str, Any], names: Collection[str], where: str) -> tuple[str, ...]:
    """The files of a checkpoint among `names` (paths with `/`): the index, each part's small files, and its weights as safetensors.

    Of the weights the half-precision variant is taken where there is one; shards come with their index. `index` is the content of
    `model_index.json`; `where` names the place in errors. Whether the files are complete is `check_weights`' to say, once they are there.

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
        taken = {name for name in within if PurePosixPath(name).suffix in _SMALL and ".index." not in name}
        if not any(class_name.removesuffix("Fast").endswith(ending) for ending in CONFIGURATIONS):
            taken |= _weights(within, library, f"{where}/{part}")
        chosen |= {f"{part}/{name}" for name in taken}
    return tuple(sorted(chosen))


def _weights(within: Collection[str], library: str, where: str) -> set[str]:
    main = main_file(within, library)
    if main is not None and INDEX_MARK not in main:
        return {main}
    if main is not None:
        shards = shards_among(within, main)
        if not shards:
            raise MissingWeightsError(
                f"{where} has {main} and none of the files that it names.",
                "Name a repository or directory that has the whole model.",
            )
        return {main, *shards}
    stem = WEIGHT_STEMS.get(library, "model")
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
