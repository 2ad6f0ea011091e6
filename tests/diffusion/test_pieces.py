"""Layers in pieces give what whole layers give, for every network, budget and shape."""

from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from node_agent.engine import chunking  # noqa: E402
from node_agent.engine.chunking import RULES, Chunking, pieces_for, rule_of  # noqa: E402
from node_agent.engine.norms import measure  # noqa: E402
from node_agent.engine.skips import InputRelease, SkipRelease  # noqa: E402
from tests.networks import Case, cases, with_weights  # noqa: E402

pytestmark = pytest.mark.torch
ROUND_OFF = {torch.float64: 1e-12, torch.float32: 2e-5}
DOUBLE = cases(torch.float64)


@pytest.fixture(autouse=True)
def wide_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the small VAEs the attention's head is narrow; here it counts as one without a fused kernel."""
    monkeypatch.setattr(chunking, "WIDEST_FUSED_HEAD", 8)


@cache
def drawn(name: str) -> tuple[Any, Any]:
    """A network in double precision and what it gives when run whole. All tests share it: each gives it back as it was."""
    net = with_weights(DOUBLE[name], torch.float64)
    with torch.inference_mode():
        return net, DOUBLE[name].call(net)


@pytest.mark.parametrize("budget", [5_000, 10**6])
@pytest.mark.parametrize("case", DOUBLE.values(), ids=DOUBLE)
def test_pieces_change_nothing_but_round_off(case: Case, budget: int) -> None:
    net, whole = drawn(case.name)
    with torch.inference_mode():
        pieces = Chunking(net)
        pieces.budget_bytes = budget
        found = case.call(net)
        pieces.close()
        assert torch.equal(case.call(net), whole)  # and leaves no trace
    assert (found - whole).abs().max() < ROUND_OFF[torch.float64] * whole.abs().max()


@pytest.mark.parametrize("name", ["i2vgen-xl", "svd", "vae-decode", "svd-vae"])
def test_in_single_precision_too(name: str) -> None:
    case = cases(torch.float32)[name]
    net = with_weights(case, torch.float32)
    with torch.inference_mode():
        whole = case.call(net)
        pieces = Chunking(net)
        pieces.budget_bytes = 20_000
        found = case.call(net)
    assert (found - whole).abs().max() < ROUND_OFF[torch.float32] * whole.abs().max()


@pytest.mark.parametrize("name", ["vae-decode", "svd-vae"])
@pytest.mark.parametrize("budget", [0, 20_000])
def test_what_went_into_a_block_of_a_vae_is_given_back_and_nothing_changes(name: str, budget: int) -> None:
    case = DOUBLE[name]
    net, whole = drawn(name)
    went_in: list[Any] = []
    with torch.inference_mode():
        pieces, inputs = Chunking(net), InputRelease(net)
        pieces.budget_bytes = budget
        blocks = net.decoder.up_blocks
        hooks = [
            block.register_forward_pre_hook(lambda _m, args: went_in.append(args[0])) for block in blocks
        ]
        found = case.call(net)
        freed = [tensor.untyped_storage().nbytes() for tensor in went_in]
        for hook in hooks:
            hook.remove()
        inputs.close()
        pieces.close()
        assert torch.equal(case.call(net), whole)
    assert freed == [0] * len(blocks)
    assert (found - whole).abs().max() < ROUND_OFF[torch.float64] * whole.abs().max()


@pytest.mark.parametrize("name", ["vae-decode", "svd-vae"])
def test_a_vae_s_layers_run_in_strips_of_one_frame(name: str) -> None:
    """Regression: a VAE calls its resnets' way with time by another name, and they ran whole whatever the budget."""
    case = DOUBLE[name]
    net, _whole = drawn(name)
    heights: set[int] = set()
    last = net.decoder.up_blocks[-1].resnets[0]
    resnet = getattr(last, "spatial_res_block", last)
    with torch.inference_mode():
        pieces = Chunking(net)
        pieces.budget_bytes = 20_000
        hook = resnet.nonlinearity.register_forward_hook(lambda _m, args, _o: heights.add(args[0].shape[2]))
        out = case.call(net)
        hook.remove()
        pieces.close()
    assert max(heights) < out.shape[2] // 2


