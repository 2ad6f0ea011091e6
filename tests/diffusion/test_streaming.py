"""Streamed weights give bit for bit what resident ones give, in any ring, share and order, and leave the network as it was."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch import nn  # noqa: E402

from farm.errors import HostMemoryError  # noqa: E402
from farm.model import FailureClass  # noqa: E402
from node_agent import hostram  # noqa: E402
from node_agent.engine import hostmem  # noqa: E402
from node_agent.engine import units as units_module  # noqa: E402
from node_agent.engine.chunking import Chunking  # noqa: E402
from node_agent.engine.streaming import StreamedNetwork  # noqa: E402
from node_agent.engine.units import cut, may_stream  # noqa: E402
from node_agent.faults import fault_of  # noqa: E402
from tests.networks import cases, with_weights  # noqa: E402

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
SINGLE = cases(torch.float32)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small networks are cut as finely as the real ones."""
    monkeypatch.setattr(units_module, "UNIT_BYTES", 20_000)
    monkeypatch.setattr(units_module, "SMALL_BYTES", 200)


def skeleton(name: str) -> Any:
    with torch.device("meta"):
        return SINGLE[name].make().eval().requires_grad_(False)


@cache
def weights_of(name: str) -> Any:
    """Drawn once for all tests, which only read them."""
    return with_weights(SINGLE[name], torch.float32).state_dict()


def stream(net: Any, state: Any, stay: Any, **more: Any) -> StreamedNetwork:
    return StreamedNetwork(
        net, state.__getitem__, CPU, **{"stored": torch.float16, "compute": torch.float32, **more}, stay=stay
    )


@pytest.mark.parametrize(("stored", "budget"), [(torch.float16, 20_000), (torch.float32, 0)])
@pytest.mark.parametrize("name", ["i2vgen-xl", "svd"])
def test_every_share_is_equal_to_all_on_the_card(name: str, stored: Any, budget: int) -> None:
    case = SINGLE[name]
    state = weights_of(name)
    net = skeleton(name)
    names = [unit.name for unit in cut(net)]
    before = {key: id(tensor) for key, tensor in net.named_parameters()}
    pieces = Chunking(net)
    pieces.budget_bytes = budget
    resident = stream(net, state, None, stored=stored)
    with torch.inference_mode():
        want = case.call(net)
    resident.close()
    for stay in ([], names[1::3]):
        streamed = stream(net, state, stay, stored=stored)
        with torch.inference_mode():
            for _ in range(3):
                assert torch.equal(case.call(net), want)
        assert streamed.misses == 0
        assert len(streamed.order) == len([n for n in names if n not in stay])
        assert streamed.card_bytes < resident_bytes(state)
        streamed.close()
        assert {key: id(tensor) for key, tensor in net.named_parameters()} == before


def resident_bytes(state: Any) -> int:
    return sum(tensor.numel() * 4 for tensor in state.values()) * 2


class Tower(nn.Module):
    """Layers of given widths, one after the other; `order` may be changed between passes."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, width * 4, bias=False) for width in widths)
        self.order = list(range(len(widths)))

    def forward(self, x: Any) -> Any:
        for index in self.order:
            layer = self.layers[index]
            x = torch.tanh(layer(x).view(len(x), -1, 4).sum(1))
        return x


@given(
    widths=st.lists(st.integers(15, 400), min_size=1, max_size=9),
    more=st.integers(0, 60_000),
    kept=st.sets(st.integers(0, 8)),
    passes=st.integers(1, 5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_any_ring_is_equal(widths: list[int], more: int, kept: set[int], passes: int) -> None:
    torch.manual_seed(7)
    plain = Tower(widths)
    x = torch.randn(3, 4)
    with torch.device("meta"):
        net = Tower(widths)
    stay = [f"layers.{index}" for index in kept]
    streamed = stream(net, plain.state_dict(), stay, stored=torch.float32, ring_bytes=more)
    with torch.inference_mode():
        want = plain(x)
        for _ in range(passes):
            assert torch.equal(net(x), want)
    streamed.close()


def test_weights_from_a_file_in_single_precision_are_the_same_on_the_card_and_through_the_ring() -> None:
    """Only those that streamed were rounded to what they are stored in: each share of the weights was another clip."""
    torch.manual_seed(7)
    state = Tower([100] * 5).state_dict()
    x, given_back = torch.randn(3, 4), []
    with torch.device("meta"):
        net = Tower([100] * 5)
    for stay in (None, [], ["layers.1", "layers.3"]):
        streamed = stream(net, state, stay)
        with torch.inference_mode():
            given_back.append(net(x))
        streamed.close()
    assert torch.equal(given_back[0], given_back[1])
    assert torch.equal(given_back[0], given_back[2])


def test_another_way_through_the_layers_is_slower_and_never_wrong() -> None:
    torch.manual_seed(7)
    plain = Tower([100] * 5)
    x = torch.randn(3, 4)
    with torch.device("meta"):
        net = Tower([100] * 5)
    streamed = stream(net, plain.state_dict(), [], stored=torch.float32)
    with torch.inference_mode():
        for order in (
            [0, 1, 2, 3, 4],
            [0, 1, 2, 3, 4],
            [0, 2, 1, 3, 4],
            [0, 2, 1, 3, 4],
            [4, 0, 4],
            [3, 2],
            [0, 1, 2, 3, 4],
        ):
            plain.order = net.order = order
            assert torch.equal(net(x), plain(x)), order
    assert streamed.misses > 0


def test_the_host_s_copy_outlives_the_network_and_serves_the_next() -> None:
    torch.manual_seed(7)
    plain = Tower([100] * 5)
    x = torch.randn(3, 4)
    with torch.device("meta"):
        net = Tower([100] * 5)
    first = stream(net, plain.state_dict(), [], stored=torch.float32)
    host = first.host
    first.close()

    def read(name: str) -> Any:
        raise AssertionError(f"{name} was read again")

    second = StreamedNetwork(net, read, CPU, stored=torch.float32, compute=torch.float32, stay=[], host=host)
    with torch.inference_mode():
        assert torch.equal(net(x), plain(x))
    second.close()


def test_every_tensor_is_in_one_unit_and_aligned() -> None:
    for name in ("i2vgen-xl", "svd"):
        net = skeleton(name)
        held = [held for unit in cut(net) for held in unit.tensors]
        assert sorted(one.name for one in held) == sorted(net.state_dict())
        assert all(one.first % units_module.ALIGNMENT == 0 for one in held)


def test_tensors_of_a_module_with_children_never_stream() -> None:
    """No call says when they are needed."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.zeros(100_000))
            self.layers = nn.ModuleList([nn.Linear(100, 100)])

    own = [unit for unit in cut(Odd()) if unit.tensors[0].name == "table"]
    assert len(own) == 1
    assert not may_stream(own[0])


