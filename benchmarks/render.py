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

import numpy as np
import torch
from PIL import Image

from benchmarks.random_weights import DEVICE, write_checkpoint
from benchmarks.render_jobs import (
    HELD_BACK,
    I2VGEN,
    JOBS,
    LEARNED_CAP,
    MORE,
    MORE_SIZES,
    MUST,
    STEPS,
    SVD,
    TAUGHT,
    name_of,
)
from benchmarks.stock import stock
from farm.catalogue.models import builtin_models
from farm.model import Attempt, AttemptStatus, Card, CardKind, MemoryPlan, RenderSettings
from farm.planning.estimate import room_of, steps_and_rest
from farm.planning.learned import learn, lesson_of, seconds_taken
from farm.planning.memory import HELD, Room, peak_gib, step_seconds
from farm.planning.plans import best_plan
from node_agent.engine import allocator
from node_agent.pipelines.base import RenderRequest, Unheard
from node_agent.pipelines.diffusion import model as where

GIB, MIB = 1024**3, 1024**2


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
                kind="learned", job=name_of(settings), steps=settings.steps, teaches=settings is first,
                catalogue_s=sum(foretold), foretold_s=learned.whole(*foretold), took_s=seconds_taken(found["parts_s"]),
                denoise_s=found["parts_s"]["denoise"], step_s=found["step_s"],
                predicted_gib=choice.peak_gib, reserved_gib=found["reserved_gib"],
            )  # fmt: skip

    def stock(self, strategy: str, cap: float | None) -> None:
        """The stock pipeline at 512x512x16 with one of its own ways to save memory."""
        _clean()
        self.keep(
            kind="stock",
            strategy=strategy,
            cap=cap,
            **stock(self.rows["i2vgen-xl"].source, self.picture, strategy, cap),
        )
        _clean()

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
            ("held", lambda h=h: bench.planned("held back", name_of(h[0]), h[0], h[1], None))
            for h in HELD_BACK
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
                ("sizes", lambda h=h: bench.planned(MORE, name_of(h[0]), h[0], h[1], None))
                for h in MORE_SIZES
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
