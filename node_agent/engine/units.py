"""Cuts a network into units: groups of modules whose weights come and go together.

A unit is brought in before its first module runs and may be overwritten when the next unit's first module runs. So the modules of a
unit must run without another unit's in between. Cutting goes down the tree of modules until a part is small enough, and never into one
that runs in pieces: its parts take turns for each piece.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from node_agent.engine.chunking import is_cut, stream_groups

UNIT_BYTES: Final = 32 * 1024**2
"""Modules up to this size are not cut further. Smaller units would need more hooks, larger ones a larger ring."""
SMALL_BYTES: Final = 1024**2
"""What is smaller stays on the card: together a few dozen MiB, not worth a copy each."""
ALIGNMENT: Final = 256
"""Elements, 512 bytes in fp16. What torch's allocator gives too: kernels choose by alignment, and must choose for streamed weights as
for others."""
OWN: Final = "(own)"
"""Ends the name of a unit of tensors that a module holds beside its children: no call of a module of theirs says when they are needed."""


@dataclass(frozen=True, slots=True)
class Held:
    """One tensor of a unit: its full name in the network, the modules that have it with its key in each, its first element in the unit.

    A tied weight has several holders.
    """

    name: str
    holders: tuple[tuple[nn.Module, str], ...]
    shape: torch.Size
    first: int

    @property
    def last(self) -> int:
        """One past its last element in the unit."""
        return self.first + self.shape.numel()


@dataclass(frozen=True, slots=True)
class Unit:
    """Weights that come and go together, packed into `elements` elements of one type, each tensor aligned.

    `tied`: a module outside the unit has one of its tensors too.
    """

    name: str
    modules: tuple[nn.Module, ...]
    tensors: tuple[Held, ...]
    elements: int
    tied: bool = False


def cut(network: nn.Module) -> list[Unit]:
    """The units of a network in the order of its tree, which need not be that of computation. Every tensor is in exactly one unit."""
    names = {id(module): name for name, module in network.named_modules()}
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in network.modules():
        for key, tensor in own_tensors(module):
            holders.setdefault(id(tensor), []).append((module, key))
    taken: set[int] = set()
    sizes: dict[int, int] = {}
    _measure(network, sizes)
    units = [_unit(name, modules, taken, names, holders) for name, modules in _groups("", network, sizes)]
    for name, module in network.named_modules():  # tensors that a module holds beside its children
        if any(id(tensor) not in taken for _, tensor in own_tensors(module)):
            units.append(_unit(f"{name}{OWN}", (module,), taken, names, holders, deep=False))
    return [unit for unit in units if unit.tensors]


def may_stream(unit: Unit) -> bool:
    """Whether a unit is worth a copy in each pass, and the calls of its own modules tell when it is needed."""
    return not unit.name.endswith(OWN) and not unit.tied and unit.elements * 2 > SMALL_BYTES


def own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and floating-point buffers that a module has itself; one that it has under two keys comes twice."""
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    for key, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
        if buffer.is_floating_point():
            yield key, buffer


def _groups(
    name: str, module: nn.Module, sizes: dict[int, int]
) -> Iterator[tuple[str, tuple[nn.Module, ...]]]:
    groups = stream_groups(module)
    size = sizes[id(module)]
    if groups is not None and size > UNIT_BYTES:
        for number, group in enumerate(groups):
            yield f"{name}#{number}", group
        return
    children = list(module.named_children())
    if not children or is_cut(module) or (size <= UNIT_BYTES and not _is_list(module)):
        yield name, (module,)
        return
    for child_name, child in children:
        yield from _groups(f"{name}.{child_name}".lstrip("."), child, sizes)


def _is_list(module: nn.Module) -> bool:
    """Whether the module is a mere list, whose own `forward` is never called."""
    return isinstance(module, nn.ModuleList | nn.ModuleDict)


def _measure(module: nn.Module, sizes: dict[int, int]) -> int:
    """Writes into `sizes` how many bytes the module and all within it hold, each by its `id`, in one walk down the tree."""
    own = sum(tensor.numel() * tensor.element_size() for _, tensor in own_tensors(module))
    sizes[id(module)] = own + sum(_measure(child, sizes) for child in module.children())
    return sizes[id(module)]


def _unit(
    name: str,
    modules: tuple[nn.Module, ...],
    taken: set[int],
    names: dict[int, str],
    holders: dict[int, list[tuple[nn.Module, str]]],
    *,
    deep: bool = True,
) -> Unit:
    held: list[Held] = []
    at = 0
    within = [module for top in modules for module in (top.modules() if deep else (top,))]
    for module in within:
        for key, tensor in own_tensors(module):
            if id(tensor) in taken:  # two names for one tensor
                continue
            taken.add(id(tensor))
            full = f"{names[id(module)]}.{key}".lstrip(".")
            held.append(Held(full, tuple(holders[id(tensor)]), tensor.shape, at))
            at += -(-tensor.numel() // ALIGNMENT) * ALIGNMENT
    inside = set(map(id, within))
    tied = any(id(module) not in inside for one in held for module, _ in one.holders)
    return Unit(name, modules, tuple(held), at, tied)
