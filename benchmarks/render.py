"""Renders under the memory of small cards, measured on one GPU with full-size random weights: `python -m benchmarks.render [--out FILE]`.

The values of the weights change neither memory nor time. A card is emulated by what its allocator may reserve, a slow bus by making each
copy several times. Every row is a whole pipeline through the farm's own model, from the prompt to the last frame; only the number of
steps is small. The ratio is seconds per step over the same job with everything on the card, in the same run. Needs torch with CUDA,
diffusers and transformers; writes 10 GB of checkpoints into a temporary directory.
"""

import argparse
import gc
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import diffusers
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from farm.catalogue.models import builtin_models
from farm.model import Attempt, AttemptStatus, Card, CardKind, MemoryPlan, RenderSettings
from farm.planning.estimate import room_of, steps_and_rest
from farm.planning.learned import learn, lesson_of, seconds_taken
from farm.planning.memory import HELD, Room, peak_gib, step_seconds
from farm.planning.plans import best_plan
from node_agent.engine import allocator
from node_agent.pipelines import i2vgen_xl, svd
from node_agent.pipelines.base import RenderRequest, Unheard
from node_agent.pipelines.diffusion import model as where
from node_agent.pipelines.full_size import build_part
from tests import checkpoints as small

GIB, MIB = 1024**3, 1024**2
STEPS = 10
DEVICE = torch.device("cuda", 0)
I2VGEN = RenderSettings(
    "i2vgen-xl", 512, 512, 16, STEPS, 9.0, 8, seed=7, prompt="A person walking forward naturally"
)
SVD = RenderSettings("svd", 1024, 576, 14, STEPS, 3.0, 7, seed=7)
JOBS = {
    "i2vgen-xl 512x512x16": I2VGEN,
    "i2vgen-xl 1280x704x16": replace(I2VGEN, width=1280, height=704),
    "svd 1024x576x14": SVD,
    "svd-xt 1024x576x25": replace(SVD, model="svd-xt", frames=25),
}
MUST = (
    ("6 GB", "i2vgen-xl 512x512x16", 5.4, 1.03),
    ("6 GB", "i2vgen-xl 1280x704x16", 5.4, 1.05),
    ("4 GB", "i2vgen-xl 512x512x16", 3.4, 1.05),
    ("4 GB", "i2vgen-xl 1280x704x16", 3.4, 1.15),
    ("2 GB", "i2vgen-xl 512x512x16", 1.6, 1.25),
    ("4 GB", "svd 1024x576x14", 3.4, 1.20),
    ("6 GB", "svd-xt 1024x576x25", 5.4, 1.20),
)
HELD_BACK = (
    (replace(I2VGEN, width=768, height=768), 4.0),
    (replace(I2VGEN, width=640, height=448, frames=24), 3.4),
    (replace(I2VGEN, width=960, height=544, frames=12), 2.4),
    (replace(SVD, width=768, height=448), 3.0),
)
"""Sizes beside those that `farm calibrate` measures, each with a cap in GiB."""


def _job(model: str, width: int, height: int, frames: int, steps: int) -> RenderSettings:
    first = I2VGEN if model == "i2vgen-xl" else SVD
    return replace(first, model=model, width=width, height=height, frames=frames, steps=steps)


def _sizes(model: str, *found: tuple[int, int, int, float]) -> tuple[tuple[RenderSettings, float], ...]:
    return tuple((_job(model, w, h, f, 4), cap) for w, h, f, cap in found)


