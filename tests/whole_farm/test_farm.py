"""Jobs through every real part: `farm up`, HTTP, SQLite, scheduler, Ray, card worker, ffmpeg."""

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
from PIL import Image

from farm.client import Farm
from farm.errors import FarmError
from farm.model import AttemptStatus, JobStatus
from farm.video import read_metadata, verify
from tests.farm_process import FarmProcess, card_workers, steps_done
from tests.farm_verbs import run_here
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

SMALL = {"preset": "draft", "width": 256, "height": 192, "frames": 8, "seed": 5, "prompt": "pan left"}
LONG = {**SMALL, "width": 960, "height": 544, "frames": 120}
"""Some ten seconds of rendering: time enough to pull plugs."""


def test_a_picture_becomes_a_video_through_every_part(
    farm: FarmProcess, client: Farm, picture: Path, tmp_path: Path
) -> None:
    job = client.wait(client.submit(picture, **SMALL).id)
    assert job.status == JobStatus.FINISHED
    assert job.draft
    video = client.video(job.id, tmp_path / "clip.mp4")
    facts = verify(video, width=256, height=192, frames=8, fps=8)
    assert (facts.codec, facts.pixel_format, facts.faststart) == ("h264", "yuv420p", True)
    assert read_metadata(video)["seed"] == 5
    stored = farm.reader().job(job.id)
    assert stored.video_sha256 == hashlib.sha256(video.read_bytes()).hexdigest()
    assert stored.thumbnail_sha256 is not None
    (attempt,) = farm.reader().attempts(job.id)
    assert attempt.status == AttemptStatus.FINISHED
    assert {"depth", "render", "encode"} <= set(attempt.stage_seconds)
    assert all(seconds >= 0 for seconds in attempt.stage_seconds.values())
    assert attempt.peak_gib is not None
    assert 0.02 < attempt.peak_gib < 4
    spool = farm.data.node_home / "spool"
    wait_until(lambda: not (spool / attempt.id).exists(), 10, "the node's spool is cleared")


def test_the_same_job_twice_gives_the_same_video(client: Farm, picture: Path, tmp_path: Path) -> None:
    first, second = (client.submit(picture, **SMALL).id for _ in range(2))
    frames = []
    for job_id in (first, second):
        assert client.wait(job_id).status == JobStatus.FINISHED
        frames.append(client.video(job_id, tmp_path / f"{job_id}.mp4").read_bytes())
    assert frames[0] == frames[1]


def test_a_clip_is_made_again_from_itself_byte_for_byte(
    farm: FarmProcess, client: Farm, picture: Path, tmp_path: Path
) -> None:
    """The whole round: the clip's file is all that `farm submit --again` is given."""
    first = client.wait(
        client.submit(picture, **SMALL, strength=0.7, guidance=2.5, negative_prompt="blur").id
    )
    clip = client.video(first.id, tmp_path / "first.mp4")
    verb = ["submit", "--again", str(clip), "--head", farm.address, "--json", "--output"]
    for name in ("second.mp4", "second.gif", "second.webp"):
        done = run_here([*verb, str(tmp_path / name)], {"FARM_DATA": str(farm.data.root)})
        assert done.returncode == 0, done.stderr
        again = client.job(json.loads(done.stdout)["id"])
        assert again.id != first.id
        assert (again.settings, again.input_sha256) == (first.settings, first.input_sha256)
        assert farm.reader().job(again.id).video_sha256 == farm.reader().job(first.id).video_sha256
    assert (tmp_path / "second.mp4").read_bytes() == clip.read_bytes()
    for kind in ("gif", "webp"):
        with Image.open(tmp_path / f"second.{kind}") as image:
            assert (image.format, image.size, image.n_frames) == (kind.upper(), (256, 192), 8)


@pytest.mark.torch
def test_the_real_diffusion_pipeline_renders_a_small_checkpoint(
    client: Farm, picture: Path, tmp_path: Path
) -> None:
    job = client.submit(
        picture, model="i2vgen-xl-small", width=64, height=64, frames=4, steps=2, guidance=7.5, fps=4, seed=1,
        prompt="A person walking forward naturally",
    )  # fmt: skip
    done = client.wait(job.id)
    assert done.status == JobStatus.FINISHED, client.log(job.id)
    assert not done.draft
    verify(client.video(job.id, tmp_path / "clip.mp4"), width=64, height=64, frames=4, fps=4)
    assert {"load", "encode_prompt", "encode_image", "denoise", "decode"} <= set(
        done.attempts[-1].stage_seconds
    )


