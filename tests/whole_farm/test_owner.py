"""The owner of a PC takes it back from the farm, and gives it again."""

import time
from pathlib import Path

import pytest

from farm.model import AttemptStatus, JobStatus
from tests.farm_process import FarmProcess, card_workers, steps_done
from tests.farm_verbs import run_apart, run_here
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

LONG = {"preset": "draft", "width": 960, "height": 544, "frames": 120, "prompt": "zoom"}
LIMIT_S = 30.0


def test_a_paused_pc_gives_its_card_back_and_the_job_says_what_it_waits_for(
    farm: FarmProcess, picture: Path
) -> None:
    home, token = str(farm.data.node_home), farm.data.admin_token.read_text().strip()
    with farm.client() as client:
        job = client.submit(picture, **LONG)
        wait_until(lambda: steps_done(client, job.id) > 2, LIMIT_S, "it renders")
        paused = run_apart(["local", "pause", "--home", home])
        assert paused.returncode == 0, paused.stderr
        began = time.monotonic()
        wait_until(lambda: not card_workers(farm), LIMIT_S, "the card's worker is gone")
        print(f"the worker was gone {time.monotonic() - began:.2f} s after `farm local pause` returned")
        wait_until(lambda: client.job(job.id).status == JobStatus.QUEUED, LIMIT_S, "the job waits again")
        wait_until(lambda: client.cards()[0].state == "kept", LIMIT_S, "its card is shown as kept")
        (card,) = client.cards()
        assert card.why == "kept for its owner: paused on that PC with `farm local pause`"
        waits = (
            f"Waits for {card.name}, which is kept for its owner: paused on that PC with `farm local pause`."
        )
        wait_until(lambda: client.job(job.id).why_pending == waits, LIMIT_S, "the job says what it waits for")
        assert "kept" in run_here(["cards", "--head", farm.address, "--token", token]).stdout
        assert run_here(["local", "resume", "--home", home]).returncode == 0
        assert client.wait(job.id).status == JobStatus.FINISHED
    attempts = farm.reader().attempts(job.id)
    assert [attempt.status for attempt in attempts] == [AttemptStatus.CANCELLED, AttemptStatus.FINISHED]
    assert attempts[0].reason is not None
    assert attempts[0].reason.startswith("The card is kept for its owner: paused")
