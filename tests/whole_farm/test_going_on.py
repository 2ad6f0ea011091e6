"""A render that was cut off goes on from its checkpoint through every real part: `farm up`, Ray, the card worker's own process, torch."""

import os
import signal
from pathlib import Path

import pytest

from farm.client import Farm
from farm.model import AttemptStatus, JobStatus
from tests.farm_process import FarmProcess, card_workers, steps_done
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.torch]

STEPS = 14
CLIP = {
    "model": "i2vgen-xl-small", "width": 128, "height": 128, "frames": 8, "steps": STEPS, "guidance": 7.5, "fps": 4,
    "seed": 3, "prompt": "A person walking forward naturally",
}  # fmt: skip
"""Some seconds of real diffusion on two cores: time enough to pull a plug in the middle."""


def test_a_worker_killed_in_mid_render_costs_no_more_than_the_steps_since_its_checkpoint(
    farm: FarmProcess, client: Farm, picture: Path
) -> None:
    """Also with the scheduler killed at the same moment: the checkpoint waits on the head's disk. The clips are the same to the byte."""
    undisturbed = client.wait(client.submit(picture, **CLIP).id)
    assert undisturbed.status == JobStatus.FINISHED, client.log(undisturbed.id)

    job = client.submit(picture, **CLIP)
    kept = farm.data.checkpoints / f"{job.id}.checkpoint"
    wait_until(lambda: steps_done(client, job.id) >= 7 and kept.exists(), 60, "well in the middle")
    (worker,) = card_workers(farm)
    os.kill(worker, signal.SIGKILL)
    farm.kill("scheduler")
    seen: list[int] = []

    def ended() -> bool:
        now = client.job(job.id)
        if now.progress is not None and now.progress.done and len(now.attempts) == 2:
            seen.append(now.progress.done)
        return now.ended

    wait_until(ended, 90, "it ends")
    lost, finished = client.job(job.id).attempts
    assert (lost.status, finished.status) == (AttemptStatus.LOST, AttemptStatus.FINISHED)
    assert lost.resumed_step is None
    assert finished.resumed_step is not None
    assert 5 <= finished.resumed_step < STEPS
    assert finished.notes == [f"Went on from step {finished.resumed_step} of {STEPS} of attempt 1."]
    assert seen, "its steps were seen"
    assert min(seen) >= finished.resumed_step, "it made none of the steps before"
    reader = farm.reader()
    assert reader.job(job.id).video_sha256 == reader.job(undisturbed.id).video_sha256
    wait_until(lambda: not kept.exists(), 10, "the checkpoint of an ended job is removed")
