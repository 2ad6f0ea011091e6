"""Card workers that die or hang while nobody works on them: the next job must not pay for it."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.client import Farm
from farm.model import AttemptStatus, JobStatus
from tests.farm_process import FarmProcess, card_workers, processes_below
from tests.pictures import street
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

SMALL = {"preset": "draft", "width": 256, "height": 192, "frames": 8, "prompt": "pan left"}
LEASE_S = 2
"""A worker that does not answer is replaced after ten leases; with the default of 30 s the test would take minutes."""


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "street.png"
    street(640, 480).image.save(path)
    return path


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmProcess]:
    with FarmProcess(tmp_path_factory.mktemp("farm") / "data", FARM_LEASE_S=str(LEASE_S)) as running:
        yield running


@pytest.fixture
def client(farm: FarmProcess) -> Iterator[Farm]:
    with farm.client() as client:
        yield client


def workers(farm: FarmProcess) -> set[int]:
    """The process ids of the card workers."""
    return set(card_workers(farm))


def is_under_test(farm: FarmProcess) -> bool:
    """Whether a worker's tiny render is under way; it takes a second or more."""
    return bool(processes_below(farm.pid_of("ray"), "node_agent.tryout"))


def statuses(farm: FarmProcess, job_id: str) -> list[AttemptStatus]:
    return [attempt.status for attempt in farm.reader().attempts(job_id)]


def test_a_worker_killed_while_idle_is_replaced_and_the_next_job_loses_nothing(
    farm: FarmProcess, client: Farm, picture: Path
) -> None:
    """The scheduler kept the dead worker's handle, and the next job's first attempt was lost to it."""
    assert client.wait(client.submit(picture, **SMALL).id).status == JobStatus.FINISHED
    (former,) = workers(farm)
    os.kill(former, signal.SIGKILL)
    wait_until(lambda: bool(workers(farm) - {former}), 30, "its node starts another")
    job = client.wait(client.submit(picture, **SMALL).id)
    assert job.status == JobStatus.FINISHED
    assert statuses(farm, job.id) == [AttemptStatus.FINISHED]


def test_a_worker_that_hangs_while_idle_is_replaced_and_the_next_job_loses_nothing(
    farm: FarmProcess, client: Farm, picture: Path
) -> None:
    """Its card counted as free: job after job waited there for its lease, and after five losses was given up."""
    assert client.wait(client.submit(picture, **SMALL).id).status == JobStatus.FINISHED
    (former,) = workers(farm)
    os.kill(former, signal.SIGSTOP)
    wait_until(lambda: client.cards()[0].state == "starting", 30, "its card gets no work")
    job = client.submit(picture, **SMALL)
    # Ray may end the former process, which is stopped, only after the fresh one has begun.
    wait_until(lambda: is_under_test(farm), 60, "the fresh worker makes a tiny clip before it gets work")
    assert client.job(job.id).status == JobStatus.QUEUED
    wait_until(lambda: former not in workers(farm), 60, "its process is ended")
    assert client.wait(job.id).status == JobStatus.FINISHED
    assert statuses(farm, job.id) == [AttemptStatus.FINISHED]


def test_a_drained_pc_takes_no_work_until_it_is_resumed(
    farm: FarmProcess, client: Farm, picture: Path
) -> None:
    wait_until(lambda: bool(client.cards()), 30, "its PC is there")
    (node,) = client.nodes()
    client.drain(node.id)
    wait_until(lambda: client.cards()[0].state == "drained", 30, "its card shows it")
    job = client.submit(picture, **SMALL)
    other = client.submit(picture, **SMALL)
    client.cancel(other.id)
    wait_until(lambda: client.job(other.id).status == JobStatus.CANCELLED, 10, "the scheduler has looked")
    assert client.job(job.id).status == JobStatus.QUEUED
    assert client.nodes()[0].drained_at is not None
    client.resume(node.id)
    assert client.wait(job.id).status == JobStatus.FINISHED
    assert client.cards()[0].state != "drained"