MORE_SIZES = (
    *_sizes("i2vgen-xl", (448, 320, 16, 1.8), (704, 704, 8, 3.4), (512, 896, 16, 5.4), (1024, 576, 16, 3.4)),
    *_sizes("i2vgen-xl", (640, 640, 16, 2.4), (640, 640, 32, 5.4), (384, 384, 24, 1.6), (832, 480, 20, 4.2)),
    *_sizes("i2vgen-xl", (512, 512, 40, 6.5), (1280, 704, 8, 2.2)),
    *_sizes("i2vgen-xl", (512, 512, 8, 1.3), (640, 384, 6, 1.8), (768, 512, 10, 2.0), (896, 512, 14, 3.4)),
    *_sizes("svd", (512, 512, 14, 3.0), (640, 384, 14, 2.0), (1024, 576, 8, 2.4), (576, 1024, 14, 4.4)),
    *_sizes("svd", (768, 576, 6, 2.4), (832, 448, 12, 3.0)),
    *_sizes("svd-xt", (768, 768, 20, 5.4), (960, 576, 25, 4.0), (704, 448, 25, 2.6), (1152, 640, 16, 4.8)),
)
"""The same again, of every shape and length, for the peaks alone: `--only sizes` measures them in a run of their own."""


TAUGHT = (
    (
        _job("i2vgen-xl", 512, 512, 16, 25), _job("i2vgen-xl", 1280, 704, 16, 25),
        _job("i2vgen-xl", 768, 768, 16, 20), _job("i2vgen-xl", 512, 512, 8, 30),
    ),
    (
        _job("svd", 768, 448, 14, 25), _job("svd", 1024, 576, 14, 25),
        _job("svd", 1280, 704, 14, 20), _job("svd", 512, 512, 14, 25),
    ),
)  # fmt: skip
"""Three renders of the first teach the card what the others will take: `--only learned`, whole renders, in a run of their own."""
LEARNED_CAP = 5.4


MORE = "more sizes"
"""What stands for the card in the rows of `MORE_SIZES`."""


