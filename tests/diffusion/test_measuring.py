"""What `farm calibrate` puts on the card is the real architecture, called as a step calls it."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from farm.catalogue.models import builtin_models  # noqa: E402
from farm.catalogue.networks import network  # noqa: E402
from farm.errors import ConfigurationError  # noqa: E402
from node_agent import measuring_parts  # noqa: E402
from node_agent.engine.streaming import StreamedNetwork  # noqa: E402
from node_agent.engine.units import cut  # noqa: E402
from node_agent.measuring import diffusion_class  # noqa: E402
from node_agent.pipelines.full_size import build_part, random_weights  # noqa: E402
from tests import checkpoints  # noqa: E402
from tests.networks import cases  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", ["i2vgen-xl", "svd"])
def test_the_full_denoiser_has_the_weights_of_the_measured_one(name: str) -> None:
    kind = diffusion_class(builtin_models()[name])
    units = cut(build_part(kind.layout, kind.denoiser))
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


@pytest.mark.parametrize("name", ["i2vgen-xl", "svd", "svd-xt"])
def test_the_other_parts_weigh_what_the_catalogue_says(name: str) -> None:
    row = builtin_models()[name]
    assert row.memory is not None
    assert measuring_parts.parts_gib(diffusion_class(row)) == row.memory.parts_gib


@pytest.mark.parametrize(
    ("name", "windows", "wide"), [("i2vgen-xl", 1, torch.float16), ("svd", 2, torch.float32)]
)
def test_the_vae_is_measured_as_it_encodes_and_decodes(
    name: str, windows: int, wide: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small VAE really runs; in place of a card's allocator the pixels are counted: a known law, which comes back."""
    kind = diffusion_class(builtin_models()[name])
    small = {"i2vgen-xl": checkpoints.VAE_SMALL, "svd": checkpoints.SVD_VAE_SMALL}[name]
    layout = replace(kind.layout, published={**kind.layout.published, "vae": small})
    called: list[tuple[torch.dtype, tuple[int, ...]]] = []

    def handed_out(call: Any) -> float:
        with torch.inference_mode():
            out = call()
        pixels = out if isinstance(out, torch.Tensor) else out.mean
        called.append((pixels.dtype, tuple(pixels.shape)))
        assert torch.isfinite(pixels).all()
        grows = 1 if isinstance(out, torch.Tensor) else 64  # latents are an eighth of the picture's sides
        return 1024 * (0.5 + 3.0 * pixels.shape[0] * pixels.shape[2] * pixels.shape[3] * grows / 1e6)

    monkeypatch.setattr(kind, "layout", layout)
    monkeypatch.setattr(kind, "bench_sizes", ((128, 64, 3), (128, 64, 6), (192, 64, 3)))
    monkeypatch.setattr(measuring_parts, "handed_out_mib", handed_out)
    monkeypatch.setattr(measuring_parts, "clean_card", nullcontext)
    found = measuring_parts.measure_vae(kind, torch.device("cpu"))
    assert found == {
        "decode_frames": windows,
        "encodes_in_fp32": windows == 2,
        **{
            f"{way}_{how}": [0.5, pytest.approx(3.0)]
            for way in ("decode", "encode")
            for how in ("frame", "tiles")
        },
    }
    assert [shape for _, shape in called] == [
        *[(windows, 3, 64, 128), (windows, 3, 64, 192)] * 2,
        *[(1, 4, 8, 16), (1, 4, 8, 24)] * 2,
    ]
    assert {kind for kind, _ in called[4:]} == {wide}


def test_a_second_size_that_does_not_fit_gives_way_to_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = diffusion_class(builtin_models()["i2vgen-xl"])
    asked: list[tuple[int, ...]] = []

    def handed_out(call: Any) -> float:
        pixels = call()
        asked.append(pixels)
        if pixels[0] > 1000:
            raise torch.cuda.OutOfMemoryError
        return 1024 * 2.0 * pixels[0] * pixels[1] / 1e6

    monkeypatch.setattr(measuring_parts, "handed_out_mib", handed_out)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert measuring_parts._law(kind, lambda size: size[:2], 1) == [0.0, pytest.approx(2.0, abs=1e-4)]
    assert asked == [(512, 512), (1280, 704), (384, 384)]


def test_a_model_without_a_network_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no network to measure"):
        diffusion_class(builtin_models()["animatic"])
