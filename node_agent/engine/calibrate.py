"""Measures a network on this card: what each layer takes in pieces and whole, how long each unit computes, how steps scale.

Random weights do: their values change neither memory nor time. What comes out is data for the planner
(`farm.catalogue.networks`), with the card and versions that made it.
"""

import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from farm.catalogue.networks import Cut
from node_agent.engine.chunking import Chunking, first_tensor, pieces_for, rule_of
from node_agent.engine.fit import END, LayerSample
from node_agent.engine.units import Unit

MIB = 1024**2
_cuda: Any = torch.cuda  # half of it has no types
Call = Callable[[nn.Module], Any]
"""Runs one step of the network on inputs that are already on the card."""


def sample_layers(network: nn.Module, chunking: Chunking, call: Call, budget_bytes: int) -> list[LayerSample]:
    """What the allocator handed out around every layer of one pass, in order. The last sample is what came after them all."""
    samples: list[LayerSample] = []
    begun: dict[int, tuple[float, float, float, int, Cut]] = {}

    def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
        x = first_tensor(args, kwargs)
        rule = rule_of(module)
        working = 0 if rule is None else rule.working(module, x) * x.element_size()
        pieces = 1 if rule is None else pieces_for(working, budget_bytes, rule.most(module, x))
        begun[id(module)] = (
            _allocated(),
            _peak(),
            working / MIB,
            pieces,
            "lines" if rule is None else rule.cut,
        )
        torch.cuda.reset_peak_memory_stats()

    def leave(module: nn.Module, name: str) -> None:
        base, before, working, pieces, cut = begun.pop(id(module))
        samples.append(LayerSample(name, base, before, _peak(), working, pieces, cut))
        torch.cuda.reset_peak_memory_stats()

    hooks: list[Any] = []
    for name, module in _layers("", network):
        hooks.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        hooks.append(module.register_forward_hook(lambda m, _a, _o, name=name: leave(m, name)))
    former, chunking.budget_bytes = chunking.budget_bytes, budget_bytes
    try:
        with torch.inference_mode():
            call(network)  # kernels load and choose their workspaces
            samples.clear()
            torch.cuda.reset_peak_memory_stats()
            call(network)
    finally:
        chunking.budget_bytes = former
        for hook in hooks:
            hook.remove()
    samples.append(LayerSample(END, _allocated(), _peak(), _peak(), 0.0, 1))
    return samples


def sample_units(
    network: nn.Module, units: Sequence[Unit], call: Call, passes: int = 5
) -> list[tuple[str, float]]:
    """Seconds from the begin of each unit to the begin of the next, in the order of computation; the median of `passes`."""
    marks: list[tuple[str, Any]] = []
    hooks = []

    def mark(name: str) -> None:
        if marks and marks[-1][0] == name:
            return
        event = _cuda.Event(enable_timing=True)
        event.record()
        marks.append((name, event))

    for unit in units:
        for module in unit.modules:
            hooks.append(module.register_forward_pre_hook(lambda *_, name=unit.name: mark(name)))
    rows: list[list[float]] = []
    names: list[str] = []
    try:
        with torch.inference_mode():
            for _ in range(passes + 1):
                marks.clear()
                call(network)
                mark(END)
                torch.cuda.synchronize()
                names = [name for name, _ in marks[:-1]]
                rows.append([a[1].elapsed_time(b[1]) / 1000 for a, b in pairwise(marks)])
    finally:
        for hook in hooks:
            hook.remove()
    return [(name, statistics.median(row[index] for row in rows[1:])) for index, name in enumerate(names)]


def seconds_per_step(network: nn.Module, call: Call, passes: int = 5) -> float:
    """Seconds of one pass, the median of `passes` after two more."""
    times = []
    with torch.inference_mode():
        for _ in range(passes + 2):
            begin, end = _cuda.Event(enable_timing=True), _cuda.Event(enable_timing=True)
            begin.record()
            call(network)
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
    return float(statistics.median(times[2:]))


def handed_out_mib(call: Callable[[], Any]) -> float:
    """What the allocator hands out at most during a call, MiB over what was there before. The second call: the first chooses kernels."""
    with torch.inference_mode():
        call()
        torch.cuda.synchronize()
        before = _allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
    return _peak() - before


@contextmanager
def clean_card() -> Iterator[None]:
    """Begins and ends with an empty allocator and fresh statistics."""
    for after in (False, True):
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        if not after:
            yield


def _layers(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Layers that do not lie within each other: those that may run in pieces, and the leaves outside of them."""
    children = list(module.named_children())
    if rule_of(module) is not None or not children:
        yield name, module
        return
    for child_name, child in children:
        yield from _layers(f"{name}.{child_name}".lstrip("."), child)


def _allocated() -> float:
    return float(torch.cuda.memory_allocated()) / MIB


def _peak() -> float:
    return float(torch.cuda.max_memory_allocated()) / MIB