@pytest.mark.parametrize("name", ["i2vgen-xl", "svd"])
@pytest.mark.parametrize("budget", [0, 20_000])
def test_skips_are_given_back_and_nothing_changes(name: str, budget: int) -> None:
    case = DOUBLE[name]
    net, whole = drawn(name)
    freed = []
    with torch.inference_mode():
        pieces, skips = Chunking(net), SkipRelease(net)
        pieces.budget_bytes = budget
        kept: list[Any] = []
        hook = net.up_blocks[-1].register_forward_pre_hook(
            lambda _m, _a, kwargs: kept.extend(kwargs["res_hidden_states_tuple"]), with_kwargs=True
        )
        found = case.call(net)
        freed = [skip.untyped_storage().nbytes() for skip in kept]
        hook.remove()
        skips.close()
        pieces.close()
        assert torch.equal(case.call(net), whole)
    assert freed == [0] * len(net.up_blocks[-1].resnets)
    assert (found - whole).abs().max() < ROUND_OFF[torch.float64] * whole.abs().max()


def test_a_working_set_within_the_budget_runs_whole() -> None:
    assert pieces_for(1000, 0, 32) == 1
    assert pieces_for(1000, 1000, 32) == 1
    assert pieces_for(1001, 1000, 32) == 2
    assert pieces_for(10**9, 1, 32) == 32


def test_only_the_wide_layers_are_cut() -> None:
    """A piece too many costs launches: layers deep in the network, which are small, stay whole."""
    case = DOUBLE["i2vgen-xl"]
    net, _whole = drawn("i2vgen-xl")
    widths: dict[str, int] = {}
    hooks = []
    for name, module in net.named_modules():
        rule = rule_of(module)
        if rule is not None:
            hooks.append(
                module.register_forward_pre_hook(
                    lambda m, args, name=name, rule=rule: widths.__setitem__(
                        name, rule.working(m, args[0]) * 8
                    )
                )
            )
    with torch.inference_mode():
        case.call(net)
    for hook in hooks:
        hook.remove()
    shallow, deep = widths["down_blocks.0.resnets.0"], widths["mid_block.resnets.0"]
    assert shallow > 8 * deep
    assert pieces_for(deep, deep, 4) == 1
    assert pieces_for(shallow, deep, 10**6) >= 8


def test_every_rule_names_a_class_that_diffusers_has() -> None:
    """A renamed class would run whole without a word."""
    from diffusers.models import attention_processor, resnet, transformers, upsampling
    from diffusers.models.transformers import transformer_temporal

    places = (attention_processor, resnet, transformers, upsampling, transformer_temporal)
    for name in RULES:
        assert any(hasattr(place, name) for place in places), name


def test_statistics_in_pieces_are_the_norm_s_own() -> None:
    torch.manual_seed(3)
    norm = torch.nn.GroupNorm(4, 8).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    clip = torch.randn(5, 8, 6, 7, dtype=torch.float64) * 3 + 1  # five frames of one sample
    whole = norm(clip.transpose(0, 1)[None])[0].transpose(0, 1)
    with torch.inference_mode():
        for pieces in (1, 2, 5, 9):
            found = measure(norm, clip, pieces).apply(clip)
            assert (found - whole).abs().max() < 1e-12


def test_half_precision_sums_in_single() -> None:
    """The mean of 65,504 ones in half precision is not what half precision adds up."""
    norm = torch.nn.GroupNorm(1, 2).half()
    clip = torch.full((4, 2, 128, 128), 3.0).half()
    clip[:, 0] = 1.0
    with torch.inference_mode():
        found = measure(norm, clip, 4)
        assert found.scale.dtype == torch.float32
        assert found.apply(clip)[0, :, 0, 0].tolist() == pytest.approx([-1.0, 1.0], abs=1e-3)
