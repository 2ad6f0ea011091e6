"""What live pages cost, and how fresh they are: 200 event streams on one dashboard, and the time from a worker's report to the screen.

A whole real farm renders one long draft on this PC's processor; its card worker reports each frame. The report's own time is read from the
worker's spool, the time of the frame in which Chromium shows it from the page, both by this PC's clock.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
from playwright.sync_api import Page, sync_playwright

from benchmarks.record import percentile, record
from farm.client import Farm
from tests.browser.chromium import CHROMIUM_ARGS, find_chromium
from tests.farm_process import FarmProcess
from tests.pictures import street
from tests.waiting import wait_until

STREAMS = 200
FRAMES = 240
SIZE = (1280, 720)
"""Large enough that one core at nice 10 makes somewhat more than ten frames a second."""
LEAST_PER_S = 10.0
CORE_SHARE = 0.5
FRESH_MS = 500.0
LIMIT_S = 180.0
_WATCH = """
window.shown = [];
new MutationObserver((changes) => {
  const bars = changes.map((one) => one.target).filter((one) => one.localName === "progress");
  if (!bars.length) return;
  // What is set now is on the screen with the next frame.
  requestAnimationFrame(() => shown.push([bars[0].value, Date.now() / 1000]));
}).observe(document.body, { subtree: true, attributes: true, attributeFilter: ["value"] });
"""


@dataclass(frozen=True, slots=True)
class Watched:
    """One render that was watched. `late_ms`: of each reported step, from the report to the screen."""

    steps_per_s: float
    late_ms: list[float]
    share: float
    """Of a core, that the dashboard's process took meanwhile."""
    events: list[int]
    """That each stream got meanwhile."""


def run(root: Path) -> None:
    """One render with one page open, then one with all streams open besides."""
    load = os.getloadavg()[0]
    picture = root / "street.png"
    street(*SIZE).image.save(picture)
    program = find_chromium()
    assert program is not None, "this benchmark needs Chromium: `apt install chromium`"
    with FarmProcess(root / "data") as farm, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM_ARGS)
        page = browser.new_page(reduced_motion="reduce")
        page.goto(farm.sign_in_link, wait_until="domcontentloaded")
        with farm.client() as client:
            alone = watch(farm, client, page, picture, None)
            with listeners(farm) as streams:
                many = watch(farm, client, page, picture, streams)
        browser.close()
    for name, seen in (("alone", alone), ("with all streams", many)):
        print(
            f"{name}: {seen.steps_per_s:.1f} steps/s, {percentile(seen.late_ms, 0.5):.0f} ms, "
            f"p99 {percentile(seen.late_ms, 0.99):.0f} ms, {100 * seen.share:.0f} % of a core, "
            f"{min(seen.events, default=0)} to {max(seen.events, default=0)} events",
            flush=True,
        )
    assert many.steps_per_s >= LEAST_PER_S, (
        f"only {many.steps_per_s:.1f} updates a second: nothing is shown by this"
    )
    assert min(many.events) >= FRAMES, "a stream missed events"
    assert many.share < CORE_SHARE, f"{100 * many.share:.0f} % of a core"
    for seen in (alone, many):
        assert percentile(seen.late_ms, 0.99) <= FRESH_MS, f"p99 {percentile(seen.late_ms, 0.99):.0f} ms"
    record("streams", _text(alone, many, load))


def _text(alone: Watched, many: Watched, load: float) -> str:
    rows = "\n".join(
        f"| {name} | {seen.steps_per_s:.1f} | {percentile(seen.late_ms, 0.5):.0f} | {percentile(seen.late_ms, 0.99):.0f} | "
        f"{max(seen.late_ms):.0f} | {100 * seen.share:.0f} % |"
        for name, seen in (("one page", alone), (f"one page and {STREAMS} more streams", many))
    )
    return (
        f"## Live pages\n\nA draft of {SIZE[0]}x{SIZE[1]}x{FRAMES} renders on this PC's processor through the whole farm; its worker "
        "reports each frame, and Chromium shows the job's page (`benchmarks/streams.py`). From the worker's report (its own time in its "
        "spool) by Ray, scheduler, feed and event stream to the frame in which the page shows it. "
        f"Must: p99 under {FRESH_MS:g} ms; with {STREAMS} streams open, each getting all of at least {LEAST_PER_S:g} updates a second, "
        f"the dashboard's process takes less than {100 * CORE_SHARE:.0f} % of a core.\n\n"
        "| open | reports per second | report to screen, median ms | p99 ms | max ms | dashboard, share of a core |\n"
        f"|---|---|---|---|---|---|\n{rows}\n\n"
        f"Events that each of the {STREAMS} streams got during the render: {min(many.events)} to {max(many.events)}. The render itself, "
        f"Chromium and the {STREAMS} clients run on the same cores. Load average of the PC before the start, by other work: {load:.1f}."
    )


