"""Configurations of parts that several models share, as their checkpoints' `config.json` have them; facts, no weights.

They are what the classes in diffusers and transformers are made with; where a class's defaults are the published configuration, as of the
denoisers here, nothing needs to be said.
"""

from collections.abc import Mapping
from typing import Any, Final

CLIP_H_TEXT: Final[Mapping[str, Any]] = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 77,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}
"""The text side of laion/CLIP-ViT-H-14-laion2B-s32B-b79K."""

CLIP_H_IMAGE: Final[Mapping[str, Any]] = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 224,
    "projection_dim": 1024,
    "hidden_act": "gelu",
}
"""The picture side of laion/CLIP-ViT-H-14-laion2B-s32B-b79K."""

SD_VAE: Final[Mapping[str, Any]] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
}
"""The VAE of Stable Diffusion 2.1, which I2VGen-XL uses unchanged."""

SVD_VAE: Final[Mapping[str, Any]] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
    "force_upcast": True,
}
"""The same with layers that look along time in its decoder."""
