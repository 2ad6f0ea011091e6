"""Parts of a checkpoint whose weights stay in their files until they are needed: modules without weights, and readers by memory map.

A module is built on torch's meta device, where tensors have a shape and no memory. Its weights are views of the mapped file: the
kernel reads pages when they are copied and may drop them again, so that no weight lies in the process's own memory unless the
plan wants it there.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from farm.errors import FarmError, MissingWeightsError
from farm.stamp import stamp_of
from node_agent.engine.streaming import Read

Build = Callable[[], nn.Module]
"""Makes a module from its configuration."""


class MappedPart:
    """One part of a checkpoint: `module` without weights, and `open` to read them.

    Files name some tensors with a prefix that the module does not have: `prefixes` are tried in turn. Of a tensor that the module has
    under several names (see `names_of`) they hold one.
    """

    def __init__(self, build: Build, files: Sequence[Path], prefixes: tuple[str, ...] = ("",)) -> None:
        """Builds the module and holds its tensors against those of the files, one or several shards.

        Raises:
            MissingWeightsError: the files lack a tensor, or one has another shape or no floating-point type.
        """
        with torch.device("meta"):
            self.module = build().eval().requires_grad_(False)
        self._files = tuple(files)
        self._marks = [stamp_of(file) for file in self._files]
        _make_indices(self.module)
        self._places = self._match(prefixes)

    @property
    def replaced(self) -> bool:
        """Whether the files are no longer those that the module was held against."""
        return self._marks != [stamp_of(file) for file in self._files]

    @contextmanager
    def open(self) -> Iterator[Read]:
        """Reads tensors by the module's names, each a view of its file: copy it before the block ends.

        Raises:
            MissingWeightsError: a file is gone, or cannot be read any more.
            FarmError: another version has taken the files' place. What was read before would not belong to it.
        """
        with ExitStack() as all_of_them:
            opened: dict[Path, Any] = {}
            for file in self._files:
                try:
                    opened[file] = all_of_them.enter_context(safe_open(file, framework="pt", device="cpu"))
                except (OSError, SafetensorError) as error:
                    raise MissingWeightsError(
                        f"{file} cannot be read any more ({error}).",
                        "Fetch the model's files on that PC again.",
                    ) from error
            if self.replaced:
                raise FarmError(
                    f"Another version of {self._files[0]} came while it was in use.",
                    "The job will be tried again, with the new one.",
                )

            def read(name: str) -> Tensor:
                file, key = self._places[name]
                found: Tensor = opened[file].get_tensor(key)
                return found

            yield read

    @property
    def nbytes(self) -> int:
        """What the weights take in the files' type."""
        return sum(file.stat().st_size for file in self._files)

    def _match(self, prefixes: tuple[str, ...]) -> dict[str, tuple[Path, str]]:
        """The file of each name of the module's tensors, and the tensor's name in it."""
        stored = self._stored()
        places: dict[str, tuple[Path, str]] = {}
        lacking = []
        for names, tensor in names_of(self.module):
            spelled = (prefix + name for name in names for prefix in prefixes)
            key = next((one for one in spelled if one in stored), None)
            if key is None:
                lacking.append(names[0])
                continue
            file, shape, kind = stored[key]
            if list(tensor.shape) != shape:
                raise _other(file, f"its {key} has the shape {shape}, the model's has {list(tensor.shape)}")
            if kind not in ("F16", "F32", "BF16", "F64"):
                raise _other(file, f"its {key} is of type {kind}, not a floating-point one")
            places.update(dict.fromkeys(names, (file, key)))
        if lacking:
            where = self._files[0] if len(self._files) == 1 else self._files[0].parent
            raise _other(
                where, f"it lacks {len(lacking)} of the model's tensors, the first of them {min(lacking)}"
            )
        return places

    def _stored(self) -> dict[str, tuple[Path, list[int], str]]:
        """The file, the shape and the type of every tensor there is."""
        stored = {}
        for file in self._files:
            try:
                with safe_open(file, framework="pt", device="cpu") as tensors:
                    for key in tensors.keys():  # noqa: SIM118 - it is no mapping
                        held = tensors.get_slice(key)
                        stored[key] = (file, list(held.get_shape()), str(held.get_dtype()))
            except (OSError, SafetensorError) as error:
                raise _other(file, f"it cannot be read ({error})") from error
        return stored


def names_of(module: nn.Module) -> list[tuple[tuple[str, ...], Tensor]]:
    """The tensors of a module's state, each with its names: several where modules share it. A file holds it under one of them."""
    found: dict[int, tuple[list[str], Tensor]] = {}
    for name, tensor in module.state_dict(
        keep_vars=True
    ).items():  # without them each name has a tensor of its own
        found.setdefault(id(tensor), ([], tensor))[0].append(name)
    return [(tuple(names), tensor) for names, tensor in found.values()]


def _other(file: Path, what: str) -> MissingWeightsError:
    return MissingWeightsError(
        f"{file} is not usable: {what}.", "Fetch the checkpoint again: it is not that of this model."
    )


def _make_indices(module: nn.Module) -> None:
    """Counting buffers (positions) are in no file: transformers makes them anew with each module."""
    for part in module.modules():
        for key, buffer in part.named_buffers(recurse=False):
            if buffer.is_meta and not buffer.is_floating_point():
                if not key.endswith("position_ids"):
                    raise MissingWeightsError(
                        f"The model has a buffer {key} that no file holds.",
                        "This version of its library is not supported.",
                    )
                counted: Any = torch.arange(buffer.shape[-1], device="cpu").expand(buffer.shape).clone()
                part.register_buffer(key, counted, persistent=False)
