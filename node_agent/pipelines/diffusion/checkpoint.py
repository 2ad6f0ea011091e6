"""Opens a model's checkpoint as its parts, by the stock pipeline, and holds it to what the parts need."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from farm.catalogue.models import ModelRow
from farm.errors import MissingWeightsError
from node_agent.engine.mapped import MappedPart, names_of
from node_agent.pipelines.stored import read_heads, weight_files
from node_agent.pipelines.weights import Layout, check_weights, weights_of

_STORED_AS = {"F16", "BF16", "F32"}
"""The types a weight may be stored in. Others would be cast without a word, and mean something else (fp8 has scales)."""


_PREFIXES = ("", "text_model.")
"""What the published files may write before a tensor's name: transformers 5 left the text model's own prefix out."""


def read_parts(row: ModelRow, layout: Layout) -> tuple[SimpleNamespace, dict[str, MappedPart]]:
    """Opens the checkpoint of `row`: its parts under their names in `model_index.json`, and the weights of those that have some.

    No weight is read: the modules lie on torch's meta device until a `Placement` brings them to the card.

    Raises:
        MissingWeightsError: it is not there, not whole, or not of this model.
    """
    directory = weights_of(row)
    check_weights(directory, row)
    with _quiet():
        stock: Any = getattr(diffusers, layout.pipeline_class)
        mapped = {}
        for name, (library, class_name) in layout.weighted.items():
            build = partial(_fitting, directory / name, library, class_name)
            mapped[name] = MappedPart(build, weight_files(directory / name, library), _PREFIXES)
        try:
            # The stock pipeline reads the rest, and checks that all belongs together.
            pipeline = stock.from_pretrained(
                directory, local_files_only=True, **{name: part.module for name, part in mapped.items()}
            )
        except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
            raise _misfit(f"Cannot load {row.title} from {directory}: {error}") from error
    parts = {name: getattr(pipeline, name) for name in layout.others}
    return SimpleNamespace(**parts, **{name: part.module for name, part in mapped.items()}), mapped


def _fitting(directory: Path, library: str, class_name: str) -> Any:
    """A part's module, to which its weight files are held before they are read.

    The libraries would leave what is missing at random values, cast a wrong type, and say of a wrong shape only that there is one.
    """
    # transformers 5 leaves out the text model's own prefix, which the published files have.
    stored = {name.removeprefix("text_model."): one for name, one in read_heads(directory, library).items()}
    module = _skeleton(directory, library, class_name)
    lacking, found = [], []
    for names, tensor in names_of(module):
        plain = [name.removeprefix("text_model.") for name in names]
        name = next((one for one in plain if one in stored), None)
        if name is None:
            lacking.append(plain[0])
        else:
            found.append((name, tensor))
    if lacking:
        files = weight_files(directory, library)
        where = files[0] if len(files) == 1 else directory
        raise _misfit(
            f"{where} lacks {len(lacking)} of the model's tensors, the first of them {min(lacking)}."
        )
    for name, tensor in sorted(found, key=lambda one: one[0]):
        one = stored[name]
        if one.shape != tuple(tensor.shape):
            raise _misfit(
                f"{one.file} has the tensor {name} in the shape {one.shape}, the model in {tuple(tensor.shape)}."
            )
        if tensor.is_floating_point() and one.kind not in _STORED_AS:
            raise _misfit(
                f"{one.file} has the tensor {name} as {one.kind}; weights are read as {', '.join(sorted(_STORED_AS))}."
            )
    return module


def _skeleton(directory: Path, library: str, class_name: str) -> Any:
    """The part's module as its configuration says, without memory for its weights."""
    kind: Any = getattr(import_module(library), class_name)
    try:
        with torch.device("meta"):
            if library == "diffusers":
                return kind.from_config(kind.load_config(directory, local_files_only=True))
            return kind(kind.config_class.from_pretrained(directory, local_files_only=True))
    except (
        Exception
    ) as error:  # whatever a wrong number leads to; no weights are read here, so memory is not at fault
        said = " ".join(str(error).split())
        raise _misfit(f"{directory / 'config.json'} does not make a {class_name}: {said}.") from error


def _misfit(what: str) -> MissingWeightsError:
    return MissingWeightsError(what, "Fetch the checkpoint again: it is not that of this model.")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and warnings of the libraries in a worker's output: what matters is checked here."""
    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    levels = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity_error()
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, level in zip(libraries, levels, strict=True):
            library.set_verbosity(level)
            library.enable_progress_bar()
