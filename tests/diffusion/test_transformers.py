"""What the parts of transformer models have and those of UNets have not: tied weights, and weights in shards."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from farm.errors import MissingWeightsError  # noqa: E402
from node_agent.engine import units as units_module  # noqa: E402
from node_agent.engine.mapped import MappedPart  # noqa: E402
from node_agent.engine.streaming import StreamedNetwork  # noqa: E402
from node_agent.engine.units import cut, may_stream  # noqa: E402
from node_agent.pipelines.diffusion.checkpoint import _fitting  # noqa: E402
from node_agent.pipelines.stored import read_heads, weight_files  # noqa: E402
from tests.checkpoints import write_small_t5  # noqa: E402

pytestmark = pytest.mark.torch
CPU = torch.device("cpu")
KINDS = ["T5EncoderModel", "UMT5EncoderModel"]


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small encoder is cut as finely as a real one."""
    monkeypatch.setattr(units_module, "UNIT_BYTES", 3_000)
    monkeypatch.setattr(units_module, "SMALL_BYTES", 200)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def encoder(kind: str, tmp_path: Path) -> Path:
    return write_small_t5(tmp_path / "text_encoder", kind)


def mapped(directory: Path, kind: str) -> MappedPart:
    return MappedPart(
        lambda: _fitting(directory, "transformers", kind), weight_files(directory, "transformers")
    )


@pytest.mark.parametrize("stay", [None, ()], ids=["whole", "streamed"])
def test_a_sharded_encoder_with_tied_weights_computes_what_the_stock_one_does(
    encoder: Path, kind: str, stay: Any
) -> None:
    """A file holds a tied weight once: the part was refused for lack of its second name, which would have had no memory either."""
    assert len(weight_files(encoder, "transformers")) > 2
    stock: Any = (
        getattr(transformers, kind).from_pretrained(encoder, variant="fp16", dtype=torch.float32).eval()
    )
    words = torch.tensor([[5, 3, 99, 1, 0], [7, 1, 0, 0, 0]])
    part = mapped(encoder, kind)
    module: Any = part.module
    for _ in range(2):  # the second time with what `close` left
        with part.open() as read:
            network = StreamedNetwork(
                module, read, CPU, stored=torch.float16, compute=torch.float32, stay=stay, ring_bytes=4_000
            )
        assert module.encoder.embed_tokens.weight is module.shared.weight
        assert not any(tensor.is_meta for tensor in module.state_dict().values())
        with torch.inference_mode():
            want = stock(words, attention_mask=(words > 0).long())[0]
            for _ in range(3):
                assert torch.equal(module(words, attention_mask=(words > 0).long())[0], want)
        assert bool(network.streamed_bytes) == (stay is not None)
        assert network.misses == 0
        network.close()
        assert module.encoder.embed_tokens.weight is module.shared.weight
        assert module.shared.weight.is_meta


@pytest.mark.parametrize("kind", KINDS[:1])
def test_either_name_of_a_tied_weight_will_do(encoder: Path, kind: str) -> None:
    """Older files hold T5's table of words under the name that newer ones leave out."""
    (file,) = {
        one.file for name, one in read_heads(encoder, "transformers").items() if name == "shared.weight"
    }
    tensors = load_file(file)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, file)
    index = encoder / "model.safetensors.index.fp16.json"
    index.write_text(index.read_text().replace('"shared.weight"', '"encoder.embed_tokens.weight"'))
    with mapped(encoder, kind).open() as read:
        for name in ("shared.weight", "encoder.embed_tokens.weight"):
            assert torch.equal(read(name), tensors["encoder.embed_tokens.weight"])


@pytest.mark.parametrize("kind", KINDS[:1])
def test_what_all_shards_lack_is_named(encoder: Path, kind: str) -> None:
    """The shards belong together and to a smaller model."""
    config = encoder / "config.json"
    config.write_text(config.read_text().replace('"num_layers": 3', '"num_layers": 4'))
    with pytest.raises(
        MissingWeightsError, match=r"lacks 9 of the model's tensors, the first of them encoder\.block\.3\."
    ):
        mapped(encoder, kind)


def test_a_tied_weight_stays_on_the_card_and_is_counted_once() -> None:
    """No call of the module that a unit is named after says that another one needs its weight."""

    class Tied(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = torch.nn.Linear(40, 40, bias=False), torch.nn.Linear(40, 40, bias=False)
            self.out.weight = self.into.weight
            self.between = torch.nn.Linear(40, 40, bias=False)

    units = {unit.name: unit for unit in cut(Tied())}
    assert {name: may_stream(unit) for name, unit in units.items()} == {"into": False, "between": True}
    assert [key for _, key in units["into"].tensors[0].holders] == ["weight", "weight"]
