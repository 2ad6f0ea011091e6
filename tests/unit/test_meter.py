"""Seconds and memory of a render."""

import gc
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from node_agent import meter
from node_agent.ladder import MemoryReading
from node_agent.meter import GIB, CardMemory, PeakMemory, Stopwatch
from tests.fake_torch import FakeTorch

BLOCK_MIB = 64


class Ticks:
    """`time.perf_counter` that moves only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(meter, "time", SimpleNamespace(perf_counter=lambda: self.now))


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Ticks:
    return Ticks(monkeypatch)


def test_parts_add_up_also_when_they_end_in_an_error(ticks: Ticks) -> None:
    watch = Stopwatch()
    for seconds in (1.0, 2.5):
        with watch.part("denoise"):
            ticks.now += seconds

    def broken() -> None:
        with watch.part("decode"):
            ticks.now += 4.0
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    watch.add("denoise", 0.5)
    assert watch.seconds == {"denoise": 4.0, "decode": 4.0}


def test_waiting_counts_the_producer_and_not_the_consumer(ticks: Ticks) -> None:
    def produce() -> Iterator[int]:
        for item in range(3):
            ticks.now += 2.0
            yield item
        ticks.now += 0.25  # what the producer does after its last item is its own too

    watch = Stopwatch()
    taken = []
    for item in watch.waiting(produce()):
        ticks.now += 50.0
        taken.append(item)
    assert taken == [0, 1, 2]
    assert watch.seconds == {"frames": 6.25}


def test_waiting_lets_the_producer_s_error_through_and_counts_until_then(ticks: Ticks) -> None:
    def produce() -> Iterator[int]:
        ticks.now += 3.0
        yield 1
        ticks.now += 1.0
        raise ValueError("broken")

    watch = Stopwatch()
    frames = watch.waiting(produce())
    assert next(frames) == 1
    with pytest.raises(ValueError, match="broken"):
        next(frames)
    assert watch.seconds == {"frames": 4.0}


def test_the_peak_keeps_what_was_given_back_until_it_is_reset() -> None:
    peak = PeakMemory("cpu")
    gc.collect()
    peak.reset()
    before = peak.gib()
    assert before is not None
    assert 0.01 < before < 64
    block = np.ones(
        BLOCK_MIB * 1024**2, np.uint8
    )  # touched, so that it is resident; large, so that it goes back
    held = peak.gib()
    del block
    after = peak.gib()
    assert held is not None
    assert after is not None
    assert (held - before) * 1024 == pytest.approx(BLOCK_MIB, abs=16)
    assert after == pytest.approx(held, abs=2 / 1024)  # the kernel counts pages in batches
    peak.reset()
    fresh = peak.gib()
    assert fresh is not None
    assert (held - fresh) * 1024 == pytest.approx(BLOCK_MIB, abs=16)


def test_a_gpu_s_peak_is_what_the_allocator_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    cuda = SimpleNamespace(
        empty_cache=lambda: calls.append("empty"),
        reset_peak_memory_stats=lambda: calls.append("reset"),
        max_memory_reserved=lambda: 3 * GIB // 2,
    )
    monkeypatch.setitem(meter.sys.modules, "torch", SimpleNamespace(cuda=cuda))  # type: ignore[arg-type]  # all it asks of torch
    peak = PeakMemory("cuda:0")
    peak.reset()
    assert peak.gib() == 1.5
    assert calls == ["empty", "reset"], "what is in the cache would be the peak so far"


def test_a_card_s_memory_is_read_and_released_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch(total_gib=6.0, others_gib=1.0, context_gib=0.5, reserved_gib=2.0)
    monkeypatch.setitem(meter.sys.modules, "torch", torch.module())
    memory = CardMemory("cuda:0")
    assert memory.reading() == MemoryReading(6.0, 2.5, 2.0)
    memory.release()
    assert memory.reading() == MemoryReading(6.0, 4.5, 0.0)
    torch.broken = True
    assert memory.reading() is None
    assert CardMemory("cpu").reading() is None
    monkeypatch.delitem(meter.sys.modules, "torch")
    assert memory.reading() is None
    memory.release()


def test_a_gpu_s_peak_without_torch_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(meter.sys.modules, "torch", raising=False)
    peak = PeakMemory("cuda:0")
    peak.reset()
    assert peak.gib() is None


def test_what_a_worker_holds_is_told_without_making_a_context(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = FakeTorch(reserved_gib=2.0, initialized=False)
    memory = CardMemory("cuda:0")
    monkeypatch.delitem(meter.sys.modules, "torch", raising=False)
    assert memory.held_gib() is None
    monkeypatch.setitem(meter.sys.modules, "torch", torch.module())
    assert memory.held_gib() is None
    torch.initialized = True
    assert memory.held_gib() == 2.0
    assert CardMemory("cpu").held_gib() is None
    monkeypatch.setitem(meter.sys.modules, "torch", ModuleType("torch"))
    assert memory.held_gib() is None, "the attempt's thread is in the middle of importing it"
