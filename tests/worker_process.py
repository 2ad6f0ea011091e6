"""A card's worker in a process of its own, without Ray: the real runner with a model whose steps take as long as the test says.

`python -m tests.worker_process SPOOL PACE_S`: begins the attempt A1, prints "at work" after its first step, and asks the runner to make way
when a line comes in, which is the reason.
"""

import io
import os
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from node_agent.pipelines.base import RenderRequest, Report
from node_agent.spool import Spool
from tests.workshop import order, set_up


def main(spool_root: Path, pace_s: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        shop = set_up(Spool(spool_root), patch)
        shop.runner.end = lambda: os._exit(1)
        steps = 0

        def work(_request: RenderRequest, report: Report) -> None:
            nonlocal steps
            steps += 1
            if steps == 2:
                print("at work", flush=True)
            if steps > 1:
                time.sleep(pace_s)
            if report.leaving():
                report.checkpoint(steps, f"after step {steps}".encode())

        shop.script = work
        shown = io.BytesIO()
        Image.new("RGB", (32, 24), (90, 120, 60)).save(shown, "PNG")
        picture = shown.getvalue()
        shop.runner.start(order(picture, model="one", frames=100), picture)
        for line in sys.stdin:
            shop.runner.make_way(line.strip())


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