def test_the_real_networks_are_cut_into_units_of_the_planner_s_names() -> None:
    """The head chooses which units stay by the names in the measured data; a node must know the same names."""
    from diffusers import I2VGenXLUNet, UNetSpatioTemporalConditionModel

    from farm.catalogue.networks import network

    with pytest.MonkeyPatch.context() as real:
        real.setattr(units_module, "UNIT_BYTES", 32 * 1024**2)
        real.setattr(units_module, "SMALL_BYTES", 1024**2)
        for name, cls in (("i2vgen-xl", I2VGenXLUNet), ("svd", UNetSpatioTemporalConditionModel)):
            with torch.device("meta"):
                found = {unit.name: unit.elements * 2 / 1024**2 for unit in cut(cls())}
            measured = {unit.name: unit.mib for unit in network(name).units}
            assert found == pytest.approx(measured, abs=0.002)


@pytest.mark.parametrize(("free_gib", "pinned"), [(2.1, True), (1.9, False)])
def test_host_memory_is_pinned_where_the_pc_keeps_enough(
    monkeypatch: pytest.MonkeyPatch, free_gib: float, pinned: bool
) -> None:
    """Nothing was asked before: a PC with little memory left came to the kernel's last means, which ends a program."""
    runtime = SimpleNamespace(cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda _: 0)
    monkeypatch.setattr(hostmem, "_cuda", SimpleNamespace(cudart=lambda: runtime))
    monkeypatch.setattr(
        hostram.psutil,
        "virtual_memory",
        lambda: SimpleNamespace(total=64 * 1024**3, available=free_gib * 1024**3),
    )
    memory = hostmem.HostMemory(1024**3, torch.device("cuda"))
    assert memory.pinned == pinned
    assert memory.why_not == (
        "" if pinned else "only 0.9 GiB of this PC's memory would be free beside 1.0 GiB that cannot be moved"
    )
    memory.close()


def test_host_memory_that_the_pc_does_not_have_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hostram.psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 1024**3, available=1.4 * 1024**3)
    )
    with pytest.raises(HostMemoryError) as caught:
        hostmem.HostMemory(1024**3, CPU)
    assert caught.value.message == (
        "1.0 GiB of weights are to stream from this PC's memory, and it has 1.4 GiB free, of which 0.5 must stay."
    )
    assert fault_of(caught.value).host_memory
    assert fault_of(caught.value).kind is FailureClass.OUT_OF_MEMORY
    hostmem.HostMemory(0, CPU).close()


def test_host_memory_on_a_cpu_is_ordinary() -> None:
    memory = hostmem.HostMemory(1000, CPU)
    assert not memory.pinned
    assert len(memory.bytes) == 1000
    memory.close()
    memory.close()


def test_counting_buffers_go_along() -> None:
    """Positions stayed on the host when the weights went to the card, and the lookup by them failed."""

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 2)
            self.register_buffer("places", torch.arange(4), persistent=False)

        def forward(self) -> Any:
            return self.table(self.places)

    state = {"table.weight": torch.ones(4, 2)}
    net = Counted()
    before = net.places
    # The meta device stands for a card: what is there is not on the host.
    away = StreamedNetwork(
        net, state.__getitem__, torch.device("meta"), stored=torch.float16, compute=torch.float16, stay=None
    )
    assert net.places.is_meta
    assert net().is_meta
    away.close()
    assert net.places is before
