"""A second PC by `farm join`: jobs of two stages over both, a worker that is killed in its work; then it leaves for good."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from farm.client import Farm
from farm.model import AttemptStatus, JobStatus, StageKind
from farm.video import read_metadata, verify
from tests.farm_process import CARD_WORKER, FarmProcess, free_ray_port, processes_below
from tests.farm_verbs import run_apart, run_here
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

GENERATE, INTERPOLATE = StageKind.GENERATE, StageKind.INTERPOLATE
DRAFT = {
    "preset": "draft",
    "width": 704,
    "height": 400,
    "frames": 16,
    "fps": 8,
    "seed": 5,
    "prompt": "pan left",
}
"""Its 30 new frames at 24 fps take two to four seconds of a core: time enough to pull plugs."""
POST_ONLY = """
[animatic]
title = "Animatic, not for this PC"
pipeline = "animatic"
devices = ["cuda"]
tensor_needed = false
"""
"""With this row a PC without a graphics card generates nothing: it is left with post work."""


@dataclass
class OtherPc:
    """A second node on this PC, in a home of its own, that does post work only."""

    process: subprocess.Popen[bytes]
    home: Path

    @property
    def node_id(self) -> str:
        return str(json.loads((self.home / "node.json").read_text())["node_id"])

    def worker(self) -> int:
        """The process of its card worker."""
        (found,) = processes_below(self.process.pid, CARD_WORKER)
        return found


@contextmanager
def joined(farm: FarmProcess, root: Path) -> Iterator[OtherPc]:
    """`farm join` on loopback; everything it started is gone afterwards."""
    models = root / "post.toml"
    models.write_text(POST_ONLY)
    home = root / "other"
    code = run_apart(["token", "new", "--kind", "join", "--data", str(farm.data.root), "--json"])
    assert code.returncode == 0, code.stderr
    log = root / "join.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "farm.cli.main", "join", farm.address, "--home", str(home)),
                *("--token", str(json.loads(code.stdout)["token"])),
                *("--name", "den", "--ray-port", str(free_ray_port()), "--hours", "mon-sun all"),
            ],
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "FARM_MODELS_FILE": str(models)},
        )  # fmt: skip
    try:
        wait_until(lambda: b"Connected" in log.read_bytes() or process.poll() is not None, 60, "it joins")
        assert process.poll() is None, log.read_text()
        yield OtherPc(process, home)
    finally:
        if process.poll() is None:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            process.send_signal(signal.SIGINT)
            process.wait(30)
            for left in psutil.wait_procs(family, timeout=10)[1]:
                left.kill()


@pytest.fixture(scope="module")
def pair(
    farm: FarmProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[FarmProcess, OtherPc]]:
    with joined(farm, tmp_path_factory.mktemp("stages")) as other:
        with farm.client() as client:
            wait_until(lambda: [card.state for card in client.cards()] == ["idle"] * 2, 60, "two idle cards")
        yield farm, other


def interpolated(client: Farm, job_id: str) -> int:
    """How many frames of the second stage are done; 0 before it runs."""
    progress = client.job(job_id).progress
    return progress.done if progress is not None and progress.stage is INTERPOLATE else 0


def test_the_first_pc_generates_the_other_interpolates_and_a_killed_worker_repeats_only_that(
    pair: tuple[FarmProcess, OtherPc], client: Farm, picture: Path, tmp_path: Path
) -> None:
    farm, other = pair
    job = client.submit(picture, **DRAFT, smooth=24)
    # The only card that generates is taken by the next one at once, so that the other PC's is the free one.
    blocker = client.submit(picture, **{**DRAFT, "frames": 64}, priority=5)
    wait_until(lambda: interpolated(client, job.id) > 2, 60, "the other PC interpolates")
    left = farm.reader().stage_artifacts(job.id)[GENERATE]
    assert client.job(job.id).stages[0].sha256 == left.sha256
    assert (farm.data.artifacts / left.sha256[:2] / left.sha256).stat().st_size == left.size
    os.kill(other.worker(), signal.SIGKILL)
    done = client.wait(job.id)
    assert done.status == JobStatus.FINISHED, client.log(job.id)
    first, killed, last = farm.reader().attempts(job.id)
    assert (first.stage, first.status) == (GENERATE, AttemptStatus.FINISHED)
    assert (killed.stage, killed.status) == (INTERPOLATE, AttemptStatus.LOST)
    assert (last.stage, last.status) == (INTERPOLATE, AttemptStatus.FINISHED)
    assert first.node_id != killed.node_id == other.node_id
    assert {"interpolate", "encode"} <= set(last.stage_seconds)
    assert last.predicted_s is not None

    clip = client.video(job.id, tmp_path / "clip.mp4")
    verify(clip, width=704, height=400, frames=48, fps=24)
    said = read_metadata(clip)
    assert {name: said[name] for name in ("model", "seed", "frames", "fps", "smooth")} == {
        "model": "animatic", "seed": 5, "frames": 16, "fps": 8, "smooth": 24,
    }  # fmt: skip
    shown = client.job(job.id)
    assert [(one.stage, one.status, one.attempts) for one in shown.stages] == [
        (GENERATE, "finished", 1),
        (INTERPOLATE, "finished", 2),
    ]
    assert shown.stages[1].sha256 == farm.reader().job(job.id).video_sha256
    wait_until(lambda: not farm.reader().stage_artifacts(job.id), 60, "the clip between is let go of")
    assert client.wait(blocker.id).status == JobStatus.FINISHED


def test_a_smoothed_clip_is_made_again_from_itself_byte_for_byte(
    pair: tuple[FarmProcess, OtherPc], client: Farm, picture: Path, tmp_path: Path
) -> None:
    farm, _ = pair
    small = {**DRAFT, "width": 256, "height": 192, "frames": 8, "smooth": 20}
    first = client.wait(client.submit(picture, **small).id)
    assert first.status == JobStatus.FINISHED, client.log(first.id)
    clip = client.video(first.id, tmp_path / "first.mp4")
    verify(clip, width=256, height=192, frames=20, fps=20)
    words = ["submit", "--again", str(clip), "--head", farm.address, "--output", str(tmp_path / "second.mp4")]
    done = run_apart(words, {"FARM_DATA": str(farm.data.root)}, limit_s=120.0)
    assert done.returncode == 0, done.stderr
    assert "Finished (a draft)" in done.stdout
    assert (tmp_path / "second.mp4").read_bytes() == clip.read_bytes()


def test_a_job_cancelled_while_it_interpolates_stops_and_leaves_its_card_to_the_next(
    pair: tuple[FarmProcess, OtherPc], client: Farm, picture: Path
) -> None:
    farm, _ = pair
    job = client.submit(picture, **DRAFT, smooth=24)
    wait_until(lambda: interpolated(client, job.id) > 2, 60, "it interpolates")
    client.cancel(job.id)
    # It takes 0.1 s; two where a busy PC lets the question wait.
    wait_until(lambda: client.job(job.id).status == JobStatus.CANCELLED, 2, "it stopped")
    stages = client.job(job.id).stages
    assert [(one.stage, one.status) for one in stages] == [(GENERATE, "finished"), (INTERPOLATE, "cancelled")]
    client.retry(job.id)
    wait_until(lambda: client.job(job.id).status != JobStatus.CANCELLED, 10, "it is queued again")
    assert client.wait(job.id).status == JobStatus.FINISHED, client.log(job.id)
    assert [one.stage for one in farm.reader().attempts(job.id)] == [GENERATE, INTERPOLATE, INTERPOLATE]


def states(client: Farm) -> dict[str, str]:
    return {card.node_name: card.state for card in client.cards()}


def test_a_pc_that_leaves_takes_its_credential_with_it(
    pair: tuple[FarmProcess, OtherPc], client: Farm
) -> None:
    """The last here: the other PC is gone for good."""
    farm, other = pair
    home, name = other.home, "den"
    wait_until(lambda: states(client)[name] == "idle", 30, "it is at nothing")
    rules = {node.name: node.owner_rules for node in client.nodes()}
    assert rules[name] == "hours mon-sun all"
    node_token = json.loads((home / "farm.json").read_text())["node_token"]
    family = psutil.Process(other.process.pid).children(recursive=True)
    left = run_apart(["leave", "--home", str(home)])
    assert left.returncode == 0, left.stderr
    assert "This PC has left the farm" in left.stdout
    other.process.wait(30)
    assert psutil.wait_procs(family, timeout=10)[1] == [], "nothing of the farm runs on there"
    wait_until(lambda: states(client)[name] == "not answering", 30, "it is shown as away")
    assert not (home / "farm.json").exists()
    assert not (home / "ray-token").exists()
    body = {"name": name, "ray_version": "1", "python_version": "3.11"}
    headers = {"Authorization": f"Bearer {node_token}"}
    answer = httpx.post(f"{farm.address}/api/v1/nodes/hello", json=body, headers=headers)
    assert answer.status_code == 401
    again = run_here(["leave", "--home", str(home)])
    assert (again.returncode, "no node of a farm" in again.stderr) == (1, True)
