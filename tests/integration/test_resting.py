"""A PC with three cards: the workers of idle cards end, their cards still take work, and get their workers back for it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from node_agent.rest import WARM_MOST
from tests.resting import CARDS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]


def test_workers_rest_and_are_woken_for_work(tmp_path: Path) -> None:
    """Eight idle cards took 540 MiB of their PC.

    On a busy machine this test failed itself: the first worker rested before the last had started, and never were there three.
    """
    driver = subprocess.Popen(
        [sys.executable, "-m", "tests.resting", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = driver.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        driver.send_signal(signal.SIGINT)  # so that it ends Ray's daemons
        out, err = driver.communicate(timeout=30)
    finally:
        driver.kill()
        driver.wait()
    saw = [line for line in out.splitlines() if line.startswith("SAW ")]
    assert saw, out[-2000:] + err[-4000:]
    found = json.loads(saw[0].removeprefix("SAW "))
    print(found)
    assert (found["left"], found["left_after_a_report"]) == (WARM_MOST, WARM_MOST)
    assert found["fit_for_work"] == CARDS
    assert found["done"] == CARDS
    assert found["at_the_end"] == CARDS, "a worker that has a model is not sent to rest"
    # The first had started for longer than the agent waits: its job was said to have lost its worker, and the agent did not know it.
    assert found["answering"] == CARDS
