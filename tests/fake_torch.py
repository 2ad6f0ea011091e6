"""torch with the card that a test wants, at the library's edge: the functions of `torch` and `torch.cuda` that the node asks.

Every name here is one of the real module; `tests/unit/test_selftest.py` holds it to that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

GIB = 1024**3


@dataclass
class FakeTensor:
    """A tensor on some device, over NumPy. `card` decides how a product on the card ends."""

    values: Any
    card: "FakeTorch"
    device: str = "cpu"

    def __mod__(self, other: int) -> "FakeTensor":
        return FakeTensor(self.values % other, self.card, self.device)

    def reshape(self, *shape: int) -> "FakeTensor":
        return FakeTensor(self.values.reshape(*shape), self.card, self.device)

    def float(self) -> "FakeTensor":
        return FakeTensor(self.values.astype(np.float32), self.card, self.device)

    def to(self, device: str) -> "FakeTensor":
        return FakeTensor(self.values, self.card, device)

    def cpu(self) -> "FakeTensor":
        return self.to("cpu")

    def round(self) -> "FakeTensor":
        return FakeTensor(self.values.round(), self.card, self.device)

    def __matmul__(self, other: "FakeTensor") -> "FakeTensor":
        product = self.values @ other.values
        if self.device != "cpu":
            if self.card.kernel_error is not None:
                raise RuntimeError(self.card.kernel_error)
            if self.card.wrong:
                product = product * np.float32(1.5)
        return FakeTensor(product, self.card, self.device)


def conv2d(picture: FakeTensor, kernel: FakeTensor) -> FakeTensor:
    """Of one channel, without padding."""
    card = picture.card
    if picture.device != "cpu" and card.cudnn_error is not None:
        raise RuntimeError(card.cudnn_error)
    windows = np.lib.stride_tricks.sliding_window_view(picture.values[0, 0], kernel.values.shape[2:])
    found = np.einsum("abij,ij->ab", windows, kernel.values[0, 0])[None, None]
    if picture.device != "cpu" and card.wrong_convolution:
        found = found * np.float32(1.5)
    return FakeTensor(found, card, picture.device)


@dataclass
class FakeTorch:
    """The library's state. `cuda_version` None is a build without CUDA; errors are the words with which a call ends."""

    version: str = "2.13.0+cu126"
    cuda_version: str | None = "12.6"
    capability: tuple[int, int] = (7, 5)
    architectures: tuple[str, ...] = ("sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90")
    init_error: str | None = None
    kernel_error: str | None = None
    wrong: bool = False
    cudnn: int | None = 91002
    cudnn_error: str | None = None
    wrong_convolution: bool = False
    total_gib: float = 6.0
    others_gib: float = 0.0
    context_gib: float = 0.4
    reserved_gib: float = 0.0
    kept_gib: float = 0.0
    """What stays reserved however often the cache is emptied."""
    peak_gib: float = 0.0
    limit_gib: float | None = None
    """What this process may reserve; None: it was never told."""
    called: list[str] = field(default_factory=list)
    on_empty_cache: Callable[[], None] = lambda: None
    initialized: bool = True
    broken: bool = False
    """A broken context: every call ends with its first error."""

    def module(self) -> Any:
        """The library as a module."""
        return SimpleNamespace(
            __version__=self.version,
            version=SimpleNamespace(cuda=self.cuda_version),
            cuda=SimpleNamespace(
                init=self._init,
                is_initialized=lambda: self.initialized,
                get_device_capability=lambda _device=None: self.capability,
                get_arch_list=lambda: list(self.architectures),
                mem_get_info=self._mem_get_info,
                memory_reserved=lambda _device=None: int(self.reserved_gib * GIB),
                max_memory_reserved=lambda _device=None: int(self.peak_gib * GIB),
                reset_peak_memory_stats=self._reset_peak,
                empty_cache=self._empty_cache,
                get_device_properties=lambda _device=None: SimpleNamespace(
                    total_memory=int(self.total_gib * GIB)
                ),
                set_per_process_memory_fraction=self._limit,
            ),
            backends=SimpleNamespace(cudnn=SimpleNamespace(version=lambda: self.cudnn)),
            nn=SimpleNamespace(functional=SimpleNamespace(conv2d=conv2d)),
            arange=lambda end: FakeTensor(np.arange(end), self),
            equal=lambda left, right: bool(np.array_equal(left.values, right.values)),
        )

    def _init(self) -> None:
        if self.init_error is not None:
            raise RuntimeError(self.init_error)

    def _mem_get_info(self, _device: object = None) -> tuple[int, int]:
        if self.broken:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        free = self.total_gib - self.others_gib - self.context_gib - self.reserved_gib
        return int(free * GIB), int(self.total_gib * GIB)

    def _limit(self, fraction: float, _device: object = None) -> None:
        self.limit_gib = fraction * self.total_gib

    def _reset_peak(self, _device: object = None) -> None:
        """As the real one: what is held now is the peak so far."""
        self.called.append("reset_peak_memory_stats")
        self.peak_gib = self.reserved_gib

    def _empty_cache(self) -> None:
        self.called.append("empty_cache")
        self.on_empty_cache()
        self.reserved_gib = min(self.reserved_gib, self.kept_gib)
