"""Parts of a checkpoint whose weights stay in their files until they are needed: modules without weights, and readers by memory map.

A module is built on torch's meta device, where tensors have a shape and no memory. Its weights are views of the mapped file: the
kernel reads pages when they are copied and may drop them again, so that no weight lies in the process's own memory unless the
plan wants it there.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from farm.errors import MissingWeightsError
from node_agent.engine.streaming import Read

Build = Callable[[], nn.Module]
"""Makes a module from its configuration."""


class MappedPart:
    """One part of a checkpoint: `module` without weights, and `open` to read them.

    Files name some tensors with a prefix that the module does not have: `prefixes` are tried in turn.
    """

    def __init__(self, build: Build, file: Path, prefixes: tuple[str, ...] = ("",)) -> None:
        """Builds the module and holds its tensors against the file's.

        Raises:
            MissingWeightsError: the file lacks a tensor, or one has another shape or no floating-point type.
        """
        with torch.device("meta"):
            self.module = build().eval().requires_grad_(False)
        self._file = file
        _make_indices(self.module)
        self._names = self._match(prefixes)

    @contextmanager
    def open(self) -> Iterator[Read]:
        """Reads tensors by the module's names, each a view of the file: copy it before the block ends."""
        with safe_open(self._file, framework="pt", device="cpu") as tensors:

            def read(name: str) -> Tensor:
                found: Tensor = tensors.get_tensor(self._names[name])
                return found

            yield read

    @property
    def nbytes(self) -> int:
        """What the weights take in the file's type."""
        return self._file.stat().st_size

    def _match(self, prefixes: tuple[str, ...]) -> dict[str, str]:
        wanted = {name: tensor.shape for name, tensor in self.module.state_dict().items()}
        names: dict[str, str] = {}
        try:
            with safe_open(self._file, framework="pt", device="cpu") as tensors:
                stored = set(tensors.keys())
                for name, shape in wanted.items():
                    key = next((prefix + name for prefix in prefixes if prefix + name in stored), None)
                    if key is None:
                        lacking = sorted(
                            set(wanted) - {n for n in wanted if any(p + n in stored for p in prefixes)}
                        )
                        raise self._other(
                            f"it lacks {len(lacking)} of the model's tensors, the first of them {lacking[0]}"
                        )
                    held = tensors.get_slice(key)
                    if list(shape) != list(held.get_shape()):
                        raise self._other(
                            f"its {key} has the shape {list(held.get_shape())}, the model's has {list(shape)}"
                        )
                    if held.get_dtype() not in ("F16", "F32", "BF16", "F64"):
                        raise self._other(
                            f"its {key} is of type {held.get_dtype()}, not a floating-point one"
                        )
                    names[name] = key
        except (OSError, SafetensorError) as error:
            raise self._other(f"it cannot be read ({error})") from error
        return names

    def _other(self, what: str) -> MissingWeightsError:
        return MissingWeightsError(
            f"{self._file} is not usable: {what}.",
            "Fetch the checkpoint again: it is not that of this model.",
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
