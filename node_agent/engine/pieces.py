"""Ways to run a layer in pieces that give what the whole layer gives. Each takes the layer's own `forward` or its submodules.

Three shapes of independence cover the networks of video diffusion: rows of the batch (frames) in spatial layers, strips of the picture with
their neighbouring rows in convolutions, and strips of the picture in layers that look along time. Where a group norm spans more
than a piece, its statistics are measured first (`norms`). Differences are those of rounding: another order of sums, another kernel.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from node_agent.engine.norms import Scaling, given, measure

Forward = Callable[..., Any]


def spans(length: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Cuts `length` into at most `pieces` spans of nearly equal length."""
    step = -(-length // max(1, pieces))
    return ((start, min(start + step, length)) for start in range(0, length, step))


def by_rows(forward: Forward, pieces: int, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Runs `forward` on rows of `x` `[n, ...]`; arguments with `n` rows are cut along. Gives a tensor, or a tuple with one."""
    rows = len(x)
    out: Tensor | None = None
    in_tuple = False
    for start, end in spans(rows, pieces):

        def cut(value: Any, start: int = start, end: int = end) -> Any:
            return (
                value[start:end]
                if isinstance(value, Tensor) and value.dim() and len(value) == rows
                else value
            )

        given_back = forward(
            x[start:end], *map(cut, args), **{key: cut(value) for key, value in kwargs.items()}
        )
        in_tuple = isinstance(given_back, tuple)
        piece: Tensor = given_back[0] if in_tuple else given_back
        if out is None:
            out = piece.new_empty((rows, *piece.shape[1:]))
        out[start:end] = piece
    assert out is not None  # noqa: S101 - a batch has rows
    return (out,) if in_tuple else out


def resnet_by_strips(block: Any, pieces: int, x: Tensor, temb: Tensor | None) -> Tensor:
    """A `ResnetBlock2D` (or what has its fields) on strips of the picture; `x` `[n, c, h, w]`, sample after sample."""
    out: Tensor | None = None
    for number in range(len(x)):
        one = x[number : number + 1]
        added = None
        if temb is not None and block.time_emb_proj is not None:
            row = temb[number : number + 1]
            added = block.time_emb_proj(row if block.skip_time_act else block.nonlinearity(row))[
                :, :, None, None
            ]
        middle = _norm_act_conv(block.norm1, block.nonlinearity, block.conv1, one, pieces, added)
        if out is None:
            out = middle.new_empty((len(x), *middle.shape[1:]))
        scaling = measure(block.norm2, middle, pieces)
        for start, end in spans(one.shape[2], pieces):
            strip = _conv_strip(block.norm2, scaling, block.nonlinearity, block.conv2, middle, start, end)
            short = one[:, :, start:end]
            if block.conv_shortcut is not None:
                short = block.conv_shortcut(short)
            out[number : number + 1, :, start:end] = (short + strip) / block.output_scale_factor
    assert out is not None  # noqa: S101 - a batch has rows
    return out


def _norm_act_conv(
    norm: nn.GroupNorm, act: Forward, conv: nn.Conv2d, x: Tensor, pieces: int, added: Tensor | None
) -> Tensor:
    scaling = measure(norm, x, pieces)
    out = x.new_empty((len(x), conv.out_channels, *x.shape[2:]))
    for start, end in spans(x.shape[2], pieces):
        strip = _conv_strip(norm, scaling, act, conv, x, start, end)
        out[:, :, start:end] = strip if added is None else strip + added
    return out


def _conv_strip(
    norm: nn.GroupNorm, scaling: Scaling, act: Forward, conv: nn.Conv2d, x: Tensor, start: int, end: int
) -> Tensor:
    """Rows `start` to `end` of `conv(act(norm(x)))`, for a convolution of stride 1 that keeps the size."""
    reach = conv.padding[0] if isinstance(conv.padding, tuple) else 0
    low, high = max(0, start - reach), min(x.shape[2], end + reach)
    with given(norm, scaling):
        lit = act(norm(x[:, :, low:high]))
    # Zeros stand only outside the picture; within, the strip brings its neighbours along.
    lit = functional.pad(lit, (0, 0, reach - (start - low), reach - (high - end)))
    return functional.conv2d(
        lit, conv.weight, conv.bias, padding=(0, conv.padding[1] if isinstance(conv.padding, tuple) else 0)
    )


def upsample_by_strips(module: Any, pieces: int, x: Tensor) -> Tensor:
    """A nearest-neighbour `Upsample2D` by two with its convolution, on strips of the picture; `x` `[n, c, h, w]`."""
    conv: nn.Conv2d = module.conv
    out = x.new_empty((len(x), conv.out_channels, 2 * x.shape[2], 2 * x.shape[3]))
    for number in range(len(x)):
        one = x[number : number + 1]
        for start, end in spans(x.shape[2], pieces):
            low, high = max(0, start - 1), min(x.shape[2], end + 1)
            wide = functional.interpolate(one[:, :, low:high], scale_factor=2.0, mode="nearest")
            wide = functional.pad(wide, (0, 0, int(low == start), int(high == end)))
            first = 2 * (start - low) - 1 + int(low == start)
            wide = wide[:, :, first : first + 2 * (end - start) + 2]
            out[number : number + 1, :, 2 * start : 2 * end] = functional.conv2d(
                wide, conv.weight, conv.bias, padding=(0, 1)
            )
    return out


def attention_by_queries(module: Any, pieces: int, x: Tensor) -> Tensor:
    """A self-`Attention` over all places of a picture `[n, c, h, w]`, some of the queries at a time: each sees all keys, as ever."""
    batch, channels, height, width = x.shape
    tokens = module.group_norm(x.view(batch, channels, height * width)).transpose(1, 2)
    heads = module.heads

    def split(projected: Tensor) -> Tensor:
        return projected.view(batch, projected.shape[1], heads, -1).transpose(1, 2)

    key, value = split(module.to_k(tokens)), split(module.to_v(tokens))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    flat, residual = out.view(batch, channels, -1), x.reshape(batch, channels, -1)
    for start, end in spans(height * width, pieces):
        seen = functional.scaled_dot_product_attention(split(module.to_q(tokens[:, start:end])), key, value)
        seen = module.to_out[0](seen.transpose(1, 2).reshape(batch, end - start, -1)).transpose(1, 2)
        if module.residual_connection:
            seen = seen + residual[:, :, start:end]
        flat[:, :, start:end] = seen / module.rescale_output_factor
    return out


def temporal_conv(layer: Any, pieces: int, x: Tensor, num_frames: int) -> Tensor:
    """A `TemporalConvLayer`: four times norm, activation and convolution along time, then added to its input `[b*f, c, h, w]`."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    stages = (layer.conv1, layer.conv2, layer.conv3, layer.conv4)
    batch = len(x) // num_frames
    strips = -(-pieces // batch)
    for number in range(batch):
        frames = slice(number * num_frames, (number + 1) * num_frames)
        clip = x[frames]  # [f, c, h, w]
        current = clip
        spare: Tensor | None = None
        for index, stage in enumerate(stages):
            norm = stage[0]
            scaling = measure(norm, current, strips)
            target = out[frames] if index == len(stages) - 1 else spare
            channels = stage[-1].out_channels
            if target is None or target.shape[1] != channels:
                target = current.new_empty((num_frames, channels, *current.shape[2:]))
            for start, end in spans(x.shape[2], strips):
                with given(norm, scaling):
                    strip = stage(current[:, :, start:end].transpose(0, 1)[None])[0].transpose(0, 1)
                target[:, :, start:end] = strip + clip[:, :, start:end] if index == len(stages) - 1 else strip
            spare = current if current is not clip else None
            current = target
    return out


def temporal_resnet(block: Any, pieces: int, x: Tensor, temb: Tensor | None) -> Tensor:
    """A `TemporalResnetBlock`: `x` `[b, c, f, h, w]`, `temb` `[b, f, e]`."""
    out: Tensor | None = None
    strips = -(-pieces // len(x))
    for number in range(len(x)):
        clip = x[number].transpose(0, 1)  # [f, c, h, w]
        added = None
        if temb is not None and block.time_emb_proj is not None:
            added = block.time_emb_proj(block.nonlinearity(temb[number]))[:, :, None, None]
        middle = clip.new_empty((len(clip), block.out_channels, *clip.shape[2:]))
        scaling = measure(block.norm1, clip, strips)
        for start, end in spans(clip.shape[2], strips):
            strip = _along_time(block.norm1, scaling, block.nonlinearity, block.conv1, clip[:, :, start:end])
            middle[:, :, start:end] = strip if added is None else strip + added
        if out is None:
            out = middle.new_empty((len(x), len(clip), *middle.shape[1:])).transpose(1, 2)
        scaling = measure(block.norm2, middle, strips)
        for start, end in spans(clip.shape[2], strips):
            strip = _along_time(
                block.norm2, scaling, block.nonlinearity, block.conv2, middle[:, :, start:end]
            )
            short = clip[:, :, start:end]
            if block.conv_shortcut is not None:
                short = block.conv_shortcut(short.transpose(0, 1)[None])[0].transpose(0, 1)
            out[number, :, :, start:end] = (short + strip).transpose(0, 1)
    assert out is not None  # noqa: S101 - a batch has rows
    return out


def _along_time(norm: nn.GroupNorm, scaling: Scaling, act: Forward, conv: nn.Conv3d, part: Tensor) -> Tensor:
    """`conv(act(norm(part)))` for frames `[f, c, h, w]` and a convolution that looks along time only."""
    with given(norm, scaling):
        lit = act(norm(part))
    found: Tensor = conv(lit.transpose(0, 1)[None])[0].transpose(0, 1)
    return found


def temporal_transformer(
    forward: Forward, module: Any, pieces: int, x: Tensor, num_frames: int, **kwargs: Any
) -> Any:
    """A `TransformerTemporalModel`, which looks along time at each place: strips of the picture, `x` `[b*f, c, h, w]`."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    batch = len(x) // num_frames
    strips = -(-pieces // batch)
    kwargs = {**kwargs, "return_dict": False}
    for number in range(batch):
        frames = slice(number * num_frames, (number + 1) * num_frames)
        scaling = measure(module.norm, x[frames], strips)
        with given(module.norm, scaling):
            for start, end in spans(x.shape[2], strips):
                out[frames, :, start:end] = forward(x[frames, :, start:end], num_frames=num_frames, **kwargs)[
                    0
                ]
    return (out,)


def spatio_temporal_transformer(
    module: Any, pieces: int, x: Tensor, encoder_hidden_states: Tensor, image_only_indicator: Tensor
) -> tuple[Tensor]:
    """A `TransformerSpatioTemporalModel` with one block of each kind: frame by frame, then strip by strip; `x` `[b*f, c, h, w]`."""
    rows, _, height, width = x.shape
    num_frames = image_only_indicator.shape[-1]
    batch = rows // num_frames
    inner = module.proj_in.out_features
    spatial, temporal = module.transformer_blocks[0], module.temporal_transformer_blocks[0]
    numbers = torch.arange(num_frames, device=x.device)
    place = module.time_pos_embed(module.time_proj(numbers).to(x.dtype))[:, None]  # [f, 1, inner]
    tokens = x.new_empty((rows, height * width, inner))
    for start, end in spans(rows, pieces):
        part = module.norm(x[start:end]).permute(0, 2, 3, 1).reshape(end - start, height * width, -1)
        tokens[start:end] = spatial(
            module.proj_in(part), encoder_hidden_states=encoder_hidden_states[start:end]
        )
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    strips = -(-pieces // batch)
    for number in range(batch):
        frames = slice(number * num_frames, (number + 1) * num_frames)
        context = encoder_hidden_states[number * num_frames]  # of the first frame, for every place
        for start, end in spans(height, strips):
            part = tokens[frames, start * width : end * width]
            mixed = temporal(
                part + place,
                num_frames=num_frames,
                encoder_hidden_states=context[None].expand(part.shape[1], -1, -1),
            )
            mixed = module.time_mixer(
                x_spatial=part,
                x_temporal=mixed,
                image_only_indicator=image_only_indicator[number : number + 1],
            )
            mixed = module.proj_out(mixed).reshape(num_frames, end - start, width, -1).permute(0, 3, 1, 2)
            out[frames, :, start:end] = mixed + x[frames, :, start:end]
    return (out,)


def blend(forward: Forward, pieces: int, x_spatial: Tensor, x_temporal: Tensor, **kwargs: Any) -> Tensor:
    """An `AlphaBlender` on `[b, c, f, h, w]`: strips of the picture. The result takes the place of `x_temporal`, which is done with."""
    for start, end in spans(x_spatial.shape[3], pieces):
        part = (slice(None), slice(None), slice(None), slice(start, end))
        x_temporal[part] = forward(x_spatial=x_spatial[part], x_temporal=x_temporal[part], **kwargs)
    return x_temporal
