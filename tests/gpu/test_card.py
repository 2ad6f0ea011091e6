"""The worker's own code on a real card: first computation, a job to its video, out of memory for real, streaming bit for bit."""

import ctypes
import hashlib
import io
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NEEDED_GIB = 12
_WHY = f"needs an NVIDIA card with {NEEDED_GIB} GiB"
try:  # before torch, which takes seconds to import and which nothing here can use without NVIDIA's driver
    ctypes.CDLL("libcuda.so.1")
except OSError:
    pytest.skip(_WHY, allow_module_level=True)
torch = pytest.importorskip("torch")
if not torch.cuda.is_available() or torch.cuda.get_device_properties(0).total_memory < NEEDED_GIB * 1024**3:
    pytest.skip(_WHY, allow_module_level=True)

from farm import events  # noqa: E402
from farm.catalogue.models import builtin_models  # noqa: E402
from farm.clock import SystemClock  # noqa: E402
from farm.model import MemoryPlan, RenderSettings, StageKind  # noqa: E402
from farm.planning.memory import HELD, Room  # noqa: E402
from farm.planning.plans import best_plan, smallest_peak_gib  # noqa: E402
from farm.video import verify  # noqa: E402
from farm.wire import Order  # noqa: E402
from node_agent import attempt  # noqa: E402
from node_agent.engine.streaming import StreamedNetwork  # noqa: E402
from node_agent.engine.units import cut, may_stream  # noqa: E402
from node_agent.measuring import diffusion_class  # noqa: E402
from node_agent.pipelines.diffusion import model as diffusion  # noqa: E402
from node_agent.pipelines.full_size import build_part, random_weights  # noqa: E402
from node_agent.probe import cards  # noqa: E402
from node_agent.runner import Runner  # noqa: E402
from node_agent.selftest import card_trouble  # noqa: E402
from node_agent.spool import Spool  # noqa: E402
from tests.pictures import product  # noqa: E402

ROW = builtin_models()["i2vgen-xl"]
SETTINGS = RenderSettings("i2vgen-xl", 512, 512, 8, 4, 9.0, 8, seed=7, prompt="A person walks forward")
DEVICE = torch.device("cuda", 0)
LIMIT_S = 600.0
"""An old card takes its time."""
pytestmark = pytest.mark.timeout(LIMIT_S)


@pytest.fixture(scope="module")
def picture() -> bytes:
    file = io.BytesIO()
    product(640, 480).image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def runner(tmp_path: Path, weights: Path) -> Iterator[Runner]:
    row = replace(ROW, source=str(weights))
    made = Runner(Spool(tmp_path / "spool"), {"i2vgen-xl": row}, "cuda:0", SystemClock())
    yield made
    made.drop_model()
    torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)
    torch.cuda.empty_cache()


