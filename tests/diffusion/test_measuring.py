"""What `farm calibrate` puts on the card is the real architecture, called as a step calls it."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from farm.catalogue.models import builtin_models  # noqa: E402
from farm.catalogue.networks import network  # noqa: E402
from farm.errors import ConfigurationError  # noqa: E402
from node_agent.engine.streaming import StreamedNetwork  # noqa: E402
from node_agent.engine.units import cut  # noqa: E402
from node_agent.measuring import build_denoiser, diffusion_class, random_weights  # noqa: E402
from tests.networks import cases  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["i2vgen-xl", "svd"])
def test_the_full_denoiser_has_the_weights_of_the_measured_one(name: str) -> None:
    units = cut(build_denoiser(diffusion_class(builtin_models()[name])))
    measured = {row.name: row.mib for row in network(name).units}
    assert {unit.name: pytest.approx(unit.elements * 2 / 2**20, abs=0.001) for unit in units} == measured


@pytest.mark.parametrize("name", ["i2vgen-xl", "svd"])
def test_random_weights_and_inputs_give_a_step_without_a_broken_number(name: str) -> None:
    kind = diffusion_class(builtin_models()[name])
    with torch.device("meta"):
        net: Any = cases(torch.float32)[name].make().eval().requires_grad_(False)
    units, cpu = cut(net), torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = StreamedNetwork(
            net, random_weights(units), cpu, stored=torch.float16, compute=torch.float32, stay=None
        )
        inputs = kind.bench_inputs(net.config, (64, 128, 3), 2, torch.zeros(()))
        with torch.inference_mode():
            out = net(**inputs)[0]
    weights.close()
    noise = (2, 4, 3, 16, 8) if name == "i2vgen-xl" else (2, 3, 4, 16, 8)
    assert tuple(out.shape) == noise
    assert torch.isfinite(out).all()
    assert 0.01 < float(out.std()) < 100


def test_a_model_without_a_network_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no network to measure"):
        diffusion_class(builtin_models()["animatic"])
