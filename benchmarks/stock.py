"""diffusers' own I2VGen-XL pipeline with its own ways to save memory, for `benchmarks.render` to hold the farm's against."""

import statistics
import time
from itertools import pairwise
from typing import Any

import diffusers
import torch
from PIL import Image

from benchmarks.random_weights import DEVICE
from benchmarks.render_jobs import STEPS

GIB = 1024**3


def stock(source: str, picture: Image.Image, strategy: str, cap: float | None) -> dict[str, float | str]:
    """The checkpoint at `source` at 512x512x16, with one of the pipeline's own ways to save memory, in `cap` GiB: its pace and peak."""
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    pipe: Any = diffusers.I2VGenXLPipeline.from_pretrained(
        source, dtype=torch.float16, variant="fp16", local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.vae.enable_slicing()
    times: list[float] = []
    step = pipe.scheduler.step

    def timed(*args: Any, **kwargs: Any) -> Any:
        torch.cuda.synchronize()
        times.append(time.perf_counter())
        return step(*args, **kwargs)

    pipe.scheduler.step = timed
    if cap is not None:
        torch.cuda.set_per_process_memory_fraction(cap * GIB / total, DEVICE)
    shape = (1, 77, 1024)
    embeds = torch.randn(shape, dtype=torch.float16, device=DEVICE)
    record: dict[str, float | str] = {}
    try:
        if strategy == "to(cuda)":
            pipe.to("cuda")
        elif strategy == "enable_model_cpu_offload":
            pipe.enable_model_cpu_offload()
        elif strategy == "enable_sequential_cpu_offload":
            pipe.enable_sequential_cpu_offload()
        else:
            for part in ("vae", "image_encoder"):
                diffusers.hooks.apply_group_offloading(
                    getattr(pipe, part), onload_device=DEVICE, offload_type="leaf_level", use_stream=True
                )
            pipe.unet.enable_group_offload(
                onload_device=DEVICE, offload_device=torch.device("cpu"), offload_type="leaf_level",
                use_stream=True, record_stream="record" in strategy,
            )  # fmt: skip
        torch.cuda.reset_peak_memory_stats()
        pipe(
            prompt=None, prompt_embeds=embeds, negative_prompt_embeds=embeds, image=picture, height=512, width=512,
            num_frames=16, num_inference_steps=STEPS, guidance_scale=9.0, target_fps=8, decode_chunk_size=1,
            output_type="np", generator=torch.Generator().manual_seed(7),
        )  # fmt: skip
        record["step_s"] = statistics.median(b - a for a, b in pairwise(times[1:]))
        record["reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
    except torch.OutOfMemoryError:
        record["error"] = "out of memory"
    except Exception as error:  # noqa: BLE001 - a way that fails is a row too
        record["error"] = f"{type(error).__name__}: {error}"[:160]
    finally:
        del pipe
        torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    return record
