"""Group normalisation of a tensor that is never normalised whole: first its statistics in pieces, then any part with them.

The mathematics of `nn.GroupNorm`; the sums run in another order, in single precision at least.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Scaling:
    """What a group norm does to one sample: each channel times `scale`, plus `shift`; both `[channels]` in single precision."""

    scale: Tensor
    shift: Tensor

    def apply(self, part: Tensor) -> Tensor:
        """Normalises a part of the sample `[1, channels, ...]`, or `[n, channels, ...]` of the same sample."""
        shape = (1, -1) + (1,) * (part.dim() - 2)
        out = torch.empty_like(part, memory_format=torch.contiguous_format)
        return torch.addcmul(self.shift.view(shape), part, self.scale.view(shape), out=out)


def measure(norm: nn.GroupNorm, sample: Tensor, pieces: int) -> Scaling:
    """The scaling for one sample, `[m, channels, ...]` whose `m` parts (frames) belong to one sample; `pieces` at least 1.

    Read part after part, so that the copy in single precision stays small: some frames at a time, and of few frames some groups.
    """
    channels = sample.shape[1]
    groups = norm.num_groups
    means, variances = [], []
    at_once = -(-groups // max(1, -(-pieces // len(sample))))
    for piece in _rows(sample, pieces):
        wide = torch.promote_types(piece.dtype, torch.float32)
        grouped = piece.reshape(len(piece), groups, -1)
        parts = [
            torch.var_mean(some.to(wide), dim=-1, correction=0)
            for some in torch.split(grouped, at_once, dim=1)
        ]
        variances.append(torch.cat([variance for variance, _ in parts], dim=1))
        means.append(torch.cat([mean for _, mean in parts], dim=1))
    every_mean, every_variance = torch.cat(means), torch.cat(variances)  # [parts, groups], of equal counts
    mean = every_mean.mean(0)
    variance = every_variance.mean(0) + (every_mean - mean).square().mean(0)
    inverse = torch.rsqrt(variance + norm.eps).repeat_interleave(channels // groups)
    weight = inverse.new_ones(channels) if norm.weight is None else norm.weight.to(inverse.dtype)
    bias = inverse.new_zeros(channels) if norm.bias is None else norm.bias.to(inverse.dtype)
    scale = weight * inverse
    return Scaling(scale, bias - scale * mean.repeat_interleave(channels // groups))


@contextmanager
def given(norm: nn.GroupNorm, scaling: Scaling) -> Iterator[None]:
    """Within, `norm` applies `scaling` to whatever part of the sample it is given."""
    vars(norm)["forward"] = scaling.apply
    try:
        yield
    finally:
        del vars(norm)["forward"]


def _rows(sample: Tensor, pieces: int) -> Iterator[Tensor]:
    step = max(1, -(-len(sample) // pieces))
    return (sample[start : start + step] for start in range(0, len(sample), step))