class Note(Unheard):
    """A `Report` that keeps the seconds of steps and parts."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.retries: list[int] = []
        self.parts: dict[str, float] = {}
        self.reserved_gib = self.allocated_gib = 0.0
        self.parts_gib: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """See `Report`."""
        self.look("between")
        began = time.perf_counter()
        yield
        self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - began
        self.look(name)

    def look(self, name: str) -> None:
        """Takes down what the allocator handed out at most since the last look."""
        reserved, allocated = torch.cuda.max_memory_reserved() / GIB, torch.cuda.max_memory_allocated() / GIB
        self.reserved_gib, self.allocated_gib = (
            max(self.reserved_gib, reserved), max(self.allocated_gib, allocated)
        )  # fmt: skip
        self.parts_gib[name] = max(self.parts_gib.get(name, 0.0), allocated)
        torch.cuda.reset_peak_memory_stats()

    def step(self, done: int, total: int) -> None:
        """See `Report`."""
        del done, total
        torch.cuda.synchronize()
        self.steps.append(time.perf_counter())
        self.retries.append(torch.cuda.memory_stats()["num_alloc_retries"])

    def note(self, text: str) -> None:
        """See `Report`."""
        print(text, flush=True)

    @property
    def pace(self) -> float:
        """Seconds per step, without the first two: kernels load in one, the order of streaming is learned in it."""
        return statistics.median([b - a for a, b in pairwise(self.steps[1:])] or [math.nan])

    @property
    def retries_per_step(self) -> float:
        """How often a step made the allocator give back what it kept for later."""
        return (self.retries[-1] - self.retries[0]) / max(1, len(self.retries) - 1)


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


class Bench:
    """One GPU, two checkpoints, and what was measured."""

    def __init__(self, folder: Path) -> None:
        self.rows = {
            name: replace(row, source=str(folder / ("svd" if name != "i2vgen-xl" else name)), checkpoint={})
            for name, row in builtin_models().items()
            if row.memory is not None
        }
        self.picture = Image.fromarray(
            np.random.default_rng(3).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
        )
        self.bus = _bus_gb_s()
        self.scale = 1.0
        self.found: list[dict[str, Any]] = []
        self.frames: dict[str, np.ndarray[Any, Any]] = {}
        self.paces: dict[str, list[float]] = {}

    def render(
        self,
        settings: RenderSettings,
        plan: MemoryPlan,
        cap_gib: float | None,
        copies: int = 1,
    ) -> dict[str, Any]:
        """One render; its measurements and, under "frames", the clip."""
        row = self.rows[settings.model]
        model: Any = import_module(f"node_agent.pipelines.{row.pipeline}").open_model(row, "cuda:0")
        _clean()
        note = Note()
        real_hold = allocator.hold_to

        def held(device: torch.device, gib: float) -> None:
            """As on the card that is emulated: its memory ends at the cap."""
            if cap_gib is not None:
                real_hold(device, min(gib, cap_gib / HELD))

        where.hold_to = held  # type: ignore[attr-defined]
        try:
            if copies > 1:
                model.load(replace(plan, weights_on_card=1.0, ring_mib=0, parts="by_stage"), note)
                model._place.copies = copies
            began = time.perf_counter()
            frames = np.stack(list(model.render(RenderRequest(settings, self.picture, plan), note)))
            seconds = time.perf_counter() - began
            note.look("between")
            return {
                "step_s": note.pace,
                "total_s": seconds,
                "parts_s": note.parts,
                "parts_gib": note.parts_gib,
                "reserved_gib": note.reserved_gib,
                "allocated_gib": note.allocated_gib,
                "retries_per_step": note.retries_per_step,
                "rss_gib": _rss_gib(),
                "frames": frames,
            }
        finally:
            where.hold_to = real_hold  # type: ignore[attr-defined]
            model.unload()
            torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
            _clean()

    def resident(self, name: str) -> None:
        """The reference of a job: everything on the card, whole. Measured before and after the others: a card slows as it warms."""
        found = self.render(JOBS[name], MemoryPlan(), None)
        self.frames[name] = found.pop("frames")
        self.paces.setdefault(name, []).append(found["step_s"])
        self.keep(kind="resident", job=name, **found)

    def compare(self) -> None:
        """Sets each row's ratio to the mean of its reference."""
        for row in self.found:
            if row["kind"] == "planned" and row["job"] in self.paces and "step_s" in row:
                row["ratio"] = row["step_s"] / statistics.fmean(self.paces[row["job"]])

    def planned(self, card: str, name: str, settings: RenderSettings, cap: float, must: float | None) -> None:
        """A job under a cap, as the planner plans it."""
        row = self.rows[settings.model]
        room = Room(cap, bus_gb_s=self.bus, scale=self.scale)
        choice = best_plan(row, settings, room)
        if choice is None:
            self.keep(kind="planned", card=card, job=name, cap=cap, error="no plan fits")
            return
        found = self.render(settings, choice.plan, cap)
        frames = found.pop("frames")
        same = self.frames.get(name)
        self.keep(
            kind="planned", card=card, job=name, cap=cap, must=must, plan=_words(choice.plan),
            predicted_gib=choice.peak_gib, predicted_s=choice.step_s,
            largest_difference=None if same is None else int(np.abs(frames.astype(int) - same.astype(int)).max()),
            **found,
        )  # fmt: skip

    def slow(self, name: str, cap: float, bus_gb_s: float) -> None:
        """A job under a cap on a bus of about `bus_gb_s`, as the planner plans it for that bus."""
        settings = JOBS[name]
        bus = _bus_gb_s()  # now: a PC in a cloud shares its host's memory with others
        copies = round(bus / bus_gb_s)
        bus_gb_s = bus / copies
        room = Room(cap, bus_gb_s=bus_gb_s, scale=self.scale)
        choice = best_plan(self.rows[settings.model], settings, room)
        assert choice is not None
        found = self.render(settings, choice.plan, cap, copies=copies)
        found.pop("frames")
        self.keep(
            kind="slow",
            job=name,
            cap=cap,
            bus_gb_s=bus_gb_s,
            plan=_words(choice.plan),
            predicted_s=choice.step_s,
            **found,
        )

    def vae(self, settings: RenderSettings, decode: Literal["frame", "tiles"]) -> None:
        """What encoding and decoding take above the VAE's weights, per megapixel; two steps are enough."""
        found = self.render(replace(settings, steps=2), MemoryPlan("by_stage", decode=decode), None)
        found.pop("frames")
        megapixels = settings.width * settings.height / 1e6
        weights = self.rows[settings.model].memory
        assert weights is not None
        own = weights.parts_gib["vae"]
        self.keep(
            kind="vae", job=f"{settings.model} {settings.width}x{settings.height}", decode=decode,
            decode_gib_per_megapixel=(found["parts_gib"]["decode"] - own) / megapixels, **found,
        )  # fmt: skip

    def learned(self, first: RenderSettings, *others: RenderSettings) -> None:
        """What three renders of one size foretell of others, as the scheduler foretells it; and what those then took."""
        row, lessons = self.rows[first.model], []
        card = Card(
            "bench", "", CardKind.CUDA, torch.cuda.get_device_name(0).removeprefix("NVIDIA "), usable_gib=LEARNED_CAP,
            vram_gib=torch.cuda.get_device_properties(0).total_memory / GIB, bus_gb_s=self.bus,
            compute_capability=torch.cuda.get_device_capability(0),
        )  # fmt: skip
        for settings in (first, first, first, *others):
            choice = best_plan(row, settings, room_of(row, card, LEARNED_CAP))
            assert choice is not None
            learned = learn(lessons)
            foretold = steps_and_rest(row, card, settings, choice.plan)
            found = self.render(settings, choice.plan, LEARNED_CAP)
            attempt = Attempt(
                "A", "J", 1, "", card.id, card.name, AttemptStatus.FINISHED, 0.0,
                memory_plan=choice.plan, stage_seconds=found["parts_s"], peak_gib=found["reserved_gib"],
            )  # fmt: skip
            if settings is first:
                lessons.insert(0, lesson_of(attempt, settings, row, card))
            self.keep(
                kind="learned", job=_name(settings), steps=settings.steps, teaches=settings is first,
                catalogue_s=sum(foretold), foretold_s=learned.whole(*foretold), took_s=seconds_taken(found["parts_s"]),
                denoise_s=found["parts_s"]["denoise"], step_s=found["step_s"],
                predicted_gib=choice.peak_gib, reserved_gib=found["reserved_gib"],
            )  # fmt: skip

    def stock(self, strategy: str, cap: float | None) -> None:
        """The stock pipeline at 512x512x16 with one of its own ways to save memory."""
        _clean()
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        pipe: Any = diffusers.I2VGenXLPipeline.from_pretrained(
            self.rows["i2vgen-xl"].source, dtype=torch.float16, variant="fp16", local_files_only=True
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
        record: dict[str, Any] = {"kind": "stock", "strategy": strategy, "cap": cap}
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
                prompt=None, prompt_embeds=embeds, negative_prompt_embeds=embeds, image=self.picture, height=512, width=512,
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
            _clean()
        self.keep(**record)

    def keep(self, **record: Any) -> None:
        """Prints and keeps a row."""
        self.found.append(record)
        short = {
            k: round(v, 3) if isinstance(v, float) else v for k, v in record.items() if k not in ("parts_s",)
        }
        print(short, flush=True)


def _words(plan: MemoryPlan) -> str:
    return (
        f"{plan.parts}, {plan.weights_on_card:.0%} stay, ring {plan.ring_mib}, pieces {plan.piece_mib}, "
        f"{plan.guidance}, {plan.decode}"
    )


def _clean() -> None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def _rss_gib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    wanted = {"RssAnon:", "RssShmem:"}
    return sum(int(line.split()[1]) for line in lines if line.split()[0] in wanted) / 1024**2


def _bus_gb_s() -> float:
    host = torch.empty(256 * MIB, dtype=torch.uint8).pin_memory()
    card = torch.empty_like(host, device=DEVICE)
    times = []
    for _ in range(12):
        torch.cuda.synchronize()
        began = time.perf_counter()
        card.copy_(host, non_blocking=True)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return host.numel() / min(times) / 1e9


def main() -> None:
    """Runs everything; each part by itself may fail and is said."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("render.json"))
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        for name in ("i2vgen-xl", "svd"):
            write_checkpoint(Path(folder) / name, name)
        print(f"checkpoints written in {time.perf_counter() - began:.0f} s", flush=True)
        bench = Bench(Path(folder))
        facts = {
            "card": torch.cuda.get_device_name(0),
            "torch": torch.__version__,
            "bus_gb_s": bench.bus,
            "steps": STEPS,
        }
        print(facts, flush=True)
        parts: list[tuple[str, Callable[[], None]]] = [
            (f"resident {n}", lambda n=n: bench.resident(n)) for n in JOBS
        ]
        parts.append(("scale", lambda: _set_scale(bench)))
        parts += [("planned", lambda m=m: bench.planned(m[0], m[1], JOBS[m[1]], m[2], m[3])) for m in MUST]
        parts += [(f"resident {n}", lambda n=n: bench.resident(n)) for n in JOBS]
        parts += [
            ("held", lambda h=h: bench.planned("held back", _name(h[0]), h[0], h[1], None)) for h in HELD_BACK
        ]
        parts += [
            ("vae", lambda s=s, d=d: bench.vae(s, d))
            for s in (
                replace(I2VGEN, frames=4), replace(I2VGEN, width=1280, height=704, frames=4),
                replace(SVD, frames=4), replace(SVD, width=768, height=448, frames=4),
            )
            for d in ("frame", "tiles")
        ]  # fmt: skip
        parts += [
            ("slow", lambda b=b, j=j: bench.slow(j, 3.4, b)) for j in list(JOBS)[:2] for b in (3.0, 6.0)
        ]
        parts += [
            ("stock", lambda s=s, c=c: bench.stock(s, c))
            for s, c in (
                ("to(cuda)", None), ("enable_model_cpu_offload", 5.4), ("enable_model_cpu_offload", None),
                ("enable_group_offload, stream", 5.4), ("enable_group_offload, stream, record_stream", 5.4),
                ("enable_group_offload, stream, record_stream", 3.4), ("enable_sequential_cpu_offload", 3.4),
                ("enable_sequential_cpu_offload", 1.6),
            )
        ]  # fmt: skip
        if asked.only:
            parts += [
                ("sizes", lambda h=h: bench.planned(MORE, _name(h[0]), h[0], h[1], None)) for h in MORE_SIZES
            ]
            parts += [("learned", lambda t=t: bench.learned(*t)) for t in TAUGHT]
        for name, part in parts:
            if asked.only and not any(
                name.startswith(word) for word in (*asked.only.split(","), "resident", "scale")
            ):
                continue
            try:
                part()
            except Exception as error:  # noqa: BLE001 - the other rows are still wanted
                bench.keep(kind=name, error=f"{type(error).__name__}: {error}"[:300])
                _clean()
            bench.compare()
            asked.out.write_text(json.dumps({**facts, "rows": bench.found}, indent=1))


def _name(settings: RenderSettings) -> str:
    return f"{settings.model} {settings.width}x{settings.height}x{settings.frames}"


def _set_scale(bench: Bench) -> None:
    """This card's speed against the one that the networks were measured on: the scale at which the law gives its pace."""
    name = next(iter(JOBS))
    settings = JOBS[name]
    row, low, high = bench.rows[settings.model], 0.01, 1000.0
    for _ in range(50):
        bench.scale = math.sqrt(low * high)
        slower = step_seconds(row, settings, MemoryPlan(), Room(99, scale=bench.scale)) > bench.paces[name][0]
        low, high = (low, bench.scale) if slower else (bench.scale, high)
    bench.keep(kind="scale", scale=bench.scale, peak_gib=peak_gib(row, settings, MemoryPlan()))


if __name__ == "__main__":
    main()
