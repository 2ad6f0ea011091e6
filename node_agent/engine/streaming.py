"""Weights that pass through a ring on the card while the network computes, bit for bit what the resident network computes.

`StreamedNetwork` takes a network without weights (its parameters may lie on torch's meta device), a source that has them, and the share
that stays on the card. It binds parameters to slices of device memory: of one block for what stays, of the ring for what
streams. Hooks before each unit wait for its bytes and let the next ones come. The first pass learns the order in which the units
compute; from the second on every copy runs beside the computation.
"""

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from farm.planning.ring import Slot, lay_out, smallest_ring
from node_agent.engine.hostmem import HostMemory
from node_agent.engine.lanes import Lane, copy_flat, lane_for
from node_agent.engine.units import Unit, cut, may_stream

log = logging.getLogger(__name__)

Read = Callable[[str], Tensor]
"""Gives a tensor by its full name, on the host, in any floating-point type."""


class HostCopy:
    """The streamed units' weights in host memory, each packed; made once and used again when the network returns to the card."""

    def __init__(self, units: Sequence[Unit], read: Read, stored: torch.dtype, device: torch.device) -> None:
        """Packs `units` into one block, for copies to `device`."""
        self.memory = HostMemory(sum(unit.elements for unit in units) * stored.itemsize, device)
        everything = self.memory.bytes.view(stored)
        self.parts: dict[str, Tensor] = {}
        at = 0
        for unit in units:
            flat = everything[at : at + unit.elements]
            for held in unit.tensors:
                flat[held.first : held.last].copy_(read(held.name).reshape(-1))
            self.parts[unit.name] = flat
            at += unit.elements

    def close(self) -> None:
        """Gives the memory back; no copy may be under way."""
        self.parts.clear()
        self.memory.close()


