"""Writes small checkpoints with random weights, of the classes and in the file layout of the real ones.

The small I2VGen-XL has every tensor name, part, configuration and file of `ali-vilab/i2vgen-xl`, the small SVD
those of `stabilityai/stable-video-diffusion-img2vid` (variant fp16). Only widths shrink, so that they take a few MB
and render 64x64 on a CPU. Torch is imported inside the functions: who only wants `small_row_toml` does without it.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node_agent.pipelines.published import CLIP_H_IMAGE, CLIP_H_TEXT, SD_VAE, SVD_VAE

UNET_SMALL: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (8, 16, 32, 32),
    "norm_num_groups": 4,
    "cross_attention_dim": 32,
    "attention_head_dim": 8,
}

VAE_SMALL: dict[str, Any] = {
    **SD_VAE,
    "block_out_channels": (8, 16, 32, 32),
    "norm_num_groups": 4,
    "sample_size": 64,
}

TEXT_SMALL: dict[str, Any] = {
    **CLIP_H_TEXT,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "projection_dim": 32,
}

IMAGE_SMALL: dict[str, Any] = {
    **CLIP_H_IMAGE,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "projection_dim": 32,
}

SVD_UNET_SMALL: dict[str, Any] = {
    "num_frames": 14,
    "sample_size": 8,
    "block_out_channels": (32, 64, 96, 96),
    "num_attention_heads": (2, 4, 4, 4),
    "cross_attention_dim": 32,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 24,
}
"""The class has groups of 32 channels built in."""

SVD_VAE_SMALL: dict[str, Any] = {**SVD_VAE, "block_out_channels": (32, 64, 96, 96), "sample_size": 64}

SVD_SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "prediction_type": "v_prediction",
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}

SVD_MODEL_INDEX: dict[str, Any] = {
    "_class_name": "StableVideoDiffusionPipeline",
    "_diffusers_version": "0.24.0.dev0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}

MODEL_INDEX: dict[str, Any] = {
    "_class_name": "I2VGenXLPipeline",
    "_diffusers_version": "0.26.0.dev0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "I2VGenXLUNet"],
    "vae": ["diffusers", "AutoencoderKL"],
}

_FEATURE_EXTRACTOR: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}

_SPECIAL_TOKENS = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
}

_MERGES = ["t h", "th e</w>", "a n", "an d</w>", "i n", "in g</w>", "w a", "l k", "wa lk"]


def small_i2vgen(cache: Path) -> Path:
    """The small I2VGen-XL checkpoint under `cache`, written at the first call and found again at the next."""
    return _once(cache / "i2vgen-xl-small", write_small_i2vgen)


def small_svd(cache: Path) -> Path:
    """The small SVD checkpoint under `cache`, written at the first call and found again at the next."""
    return _once(cache / "svd-small", write_small_svd)


def _once(target: Path, write: Callable[[Path], Path]) -> Path:
    if not target.exists():
        unfinished = target.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        write(unfinished).rename(target)
    return target


def write_small_i2vgen(target: Path, seed: int = 0) -> Path:
    """Writes the small I2VGen-XL checkpoint into the directory `target`, which it makes, and returns it."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, I2VGenXLUNet
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    target.mkdir(parents=True)
    vocabulary = _write_tokenizer(target / "tokenizer")
    text_config = CLIPTextConfig(
        **{**TEXT_SMALL, "vocab_size": len(vocabulary)},
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    with torch.random.fork_rng(devices=[]), _silent():
        torch.manual_seed(seed)
        parts: dict[str, Any] = {
            "unet": I2VGenXLUNet(**UNET_SMALL),
            "vae": AutoencoderKL(**VAE_SMALL),
            "text_encoder": CLIPTextModel(text_config),
            "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_SMALL)),
        }
        _save(parts, target)
    _prefix_tensor_names(target / "text_encoder" / "model.fp16.safetensors", "text_model.")
    scheduler: Any = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
        clip_sample=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="v_prediction",
    )
    scheduler.save_pretrained(target / "scheduler")
    _write_json(target / "feature_extractor" / "preprocessor_config.json", _FEATURE_EXTRACTOR)
    _write_json(target / "model_index.json", MODEL_INDEX)
    return target