def watch(farm: FarmProcess, client: Farm, page: Page, picture: Path, streams: "Listeners | None") -> Watched:
    """Renders one draft and watches it from both ends."""
    job_id = client.submit(
        picture, preset="draft", prompt="zoom in", width=SIZE[0], height=SIZE[1], frames=FRAMES
    ).id
    page.goto(f"{farm.address}/jobs/{job_id}", wait_until="domcontentloaded")
    page.evaluate(_WATCH)
    wait_until(lambda: bool(_attempts(client, job_id)), LIMIT_S, "a card takes the job")
    (attempt_id,) = _attempts(client, job_id)
    path = farm.data.node_home / "spool" / attempt_id / "events.jsonl"
    wait_until(path.exists, LIMIT_S, "the worker's spool")
    dashboard = psutil.Process(farm.pid_of("dashboard"))
    with path.open() as spool:  # held open, it can be read to its end although the node then deletes it
        told = Told(spool)
        wait_until(lambda: told.read() >= 1, LIMIT_S, "the first frame")
        before = streams.counts() if streams else []
        used, began = _used(dashboard), time.perf_counter()
        wait_until(lambda: told.read() >= FRAMES, LIMIT_S, "the last frame")
        share = (_used(dashboard) - used) / (time.perf_counter() - began)
        took = told.steps[FRAMES] - told.steps[1]
        job = client.wait(job_id)
        assert job.status == "finished", client.log(job_id)
        after = streams.counts() if streams else []
    shown: list[tuple[int, float]] = page.evaluate("window.shown")
    late = [
        1000 * (seen - at) for step, at in told.steps.items() if (seen := _first(shown, step)) is not None
    ]
    # The last frames may be on the screen only as the finished clip.
    assert len(late) >= FRAMES - 20, f"the page showed {len(late)} of {FRAMES} reports"
    return Watched((FRAMES - 1) / took, late, share, [b - a for a, b in zip(before, after, strict=True)])


class Told:
    """A worker's reports as it wrote them down: each step's number and time, wall seconds."""

    def __init__(self, spool: IO[str]) -> None:
        self._spool = spool
        self._half = ""
        self.steps: dict[int, float] = {}

    def read(self) -> int:
        """Reads on; the number of the last step."""
        *whole, self._half = (self._half + self._spool.read()).split("\n")
        for line in whole:
            event = json.loads(line)
            if event["kind"] == "step" and event["done"]:
                self.steps[event["done"]] = event["at"]
        return max(self.steps, default=0)


def _attempts(client: Farm, job_id: str) -> list[str]:
    return [attempt.id for attempt in client.job(job_id).attempts]


def _first(shown: list[tuple[int, float]], step: int) -> float | None:
    """When the page first showed this step or a later one."""
    return next((at for value, at in shown if value >= step), None)


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


class Listeners:
    """The process with the streams."""

    def __init__(self, child: "subprocess.Popen[str]") -> None:
        self._child = child

    def counts(self) -> list[int]:
        """How many events each stream has got."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        found: list[int] = json.loads(self._child.stdout.readline())
        return found


@contextmanager
def listeners(farm: FarmProcess) -> Iterator[Listeners]:
    """All streams open, from a process of their own."""
    command = [sys.executable, "-m", "benchmarks.listeners", str(farm.port), str(STREAMS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(farm.data.admin_token.read_text().strip() + "\n")
        child.stdin.flush()
        assert child.stdout.readline() == "open\n", "the streams did not open"
        yield Listeners(child)
        child.stdin.close()
