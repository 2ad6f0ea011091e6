"""Checkpoints of the full architectures with random weights, in the real layout: their values change neither memory nor time."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from node_agent.pipelines import i2vgen_xl, svd
from node_agent.pipelines.full_size import build_part
from tests import checkpoints as small

DEVICE = torch.device("cuda", 0)


def write_checkpoint(target: Path, model: str) -> None:
    """A checkpoint of the full architecture with random fp16 weights, in the real layout."""
    row = {"i2vgen-xl": small.write_small_i2vgen, "svd": small.write_small_svd}[model]
    row(target)  # tokenizer, configurations, index; its small weights are written over
    layout = {"i2vgen-xl": i2vgen_xl.LAYOUT, "svd": svd.LAYOUT}[model]
    for name in layout.weighted:
        module: Any = build_part(layout, name)
        old = json.loads((target / name / "config.json").read_text())
        module.config.save_pretrained(target / name) if hasattr(
            module.config, "save_pretrained"
        ) else module.save_config(target / name)
        kept = json.loads((target / name / "config.json").read_text())
        for key in ("force_upcast", "scaling_factor", "architectures", "model_type"):
            if key in old:
                kept[key] = old[key]
        (target / name / "config.json").write_text(json.dumps(kept))
        (file,) = (target / name).glob("*.safetensors")
        prefix = "text_model." if name == "text_encoder" else ""
        save_file(
            {prefix + key: value for key, value in _random(module).items()}, file, metadata={"format": "pt"}
        )


def _random(module: Any) -> dict[str, torch.Tensor]:
    made = torch.Generator(DEVICE).manual_seed(1)
    found = {}
    for key, tensor in module.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=made, device=DEVICE)
        scale = 0.6 / tensor[0].numel() ** 0.5 if tensor.dim() > 1 else 0.02
        if key == "conv_out.weight":
            scale *= 0.05  # what a denoiser says stays small, so that no latents overflow
        found[key] = (
            (noise * scale + (1.0 if tensor.dim() == 1 and key.endswith("weight") else 0.0)).half().cpu()
        )
    return found