def make(runner: Runner, picture: bytes, name: str, plan: MemoryPlan) -> list[events.Event]:
    """Renders, and gives all that was said of it."""
    digest = hashlib.sha256(picture).hexdigest()
    runner.start(Order(name, "J1", StageKind.GENERATE, SETTINGS, plan, digest, draft=False), picture)
    told: list[events.Event] = []
    limit = time.monotonic() + LIMIT_S
    while not (told and told[-1].kind in events.FINAL_KINDS):
        assert time.monotonic() < limit, told
        told += runner.follow(name, told[-1].seq if told else 0, 1.0) or []
    return told


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The frames of each clip as they went into the encoder: random weights make noise, of which H.264 keeps little."""
    seen: list[np.ndarray] = []
    real = attempt.encode

    def encode(made: Iterator[np.ndarray], *args: Any, **kwargs: Any) -> Any:
        kept: list[np.ndarray] = []
        seen.append(np.empty(0))

        def pass_on() -> Iterator[np.ndarray]:
            for frame in made:
                kept.append(frame.astype(int))
                yield frame

        found = real(pass_on(), *args, **kwargs)
        seen[-1] = np.stack(kept)
        return found

    monkeypatch.setattr(attempt, "encode", encode)
    return seen


def test_the_card_is_known_to_nvml_and_computes() -> None:
    found = {card.id.removeprefix("GPU-"): card for card in cards("local", builtin_models())}
    mine = found[str(torch.cuda.get_device_properties(0).uuid)]
    assert mine.name in torch.cuda.get_device_name(0)
    assert card_trouble(mine.name, mine.driver, mine.compute_capability) is None


def test_a_job_becomes_a_video_within_the_predicted_memory(runner: Runner, picture: bytes) -> None:
    choice = best_plan(ROW, SETTINGS, Room(3.4, bus_gb_s=12.0))
    assert choice is not None
    assert choice.plan.weights_on_card < 1.0
    told = make(runner, picture, "A1", choice.plan)
    done = told[-1]
    assert isinstance(done, events.Done), done
    assert done.peak_gib == pytest.approx(choice.peak_gib, rel=0.05)
    assert {"load", "encode_prompt", "encode_image", "denoise", "decode", "encode"} <= set(done.stage_seconds)
    video = runner.parts[0].directory("A1") / "video.mp4"
    verify(video, frames=8, width=512, height=512, fps=8)


def test_out_of_memory_on_the_card_ends_in_the_same_clip_under_a_leaner_plan(
    runner: Runner, picture: bytes, frames: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card's memory really ends, in the middle of a step; the same process goes on."""
    whole = make(runner, picture, "A1", MemoryPlan())
    assert isinstance(whole[-1], events.Done), whole[-1]
    peak, weights = torch.cuda.max_memory_allocated(DEVICE), torch.cuda.memory_allocated(DEVICE)
    real, end_gib = (
        diffusion.hold_to,
        (peak + weights) / 2 / 1024**3,
    )  # half of what a step needs beside the weights
    monkeypatch.setattr(diffusion, "hold_to", lambda device, gib: real(device, min(gib, end_gib / HELD)))
    told = make(runner, picture, "A2", MemoryPlan())
    assert isinstance(told[-1], events.Done), told[-1]
    steps = [event for event in told if isinstance(event, events.Retrying)]
    assert steps
    assert "out of memory" in steps[0].reason
    assert told[-1].peak_gib is not None
    assert told[-1].peak_gib <= end_gib
    assert np.abs(frames[-1] - frames[0]).max() <= 2  # another order of sums


@pytest.mark.parametrize("compute", [torch.float16, torch.float32])
def test_streamed_is_bit_for_bit_what_is_resident(compute: torch.dtype) -> None:
    kind = diffusion_class(ROW)
    network = build_part(kind.layout, kind.denoiser)
    units = cut(network)
    torch.manual_seed(0)
    kept: dict[str, torch.Tensor] = {}
    read = random_weights(units)

    def source(name: str) -> torch.Tensor:
        if name not in kept:
            kept[name] = read(name).half()
        return kept[name]

    inputs = kind.bench_inputs(
        network.config, (256, 256, 8), 2, torch.zeros((), dtype=compute, device=DEVICE)
    )
    large = [unit.name for unit in units if may_stream(unit)]
    found = []
    for stay in (None, set(large[::2]), set()):
        weights = StreamedNetwork(network, source, DEVICE, stored=torch.float16, compute=compute, stay=stay)
        with torch.inference_mode():
            for _ in range(3):  # the first pass learns the order, the third is the second with a warm ring
                out = network(**inputs)[0]
        assert weights.pinned, weights.why_not_pinned
        found.append(out.cpu())
        host = weights.host
        weights.close()
        host.close()
        torch.cuda.empty_cache()
    assert torch.isfinite(found[0]).all()
    assert torch.equal(found[1], found[0])
    assert torch.equal(found[2], found[0])


def test_the_leanest_plan_is_within_what_was_promised(runner: Runner, picture: bytes) -> None:
    """What is said to be needed is believed: a card with so much must do."""
    promised = smallest_peak_gib(ROW, SETTINGS)
    choice = best_plan(ROW, SETTINGS, Room(promised * HELD + 0.01, bus_gb_s=12.0))
    assert choice is not None
    done = make(runner, picture, "A1", choice.plan)[-1]
    assert isinstance(done, events.Done), done
    assert done.peak_gib is not None
    assert done.peak_gib <= promised * HELD * 1.01