def test_a_running_job_stops_when_cancelled_and_the_card_takes_the_next(client: Farm, picture: Path) -> None:
    long = client.submit(picture, **LONG)
    wait_until(lambda: client.job(long.id).status == JobStatus.RUNNING, 20, "it runs")
    client.cancel(long.id)
    wait_until(lambda: client.job(long.id).status == JobStatus.CANCELLED, 5, "it stopped")
    assert client.wait(client.submit(picture, **SMALL).id).status == JobStatus.FINISHED


def test_jobs_that_wait_tell_their_place_their_time_and_why(client: Farm, picture: Path) -> None:
    """Nobody knows how long a clip takes (FramePack#151), and no reason is shown why a job waits (gflow PR#208)."""
    # The outlook is told every five seconds: the first clip must take longer, on a quick PC too.
    long, *waiting = (client.submit(picture, **{**LONG, "frames": 200}) for _ in range(3))
    last = waiting[-1].id
    wait_until(lambda: client.job(long.id).status == JobStatus.RUNNING, 20, "the first runs")
    wait_until(lambda: client.job(last).position == 2, 20, "the others wait")
    wait_until(lambda: client.job(last).eta is not None, 20, "the time is told")
    wait_until(lambda: client.job(long.id).eta is not None, 20, "the running one's too")
    told = client.job(last)
    assert told.eta is not None
    assert told.created_at < told.eta.low_at <= told.eta.at <= told.eta.high_at
    assert (told.why_pending or "").endswith("which is busy.")
    for job in (*waiting, long):
        client.cancel(job.id)
    wait_until(lambda: client.job(long.id).ended, 10, "it stopped")
    done = client.wait(client.submit(picture, **SMALL).id)
    (attempt,) = done.attempts
    assert attempt.predicted_s is not None
    assert attempt.predicted_low_s is not None
    assert attempt.predicted_high_s is not None
    assert attempt.predicted_low_s < attempt.predicted_s < attempt.predicted_high_s


def test_a_job_no_card_can_serve_says_so_at_once(client: Farm, picture: Path) -> None:
    job = client.submit(picture, preset="standard", prompt="A person walking")
    wait_until(lambda: client.job(job.id).unplaceable is not None, 10, "unplaceable")
    assert "needs a GPU" in (client.job(job.id).unplaceable or "")
    client.cancel(job.id)
    wait_until(lambda: client.job(job.id).status == JobStatus.CANCELLED, 5, "cancelled")


def test_a_worker_killed_in_mid_render_is_replaced_and_the_job_runs_again(
    farm: FarmProcess, client: Farm, picture: Path
) -> None:
    long = client.submit(picture, **{**LONG, "frames": 60})
    wait_until(lambda: steps_done(client, long.id) > 2, 30, "it renders")
    (worker,) = card_workers(farm)
    os.kill(worker, signal.SIGKILL)
    assert client.wait(long.id).status == JobStatus.FINISHED
    first, second = farm.reader().attempts(long.id)
    assert (first.status, second.status) == (AttemptStatus.LOST, AttemptStatus.FINISHED)
    assert "ended in the middle" in (first.reason or "")


def test_kill_9_of_the_scheduler_in_mid_job_and_the_result_arrives_once(
    farm: FarmProcess, client: Farm, picture: Path
) -> None:
    job = client.submit(picture, **LONG)
    waiting = client.submit(picture, **SMALL)
    wait_until(lambda: steps_done(client, job.id) > 2, 30, "it renders")
    former = farm.pid_of("scheduler")
    farm.kill("scheduler")
    assert (
        client.submit(picture, **SMALL).status == JobStatus.QUEUED
    )  # the web takes jobs while nobody schedules
    assert client.wait(job.id).status == JobStatus.FINISHED
    assert client.wait(waiting.id).status == JobStatus.FINISHED
    assert farm.pid_of("scheduler") != former
    (attempt,) = farm.reader().attempts(job.id)
    assert attempt.status == AttemptStatus.FINISHED
    assert [line.what for line in farm.reader().story(job.id)].count("finished") == 1


def test_a_client_with_a_wrong_token_is_told_so(farm: FarmProcess) -> None:
    with Farm(farm.address, "wrong") as stranger, pytest.raises(FarmError, match="not one of this farm's"):
        stranger.jobs()
