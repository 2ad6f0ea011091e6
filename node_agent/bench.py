"""One row of the evaluation: a clip on one card, from a process that has just been born to the finished file.

Each row runs in a fresh process (`python -m node_agent.bench`), so that startup is a whole one and no row meets what the one before left
on the card. It reads its order as JSON from stdin and says what happens in lines of JSON on stdout.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final

from pydantic import TypeAdapter

from farm.again import describe
from farm.catalogue.article import BenchSetting
from farm.catalogue.models import ModelRow, load_models
from farm.model import Card, CardKind, MemoryPlan, RenderSettings
from farm.own_bench import BenchResult
from farm.planning.estimate import room_of
from farm.planning.plans import Choice, best_plan
from farm.settings import FarmSettings
from farm.wire import CardReport
from node_agent.card_process import card_environment
from node_agent.faults import fault_of
from node_agent.meter import PeakMemory
from node_agent.pipelines.base import OpenModel, RenderRequest, Unheard

PROMPT: Final = "The camera moves slowly forward to the lighthouse"
END_S: Final = 10.0
"""How long a process that is told to end may take."""

Tell = Callable[[str, int, int], None]
"""Told what is done now, and how many steps are done of how many."""


def within_limits(row: ModelRow, setting: BenchSetting) -> BenchSetting:
    """The setting with no more frames than the model takes; the caller says so where it changes."""
    return replace(setting, frames=min(setting.frames, row.limits.max_frames))


def choose_plan(row: ModelRow, said: CardReport, settings: RenderSettings) -> Choice | None:
    """The planner's plan for a render that has the card to itself; None if none fits. A CPU's memory is not planned."""
    if said.kind is CardKind.CPU or row.memory is None:
        return Choice(MemoryPlan(), 0.0, 0.0)
    card = Card(
        said.id,
        "",
        said.kind,
        said.name,
        vram_gib=said.vram_gib,
        usable_gib=said.usable_gib,
        compute_capability=said.compute_capability,
        bus_gb_s=said.bus_gb_s,
        ram_gib=said.ram_gib,
    )
    return best_plan(row, settings, room_of(row, card, said.usable_gib or 0.0))


def bench(row: ModelRow, said: CardReport, setting: BenchSetting, picture: Path, tell: Tell) -> BenchResult:
    """Renders `picture` on a card of this PC in a fresh process. A failed render is a result too."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    found = BenchResult(at, said.id, said.name, row.name, setting, None, driver=said.driver)
    settings = replace(found.settings, prompt=PROMPT)
    choice = choose_plan(row, said, settings)
    if choice is None:
        return replace(found, failure="no memory plan fits this card")
    if row.memory is not None and said.kind is CardKind.CUDA:
        found = replace(
            found,
            predicted_s=round(choice.step_s * setting.steps, 1),
            predicted_gib=round(choice.peak_gib, 2),
        )
    order = {
        "settings": asdict(settings),
        "plan": asdict(choice.plan),
        "device": "cpu" if said.kind is CardKind.CPU else "cuda:0",
        "picture": str(picture),
        "born": time.monotonic(),
    }
    measured = _run(order, "" if said.kind is CardKind.CPU else said.id, tell)
    return replace(found, plan=choice.plan, **measured)


def _run(order: Mapping[str, Any], visible: str, tell: Tell) -> dict[str, Any]:
    """What the child measured, or a `failure`."""
    with tempfile.TemporaryFile("w+") as errors, _child(visible, errors) as child:
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - asked for
        with child.stdin as stdin:
            stdin.write(json.dumps(order))
        for line in child.stdout:
            said = json.loads(line)
            if "result" in said:
                result: dict[str, Any] = said["result"]
                return result
            tell(said["doing"], said["done"], said["total"])
        code = child.wait()
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["it said nothing"])[-1]
        return {"failure": f"its process ended with code {code}: {last}"}


@contextmanager
def _child(visible: str, errors: IO[str]) -> Iterator["subprocess.Popen[str]"]:
    """A fresh process that sees one card alone. In a session of its own: Ctrl-C is the caller's, who ends it here."""
    child = subprocess.Popen(
        [sys.executable, "-m", "node_agent.bench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, **card_environment(visible)},
        start_new_session=True,
    )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


# --- the fresh process ---
class _Lines(Unheard):
    """Says phase and steps in lines; previews and checkpoints are made, as in a job, and not kept."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def part(self, name: str) -> AbstractContextManager[None]:
        self.say({"doing": name, "done": 0, "total": 0})
        return nullcontext()

    def step(self, done: int, total: int) -> None:
        self.say({"doing": "denoise", "done": done, "total": total})

    def say(self, what: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(what) + "\n")
        self._out.flush()


def _measure(order: Mapping[str, Any], report: _Lines) -> dict[str, Any]:
    # ruff: noqa: PLC0415 - only the child renders, and its imports count as startup
    from PIL import Image

    from node_agent.encode import encode

    settings = TypeAdapter(RenderSettings).validate_python(order["settings"])
    plan = TypeAdapter(MemoryPlan).validate_python(order["plan"])
    row = load_models(FarmSettings().models_file)[settings.model]
    peak = PeakMemory(order["device"])
    peak.reset()
    open_model: OpenModel = import_module(f"node_agent.pipelines.{row.pipeline}").open_model
    model = open_model(row, order["device"])
    model.load(plan, report)
    loaded = time.monotonic()
    picture = Path(order["picture"]).read_bytes()
    image = Image.open(order["picture"]).convert("RGB")
    first: list[float] = []

    def frames() -> Iterator[Any]:
        for frame in model.render(RenderRequest(settings, image, plan), report):
            if not first:
                first.append(time.monotonic())
            yield frame

    with tempfile.TemporaryDirectory() as directory:
        encode(
            frames(),
            Path(directory) / "clip.mp4",
            fps=settings.fps,
            width=settings.width,
            height=settings.height,
            count=settings.frames,
            metadata=describe(settings, input_sha256=sha256(picture).hexdigest(), draft=row.draft),
        )
    ended = time.monotonic()
    gib, torch = peak.gib(), sys.modules.get("torch")
    return {
        "startup_s": round(loaded - order["born"], 2),
        "first_frame_s": round(first[0] - loaded, 2),
        "total_s": round(ended - loaded, 2),
        "peak_gib": None if gib is None else round(gib, 2),
        "torch": None if torch is None else str(torch.__version__),
    }


def main() -> None:
    """The fresh process: one order, its lines, one result."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the lines
    report = _Lines(out)
    try:
        result = _measure(json.load(sys.stdin), report)
    except Exception as error:  # noqa: BLE001 - every failure is a result, with its reason
        fault = fault_of(error)
        sys.stderr.write(fault.detail)
        result = {"failure": fault.message.rstrip(".")}
    report.say({"result": result})


if __name__ == "__main__":
    main()