def write_small_svd(target: Path, seed: int = 0) -> Path:
    """Writes the small SVD checkpoint into the directory `target`, which it makes, and returns it."""
    import torch
    from diffusers import (
        AutoencoderKLTemporalDecoder,
        EulerDiscreteScheduler,
        UNetSpatioTemporalConditionModel,
    )
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    target.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]), _silent():
        torch.manual_seed(seed)
        _save(
            {
                "unet": UNetSpatioTemporalConditionModel(**SVD_UNET_SMALL),
                "vae": AutoencoderKLTemporalDecoder(**SVD_VAE_SMALL),
                "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_SMALL)),
            },
            target,
        )
    scheduler: Any = EulerDiscreteScheduler(**SVD_SCHEDULER)
    scheduler.save_pretrained(target / "scheduler")
    _write_json(target / "feature_extractor" / "preprocessor_config.json", _FEATURE_EXTRACTOR)
    _write_json(target / "model_index.json", SVD_MODEL_INDEX)
    return target


T5_SMALL: dict[str, Any] = {
    "vocab_size": 100,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 3,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
"""google/t5-v1_1-xxl's shape, which LTX reads prompts with; google/umt5-xxl, which Wan does, differs in more position tables."""


def write_small_t5(target: Path, kind: str, seed: int = 0) -> Path:
    """Writes a small `T5EncoderModel` or `UMT5EncoderModel` in shards, as transformers does with large ones, and returns `target`."""
    import torch
    import transformers

    config = getattr(transformers, kind.replace("EncoderModel", "Config"))(**T5_SMALL)
    with torch.random.fork_rng(devices=[]), _silent():
        torch.manual_seed(seed)
        part = getattr(transformers, kind)(config)
        _leave_no_weight_at_rest(part)
        part.half().save_pretrained(target, variant="fp16", max_shard_size="16KB")
    return target


def _save(parts: dict[str, Any], target: Path) -> None:
    for name, part in parts.items():
        _leave_no_weight_at_rest(part)
        part.half().save_pretrained(target / name, variant="fp16", safe_serialization=True)


def small_row_toml(name: str, directory: Path, pipeline: str = "i2vgen_xl") -> str:
    """A row in the shape of `farm/catalogue/models.toml` for a small checkpoint in `directory`."""
    title, multiple = {"i2vgen_xl": ("I2VGen-XL", 8), "svd": ("Stable Video Diffusion", 64)}[pipeline]
    return f"""\
[{name}]
title = "{title}, small random weights"
pipeline = "{pipeline}"
source = {json.dumps(str(directory))}
licence = "Apache-2.0 (generated)"
draft = false
devices = ["cpu", "cuda"]
tensor_needed = true

[{name}.limits]
multiple = {multiple}
min_side = 64
max_side = 256
max_pixels = 65536
max_frames = 16
max_steps = 50

[{name}.time]
fixed_s = 5.0
cpu_s_per_frame_megapixel = 30.0
"""


def _leave_no_weight_at_rest(part: Any) -> None:
    """Moves every weight off its start: a zero or a one would hide a tensor that is not loaded."""
    import torch

    with torch.no_grad():
        for tensor in part.parameters():
            tensor.add_(torch.randn_like(tensor) * 0.05)


def _prefix_tensor_names(file: Path, prefix: str) -> None:
    """Gives the tensors the real file's names: transformers 5 no longer writes the text model's own prefix."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(file)
    named = {name if name.startswith(prefix) else prefix + name: tensor for name, tensor in tensors.items()}
    save_file(named, file, metadata={"format": "pt"})


def _write_tokenizer(directory: Path) -> dict[str, int]:
    """Writes a byte-level BPE in CLIP's files: any text gives tokens; returns the vocabulary."""
    directory.mkdir()
    letters = _byte_letters()
    merged = ["".join(merge.split()) for merge in _MERGES]
    words = [*letters, *(letter + "</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    _write_json(directory / "vocab.json", vocabulary)
    (directory / "merges.txt").write_text("#version: 0.2\n" + "\n".join(_MERGES) + "\n")
    _write_json(directory / "special_tokens_map.json", _SPECIAL_TOKENS)
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        **_SPECIAL_TOKENS,
    }
    _write_json(directory / "tokenizer_config.json", config)
    return vocabulary


def _byte_letters() -> list[str]:
    """The 256 printable letters that byte-level BPE writes for the bytes 0 to 255 (GPT-2's table)."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]


def _write_json(file: Path, value: object) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _silent() -> Iterator[None]:
    """No progress bars of transformers while it writes."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()
