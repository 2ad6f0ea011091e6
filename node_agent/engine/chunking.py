"""Which layers can run in pieces, how large their working sets are, and the switch that makes them do so.

A layer runs whole while its working set is within the budget, else in the fewest pieces that bring it there. So the pieces follow from the
shapes: the wide layers at full resolution are cut, the small ones deep in the network are left alone. Layers are known by the
names of their classes, those of diffusers and of what is built from them.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn

from farm.catalogue.networks import Cut
from node_agent.engine import pieces as ways

log = logging.getLogger(__name__)

Run = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """How layers of one class are cut.

    `working(module, x)` is the largest that the layer takes beside its input and its output when it runs whole, in elements;
    `run(module, forward, pieces, *args, **kwargs)` runs it in pieces; `most(module, x)` is the largest number of them. `cut`: along what.
    """

    working: Callable[[Any, Tensor], int]
    run: Run
    most: Callable[[Any, Tensor], int]
    cut: Cut = "lines"


WIDEST_FUSED_HEAD: Final = 256
"""The widest attention head that torch's fused kernels take."""

_FEED_FORWARD: Final = 18
"""A transformer block's widest moment, in times its tokens: the gated feed-forward's 8 + 4 + 4, and two of the tokens themselves."""


def _resnet_working(module: Any, x: Tensor) -> int:
    return int(2 * (module.in_channels + module.out_channels) * len(x) * x.shape[2] * x.shape[3])


