"""Small networks of the real classes with random weights and inputs for them: what the engine is tested on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.checkpoints import UNET_SMALL, VAE_SMALL

SVD_SMALL: dict[str, Any] = {
    "block_out_channels": (32, 64, 64, 64),
    "num_attention_heads": (2, 4, 4, 4),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
}
TEMPORAL_VAE_SMALL: dict[str, Any] = {
    "block_out_channels": (32, 32, 64, 64),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
}


@dataclass
class Case:
    """A network to be made, and a call of it that gives one tensor."""

    name: str
    make: Callable[[], Any]
    call: Callable[[Any], Any]


def cases(dtype: Any) -> dict[str, Case]:
    """One case per kind of network, with inputs in `dtype`."""
    import torch
    from diffusers import (
        AutoencoderKL,
        AutoencoderKLTemporalDecoder,
        I2VGenXLUNet,
        UNetSpatioTemporalConditionModel,
    )

    made = torch.Generator().manual_seed(1)

    def noise(*shape: int) -> Any:
        return torch.randn(*shape, generator=made).to(dtype)

    frames, high, wide = 3, 16, 8
    sample, first = noise(2, 4, frames, high, wide), noise(2, 4, frames, high, wide)
    seen, prompt = noise(2, 1, 32), noise(2, 77, 32)
    clip, added = noise(2, 3, 8, high, wide), torch.tensor([[6.0, 127.0, 0.02]] * 2, dtype=dtype)
    latent, window, picture = noise(1, 4, 8, 4), noise(3, 4, 8, 4), noise(1, 3, 64, 32)
    found = [
        Case(
            "i2vgen-xl",
            lambda: I2VGenXLUNet(**UNET_SMALL),
            lambda net: net(
                sample, torch.tensor(500), fps=torch.tensor([8, 8]), image_latents=first, image_embeddings=seen,
                encoder_hidden_states=prompt, return_dict=False,
            )[0],
        ),
        Case(
            "svd",
            lambda: UNetSpatioTemporalConditionModel(**SVD_SMALL),
            lambda net: net(
                clip, torch.tensor(1.5), encoder_hidden_states=seen, added_time_ids=added, return_dict=False
            )[0],
        ),
        Case("vae-decode", lambda: AutoencoderKL(**VAE_SMALL), lambda net: net.decode(latent).sample),
        Case("vae-encode", lambda: AutoencoderKL(**VAE_SMALL), lambda net: net.encode(picture).latent_dist.mean),
        Case(
            "svd-vae",
            lambda: AutoencoderKLTemporalDecoder(**TEMPORAL_VAE_SMALL),
            lambda net: net.decode(window, num_frames=3).sample,
        ),
    ]  # fmt: skip
    return {case.name: case for case in found}


def with_weights(case: Case, dtype: Any, seed: int = 0) -> Any:
    """The network of a case with random weights, none at a value that would hide a tensor left out; all are fp16 numbers."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = case.make()
        with torch.no_grad():
            for tensor in net.parameters():
                tensor.add_(torch.randn_like(tensor) * 0.05)
                tensor.copy_(tensor.half())
    return net.to(dtype).eval()
