"""Where a model's parts lie, stage by stage, as its memory plan says."""

import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final, Literal

import torch
from torch import Tensor

from farm.model import MemoryPlan
from node_agent.engine.allocator import begin
from node_agent.engine.chunking import Chunking
from node_agent.engine.mapped import MappedPart
from node_agent.engine.skips import InputRelease, SkipRelease
from node_agent.engine.streaming import HostCopy, StreamedNetwork
from node_agent.engine.units import cut

log = logging.getLogger(__name__)

MIB: Final = 1024**2
STORED: Final = torch.float16
"""What the denoiser's weights are kept and cross the bus in, whatever computes. Those that stay on the card are rounded to it too."""
TILE_MIB: Final = 128
"""The working set of a VAE's layer in tiles: a quarter of a frame's at 1280x704."""

Precision = Literal["fp16", "fp32"]
Check = Callable[[], None]
"""Called before each tensor that is read: what it raises ends the loading, which may take a minute from an old disk."""


def unasked() -> None:
    """A `Check` that lets everything come."""


class Placement:
    """The parts of one model on one device.

    The denoiser follows the whole plan; the other parts are on the card whole, for their stage or for good. A part's weights exist only
    within `on_device`: outside, its tensors may lie on torch's meta device.
    """

    def __init__(self, parts: Mapping[str, MappedPart], device: torch.device, denoiser: str = "unet") -> None:
        """Nothing is read yet; `denoiser` names the part that streams."""
        self._parts = dict(parts)
        self._device = device
        self._denoiser = denoiser
        self._plan = MemoryPlan()
        self._stay: frozenset[str] | None = None
        self._here: dict[str, tuple[StreamedNetwork, Precision]] = {}
        self._host: HostCopy | None = None
        self.copies = 1
        """How often each copy is made: more than once to measure what a slower bus would do."""
        self._chunking = Chunking(self._parts[denoiser].module)
        self._skips = SkipRelease(self._parts[denoiser].module)
        self._tiling = Chunking(self._parts["vae"].module) if "vae" in self._parts else None
        self._inputs = InputRelease(self._parts["vae"].module) if "vae" in self._parts else None

    def arrange(self, plan: MemoryPlan, stay: frozenset[str] | None = None, check: Check = unasked) -> None:
        """Changes over to `plan`; `stay` names the denoiser's units that stay on the card, by default as many as its share, evenly.

        With everything as it is already, it does nothing.
        """
        if plan.weights_on_card < 1.0 and stay is None:
            stay = self._first(plan.weights_on_card)
        if plan.weights_on_card >= 1.0:
            stay = None
        same = (
            replace(
                plan, guidance=self._plan.guidance, decode=self._plan.decode, piece_mib=self._plan.piece_mib
            )
            == self._plan
        )
        if not same or stay != self._stay or not self._here:
            self.clear()
            begin(self._device)
        self._plan, self._stay = plan, stay
        self._chunking.budget_bytes = plan.piece_mib * MIB
        if self._tiling is not None:
            self._tiling.budget_bytes = TILE_MIB * MIB if plan.decode == "tiles" else 0
        if plan.parts == "resident":
            for name in self._parts:
                self._bring(name, plan.precision, check)

    @contextmanager
    def on_device(
        self, name: str, check: Check = unasked, *, precision: Precision | None = None
    ) -> Iterator[None]:
        """Holds a part on the card, computing in the plan's precision or in `precision`."""
        wanted = precision or self._plan.precision
        self._bring(name, wanted, check)
        try:
            yield
        finally:
            if self._plan.parts == "by_stage" or wanted != self._plan.precision:
                self._send_away(name)
                if self._plan.parts == "resident":
                    self._bring(name, self._plan.precision)

    @property
    def replaced(self) -> bool:
        """Whether another version of some part's files has come since they were opened."""
        return any(part.replaced for part in self._parts.values())

    @property
    def network(self) -> StreamedNetwork | None:
        """The denoiser's weights while they are on the card."""
        found = self._here.get(self._denoiser)
        return None if found is None else found[0]

    @property
    def host_bytes(self) -> int:
        """What the denoiser's weights that stream take of the PC's memory, also while it is off the card."""
        return 0 if self._host is None else self._host.memory.bytes.numel()

    @property
    def compute_dtype(self) -> torch.dtype:
        """What is computed in."""
        return _dtype(self._plan.precision)

    def clear(self) -> None:
        """Takes everything off the card, and out of pinned memory."""
        with ExitStack() as all_of_them:
            for name in list(self._here):
                all_of_them.callback(self._send_away, name)
        if self._host is not None:
            self._host.close()
            self._host = None

    def _first(self, share: float) -> frozenset[str]:
        """For a network that nobody has measured: its units evenly, one of every so many."""
        chosen, due = set(), 0.0
        for unit in cut(self._parts[self._denoiser].module):
            due += share
            if due >= 1.0:
                chosen.add(unit.name)
                due -= 1.0
        return frozenset(chosen)

    def _bring(self, name: str, precision: Precision, check: Check = unasked) -> None:
        here = self._here.get(name)
        if here is not None and here[1] == precision:
            return
        if here is not None:
            self._send_away(name)
        streams = name == self._denoiser and self._stay is not None
        part = self._parts[name]
        compute = _dtype(precision)
        with part.open() as read:

            def checked(tensor: str) -> Tensor:
                check()
                return read(tensor)

            network = StreamedNetwork(
                part.module,
                checked,
                self._device,
                stored=STORED if name == self._denoiser else compute,
                compute=compute,
                stay=self._stay if streams else None,
                ring_bytes=self._plan.ring_mib * MIB if streams else 0,
                host=self._host if streams else None,
                copies=self.copies,
            )
        if streams:
            self._host = network.host
        self._here[name] = (network, precision)

    def _send_away(self, name: str) -> None:
        found = self._here.pop(name, None)
        if found is None:
            return
        found[0].close()
        if self._device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()  # the next part would not fit into the holes


def _dtype(precision: Precision) -> torch.dtype:
    return torch.float16 if precision == "fp16" else torch.float32
