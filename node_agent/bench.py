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
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import IO, Any, Final

from pydantic import TypeAdapter

from farm.again import describe
from farm.catalogue.article import BenchSetting
from farm.catalogue.models import ModelRow, load_models
from farm.model import Card, CardKind, MemoryPlan, RenderSettings
from farm.own_bench import BenchResult
from farm.planning.estimate import room_of, seconds
from farm.planning.plans import Choice, best_plan
from farm.settings import FarmSettings
from farm.wire import CardReport
from node_agent.card_process import card_environment
from node_agent.faults import fault_of
from node_agent.meter import PeakMemory
from node_agent.pipelines.base import OpenModel, RenderRequest, Unheard
from node_agent.selftest import card_trouble_apart

PROMPT: Final = "The camera moves slowly forward to the lighthouse"
END_S: Final = 10.0
"""How long a process that is told to end may take."""
START_S: Final = 900.0
"""How long it may take beside the foretold seconds: torch and 8 GB of weights from a slow disk take some minutes."""
SLOW: Final = 10.0
"""How many times the foretold seconds a render may take: for a card that nobody measured they are a guess."""

Tell = Callable[[str, int, int], None]
"""Told what is done now, and how many steps are done of how many."""


def within_limits(row: ModelRow, setting: BenchSetting) -> BenchSetting:
    """The setting with no more frames than the model takes; the caller says so where it changes."""
    return replace(setting, frames=min(setting.frames, row.limits.max_frames))


def choose_plan(row: ModelRow, said: CardReport, settings: RenderSettings) -> Choice | None:
    """The planner's plan for a render that has `said.usable_gib` of the card, and of its PC's memory what is free now.

    None if none fits. A CPU's memory is not planned.
    """
    # ruff: noqa: PLC0415 - the child's imports count as startup
    from node_agent.hostram import room_for_weights_gib

    if said.kind is CardKind.CPU or row.memory is None:
        return Choice(MemoryPlan(), 0.0, 0.0)
    room = room_of(row, _card(said), said.usable_gib or 0.0)
    ram = room_for_weights_gib() if room.ram_gib is None else min(room.ram_gib, room_for_weights_gib())
    return best_plan(row, settings, replace(room, ram_gib=ram))


def limit_s(row: ModelRow, said: CardReport, settings: RenderSettings, plan: MemoryPlan) -> float:
    """After how many seconds a render counts as hung, start included."""
    return START_S + SLOW * seconds(row, _card(said), settings, plan)


def _card(said: CardReport) -> Card:
    return Card(
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


@cache  # one answer for all rows of a card: each question loads torch
def _trouble(said: CardReport) -> str | None:
    return card_trouble_apart(said.name, said.driver, said.compute_capability, said.id)


def bench(row: ModelRow, said: CardReport, setting: BenchSetting, picture: Path, tell: Tell) -> BenchResult:
    """Renders `picture` on a card of this PC in a fresh process. A failed render is a result too."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    found = BenchResult(at, said.id, said.name, row.name, setting, None, driver=said.driver)
    settings = replace(found.settings, prompt=PROMPT)
    choice = choose_plan(row, said, settings)
    if choice is None:
        return replace(
            found, failure="no memory plan fits what is free of this card and of its PC's memory now"
        )
    trouble = said.trouble or (_trouble(said) if said.kind is CardKind.CUDA else None)
    if trouble is not None:
        return replace(found, failure=trouble.rstrip("."))
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
    limit = limit_s(row, said, settings, choice.plan)
    measured = _run(order, "" if said.kind is CardKind.CPU else said.id, limit, tell)
    return replace(found, plan=choice.plan, **measured)


def _run(order: Mapping[str, Any], visible: str, limit: float, tell: Tell) -> dict[str, Any]:
    """What the child measured within `limit` seconds, or a `failure`."""
    # The clip's folder is this process's: one that is ended in the midst of it cleans nothing up. Its ffmpeg may be there a moment longer.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile("w+") as errors,
        _child(visible, errors) as (child, lines),
    ):
        assert child.stdin is not None  # noqa: S101 - asked for
        with suppress(BrokenPipeError), child.stdin as stdin:  # it ended already: below it is said how
            stdin.write(json.dumps({**order, "folder": folder}))
        doing, ends = "start", time.monotonic() + limit
        try:
            while (line := lines.get(timeout=max(0.0, ends - time.monotonic()))) is not None:
                said = json.loads(line)
                if "result" in said:
                    result: dict[str, Any] = said["result"]
                    return result
                doing = said["doing"]
                tell(doing, said["done"], said["total"])
            code = child.wait(END_S)
        except (Empty, subprocess.TimeoutExpired):
            return {
                "failure": f"it was not done within {limit / 60:.0f} min, many times what was foretold, and was at {doing!r}; "
                "if the card or its driver hangs, restart this PC and bench again"
            }
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["it said nothing"])[-1]
        return {"failure": f"its process ended with code {code}: {last}"}


@contextmanager
def _child(
    visible: str, errors: IO[str]
) -> Iterator[tuple["subprocess.Popen[str]", "SimpleQueue[str | None]"]]:
    """A fresh process that sees one card alone, and its lines, None after the last.

    In a session of its own: Ctrl-C is the caller's, who ends it here.
    """
    child = subprocess.Popen(
        [sys.executable, "-m", "node_agent.bench"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, **card_environment(visible)},
        start_new_session=True,
    )
    lines: SimpleQueue[str | None] = SimpleQueue()

    def hear() -> None:
        assert child.stdout is not None  # noqa: S101 - asked for
        with child.stdout as stdout:
            for line in stdout:
                lines.put(line)
        lines.put(None)

    # A thread, since a read has no time limit; it ends with the process, or with this one where the driver lets that process not go.
    Thread(target=hear, daemon=True).start()
    try:
        yield child, lines
    finally:
        child.terminate()
        try:
            child.wait(END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            with suppress(subprocess.TimeoutExpired):
                child.wait(END_S)


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
    # Only the child renders, and its imports count as startup.
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

    encode(
        frames(),
        Path(order["folder"]) / "clip.mp4",
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