class StreamedNetwork:
    """A network whose weights live on the card in part. Use within one thread; `close` gives everything back."""

    def __init__(
        self,
        network: nn.Module,
        read: Read,
        device: torch.device,
        *,
        stored: torch.dtype,
        compute: torch.dtype,
        stay: Collection[str] | None,
        ring_bytes: int = 0,
        host: HostCopy | None = None,
        copies: int = 1,
    ) -> None:
        """Brings the weights in.

        `stay` names the units (see `units.cut`) that stay on the card, None all of them; the small ones stay in any case. `ring_bytes`
        is what the others pass through, counted in the type they are stored in; it is raised to the smallest that works. All weights are
        numbers of the type `stored`, in which they are kept on the host and cross the bus; they stay and are computed with in `compute`.
        `host` is the copy that an earlier network of the same units left. `copies`: how often each copy is made, more than once to
        measure what a slower bus would do. Where bringing them in fails, the network is as it was.
        """
        self._network = network
        self._device = device
        self._stored = stored
        self._compute = compute
        self._copies = copies
        self._hooks: list[Any] = []
        units = cut(network)
        self._homes = [
            (module, key, _get(module, key))
            for unit in units
            for held in unit.tensors
            for module, key in held.holders
        ]
        self._streamed = [
            unit for unit in units if stay is not None and may_stream(unit) and unit.name not in stay
        ]
        streamed = set(map(id, self._streamed))
        self._staying = [unit for unit in units if id(unit) not in streamed]
        with ExitStack() as undo:
            undo.callback(self._go_home)
            self._bring_indices()
            everything = sum(unit.elements for unit in self._staying)
            self._block = torch.empty(everything, dtype=compute, device=device)
            self._bring_staying(read)
            self.host = host or HostCopy(self._streamed, read, stored, device)
            self._sources = [self.host.parts[unit.name] for unit in self._streamed]
            sizes = [unit.elements * stored.itemsize for unit in self._streamed]
            self._ring_bytes = min(
                max(ring_bytes, smallest_ring(sizes)), max(sum(sizes), smallest_ring(sizes))
            )
            elements = self._ring_bytes // stored.itemsize
            self._ring = torch.empty(elements, dtype=compute, device=device)
            # Where what is computed with differs from what is stored, bytes arrive here and are widened on the card.
            self._arrivals = (
                self._ring if compute == stored else torch.empty(elements, dtype=stored, device=device)
            )
            undo.pop_all()
        self._lane: Lane = lane_for(device, len(self._streamed))
        self._order: list[int] = []
        self._slots: list[Slot] | None = None
        self._now = self._finished = -1
        self._issued = 0
        self.misses = 0
        for (
            unit
        ) in self._streamed:  # whoever asks a network for its type or device looks at any of its weights
            self._bind(unit, self._ring[: unit.elements])
        if self._streamed:
            self._watch()

    # --- what others may know ---
    @property
    def pinned(self) -> bool:
        """Whether streaming runs beside the computation (also where nothing is streamed)."""
        return self.host.memory.pinned or not self._streamed or self._device.type != "cuda"

    @property
    def why_not_pinned(self) -> str:
        """Why the host's memory could not be pinned; empty if it could."""
        return self.host.memory.why_not

    @property
    def card_bytes(self) -> int:
        """What the weights take on the card, ring included."""
        held = (
            (self._block, self._ring)
            if self._arrivals is self._ring
            else (self._block, self._ring, self._arrivals)
        )
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    @property
    def streamed_bytes(self) -> int:
        """What crosses the bus in each pass."""
        return self._bytes(self._streamed)

    @property
    def order(self) -> Sequence[str]:
        """The names of the streamed units in the order in which they compute; empty before the first pass ended."""
        return [self._streamed[index].name for index in self._order] if self._slots is not None else []

    def close(self) -> None:
        """Takes the weights off the card and the hooks off the network, which has no weights after that. The copy in `host` stays."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._go_home()
        self._sources = []
        empty = torch.empty(0, device=self._device)
        self._block = self._ring = self._arrivals = empty

    # --- bringing in ---
    def _go_home(self) -> None:
        """Gives the network what it had in place of weights."""
        for module, key, former in self._homes:
            _put(module, key, former)
        self._homes.clear()

    def _bytes(self, units: Sequence[Unit]) -> int:
        return sum(unit.elements for unit in units) * self._stored.itemsize

    def _bring_indices(self) -> None:
        """Buffers that count rather than weigh (positions) go to the card as they are."""
        for module in self._network.modules():
            for key, buffer in module.named_buffers(recurse=False):
                if not buffer.is_floating_point():
                    self._homes.append((module, key, buffer))
                    _put(module, key, buffer.to(self._device))

    def _bring_staying(self, read: Read) -> None:
        at = 0
        for unit in self._staying:
            flat = self._block[at : at + unit.elements]
            for held in unit.tensors:
                # By way of the type they are stored in, as those that stream come: or a file in single precision gave another clip
                # under each share.
                flat[held.first : held.last].copy_(read(held.name).reshape(-1).to(self._stored))
            self._bind(unit, flat)
            at += unit.elements

    def _bind(self, unit: Unit, flat: Tensor) -> None:
        for held in unit.tensors:
            (module, key), *others = held.holders
            _put(module, key, flat[held.first : held.last].view(held.shape))
            for other, other_key in others:  # the same object: who is tied is seen by that
                _put(other, other_key, _get(module, key))

    # --- computing ---
    def _watch(self) -> None:
        for index, unit in enumerate(self._streamed):
            for module in unit.modules:
                self._hooks.append(
                    module.register_forward_pre_hook(lambda *_, index=index: self._enter(index))
                )
        self._hooks.append(self._network.register_forward_hook(lambda *_: self._end_of_pass()))

    def _enter(self, index: int) -> None:
        """The unit's first module is about to compute, or another one of it: then nothing is to be done."""
        if self._slots is None:
            self._learn(index)
            return
        now = self._now
        if self._order[now % len(self._order)] == index and now > self._finished:
            return
        self._leave()
        self._now += 1
        if self._order[self._now % len(self._order)] != index:
            self._lose_the_order(index)
            return
        self._issue()
        self._lane.wait(self._order[self._now % len(self._order)])

    def _leave(self) -> None:
        """The unit that computed has been given to the device: its place may be overwritten."""
        if self._now > self._finished:
            self._lane.done(self._order[self._now % len(self._order)])
            self._finished = self._now

    def _issue(self) -> None:
        """Lets all come whose places are free."""
        slots = self._slots
        assert slots is not None  # noqa: S101 - called once the order is known
        count = len(slots)
        while True:
            turn, position = divmod(self._issued, count)
            after = turn * count + slots[position].after
            if after > self._finished:
                return
            index = self._order[position]
            slot = slots[position]
            first, last = slot.start // self._stored.itemsize, slot.end // self._stored.itemsize
            self._lane.bring(
                index,
                self._order[after % count] if after >= 0 else None,
                partial(self._move, index, first, last),
            )
            self._issued += 1

    def _move(self, index: int, first: int, last: int) -> None:
        for _ in range(self._copies):
            copy_flat(self._arrivals[first:last], self._sources[index])
        if self._arrivals is not self._ring:
            self._ring[first:last].copy_(self._arrivals[first:last])

    def _end_of_pass(self) -> None:
        if self._slots is None:
            self._settle()
        else:
            self._leave()
            self._issue()

    # --- the first pass ---
    def _learn(self, index: int) -> None:
        """Before the order is known: each unit is brought to the ring's start when it is needed, in the stream that computes."""
        if self._order and self._order[-1] == index:
            return
        if index in self._order:
            self.misses += 1
        self._order.append(index)
        unit = self._streamed[index]
        with torch.inference_mode(mode=False), torch.no_grad():
            self._move(index, 0, unit.elements)
            self._bind(unit, self._ring[: unit.elements])

    def _settle(self) -> None:
        """Gives each unit its place for all passes to come. A unit that came twice in the pass, or not at all, leaves no fixed order."""
        if sorted(self._order) != list(range(len(self._streamed))):
            log.warning("the streamed layers do not come once each in a pass: streaming waits for every copy")
            self._order.clear()
            return
        sizes = [self._streamed[index].elements * self._stored.itemsize for index in self._order]
        self._slots = lay_out(sizes, self._ring_bytes)
        with torch.inference_mode(mode=False), torch.no_grad():
            for position, index in enumerate(self._order):
                first = self._slots[position].start // self._stored.itemsize
                unit = self._streamed[index]
                self._bind(unit, self._ring[first : first + unit.elements])
        self._now = self._finished = -1
        self._issued = 0
        self._lane.settle()
        self._issue()

    def _lose_the_order(self, index: int) -> None:
        """A pass took another way than the one before: begins to learn anew with this unit. Slower, never wrong."""
        log.warning("the network took another way through its layers: learning the order again")
        self.misses += 1
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._slots = None
        self._order = []
        self._learn(index)


def _get(module: nn.Module, key: str) -> Any:
    return module._parameters[key] if key in module._parameters else module._buffers[key]


def _put(module: nn.Module, key: str, value: Any) -> None:
    """Sets a parameter or buffer without torch's checks of its type and device, which the meta device would fail."""
    if key in module._parameters:
        if not isinstance(value, nn.Parameter):
            value = nn.Parameter(value, requires_grad=False)
        module._parameters[key] = value
    else:
        module._buffers[key] = value