def _run_resnet(module: Any, forward: Run, pieces: int, x: Tensor, temb: Any = None, **kwargs: Any) -> Any:
    # Only "default" looks at the time, and "scale_shift" in a way of its own; a VAE's are of some other name.
    plain = (
        module.upsample is None and module.downsample is None and module.time_embedding_norm != "scale_shift"
    )
    if pieces <= len(x) or not plain:
        return ways.by_rows(forward, pieces, x, temb, **kwargs)
    timed = temb if module.time_embedding_norm == "default" else None
    return ways.resnet_by_strips(module, -(-pieces // len(x)), x, timed)


def _by_rows(_module: Any, forward: Run, pieces: int, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    return ways.by_rows(forward, pieces, x, *args, **kwargs)


def _run_upsample(
    module: Any, forward: Run, pieces: int, x: Tensor, output_size: Any = None, *args: Any, **kwargs: Any
) -> Any:
    nearest = module.interpolate and module.norm is None and output_size is None and module.name == "conv"
    plain = (
        nearest and isinstance(getattr(module, "conv", None), nn.Conv2d) and module.conv.kernel_size == (3, 3)
    )
    if pieces <= len(x) or not plain:
        return ways.by_rows(forward, pieces, x, output_size, *args, **kwargs)
    return ways.upsample_by_strips(module, -(-pieces // len(x)), x)


def _run_spatio_temporal(module: Any, forward: Run, pieces: int, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    if len(module.transformer_blocks) != 1 or args or kwargs.pop("return_dict", True):
        return forward(x, *args, **kwargs)
    return ways.spatio_temporal_transformer(module, pieces, x, **kwargs)


def _run_temporal_transformer(
    module: Any, forward: Run, pieces: int, x: Tensor, num_frames: int = 1, **kwargs: Any
) -> Any:
    if kwargs.get("encoder_hidden_states") is not None or kwargs.get("return_dict", True):
        return forward(x, num_frames=num_frames, **kwargs)
    return ways.temporal_transformer(forward, module, pieces, x, num_frames, **kwargs)


def _attention_working(module: Any, x: Tensor) -> int:
    """A VAE's attention has one head as wide as its channels, for which there is no fused kernel: scores and weights, in fp32 each."""
    whole_picture = x.dim() == 4 and module.group_norm is not None and module.spatial_norm is None
    if not whole_picture or x.shape[1] // module.heads <= WIDEST_FUSED_HEAD:
        return 0
    return int(4 * len(x) * module.heads * (x.shape[2] * x.shape[3]) ** 2)


def _run_attention(module: Any, forward: Run, pieces: int, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    others = [value for value in (*args, *kwargs.values()) if value is not None]
    if others or module.norm_q is not None or module.norm_k is not None:
        return forward(x, *args, **kwargs)
    return ways.attention_by_queries(module, pieces, x)


def _rows(_module: Any, x: Tensor) -> int:
    return len(x)


def _rows_and_lines(_module: Any, x: Tensor) -> int:
    return len(x) * x.shape[-2]


RULES: Final[dict[str, Rule]] = {
    "ResnetBlock2D": Rule(_resnet_working, _run_resnet, _rows_and_lines, "rows_and_lines"),
    "Transformer2DModel": Rule(lambda _m, x: _FEED_FORWARD * x.numel(), _by_rows, _rows, "rows"),
    "Upsample2D": Rule(lambda _m, x: 8 * x.numel(), _run_upsample, _rows_and_lines, "rows_and_lines"),
    "TransformerTemporalModel": Rule(
        lambda m, x: _FEED_FORWARD * m.proj_in.out_features * (x.numel() // x.shape[1]),
        _run_temporal_transformer,
        _rows_and_lines,
        cut="each_pass",
    ),
    "TemporalConvLayer": Rule(
        lambda _m, x: 4 * x.numel(),
        lambda m, _f, pieces, x, num_frames=1: ways.temporal_conv(m, pieces, x, num_frames),
        _rows_and_lines,
        cut="each_pass",
    ),
    "TemporalResnetBlock": Rule(
        lambda _m, x: 4 * x.numel(),
        lambda m, _f, pieces, x, temb: ways.temporal_resnet(m, pieces, x, temb),
        lambda _m, x: len(x) * x.shape[3],
        cut="each_pass",
    ),
    "TransformerSpatioTemporalModel": Rule(
        lambda _m, x: (_FEED_FORWARD + 4) * x.numel(), _run_spatio_temporal, _rows, "rows"
    ),
    "Attention": Rule(
        _attention_working, _run_attention, lambda _m, x: x.shape[-2] * x.shape[-1] if x.dim() == 4 else 1
    ),
    "AlphaBlender": Rule(
        lambda _m, x: 3 * x.numel() if x.dim() == 5 else 0,
        lambda _m, f, pieces, x_spatial, x_temporal, **kwargs: ways.blend(
            f, pieces, x_spatial, x_temporal, **kwargs
        ),
        lambda _m, x: x.shape[3] if x.dim() == 5 else 1,
    ),
}
"""By class name. The working sets are counted from what each class computes; `farm calibrate` measures how right they are."""


def rule_of(module: nn.Module) -> Rule | None:
    """The rule for a module, by its class or one that its class is made from."""
    return next((RULES[cls.__name__] for cls in type(module).__mro__ if cls.__name__ in RULES), None)


def is_cut(module: nn.Module) -> bool:
    """Whether the module may run in pieces, so that its parts take turns."""
    return rule_of(module) is not None


def stream_groups(module: Any) -> list[tuple[nn.Module, ...]] | None:
    """For a layer whose pieces go through its parts one after the other: the groups that its weights can be streamed in."""
    if type(module).__name__ != "TransformerSpatioTemporalModel" or len(module.transformer_blocks) != 1:
        return None
    return [
        (module.norm, module.proj_in, module.time_pos_embed, module.transformer_blocks[0]),
        (module.temporal_transformer_blocks[0], module.time_mixer, module.proj_out),
    ]


def pieces_for(working_bytes: int, budget_bytes: int, most: int) -> int:
    """The fewest pieces of a layer that bring its working set within the budget; 1 when there is none, `most` when nothing does."""
    if budget_bytes <= 0 or working_bytes <= budget_bytes:
        return 1
    return max(1, min(most, -(-working_bytes // budget_bytes)))


class Chunking:
    """The pieces of one network. Made once; `budget_bytes` (0: everything whole) may change between passes."""

    def __init__(self, network: nn.Module) -> None:
        """Takes over the `forward` of every layer that a rule knows."""
        self.budget_bytes = 0
        self._modules = [module for module in network.modules() if is_cut(module)]
        for module in self._modules:
            self._take_over(module)

    def close(self) -> None:
        """Gives the layers their own `forward` back."""
        for module in self._modules:
            del module.forward
        self._modules = []

    def _take_over(self, module: nn.Module) -> None:
        rule = rule_of(module)
        assert rule is not None  # noqa: S101 - chosen above
        plain = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self.budget_bytes <= 0:
                return plain(*args, **kwargs)
            x = first_tensor(args, kwargs)
            working = rule.working(module, x) * x.element_size()
            pieces = pieces_for(working, self.budget_bytes, rule.most(module, x))
            if pieces == 1:
                return plain(*args, **kwargs)
            return rule.run(module, plain, pieces, *args, **kwargs)

        module.forward = forward


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The tensor that a layer is about: its first one."""
    values: Iterator[Any] = iter((*args, *kwargs.values()))
    return next(value for value in values if isinstance(value, Tensor))
