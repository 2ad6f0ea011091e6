"""The owner of a PC takes it back from a real farm, and gives it again; another PC leaves for good."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from farm.auth import TokenKind, new_token
from farm.client import Farm
from farm.model import AttemptStatus, JobStatus
from farm.store.engine import open_engine
from farm.store.registry import Registry
from node_agent.owner import OwnerRules
from tests.fake_nvml import FIXTURES
from tests.farm_process import FarmProcess, free_ray_port, steps_done
from tests.pictures import product
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

LONG = {"preset": "draft", "width": 960, "height": 544, "frames": 120, "prompt": "zoom"}
LIMIT_S = 30.0
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmProcess]:
    with FarmProcess(tmp_path_factory.mktemp("farm") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "product.png"
    product(640, 480).image.save(path)
    return path


def verb(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "farm.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def workers(farm: FarmProcess) -> list[int]:
    found = []
    for process in psutil.Process(farm.pid_of("ray")).children(recursive=True):
        try:
            if any("CardWorker" in part for part in process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def test_a_paused_pc_gives_its_card_back_and_the_job_says_what_it_waits_for(
    farm: FarmProcess, picture: Path
) -> None:
    home = str(farm.data.node_home)
    with farm.client() as client:
        job = client.submit(picture, **LONG)
        wait_until(lambda: steps_done(client, job.id) > 2, LIMIT_S, "it renders")
        paused = verb("local", "pause", "--home", home)
        assert paused.returncode == 0, paused.stderr
        began = time.monotonic()
        wait_until(lambda: not workers(farm), LIMIT_S, "the card's worker is gone")
        print(f"the worker was gone {time.monotonic() - began:.2f} s after `farm local pause` returned")
        wait_until(lambda: client.job(job.id).status == JobStatus.QUEUED, LIMIT_S, "the job waits again")
        wait_until(lambda: client.cards()[0].state == "kept", LIMIT_S, "its card is shown as kept")
        (card,) = client.cards()
        assert card.why == "kept for its owner: paused on that PC with `farm local pause`"
        waits = (
            f"Waits for {card.name}, which is kept for its owner: paused on that PC with `farm local pause`."
        )
        wait_until(lambda: client.job(job.id).why_pending == waits, LIMIT_S, "the job says what it waits for")
        assert "kept" in verb("cards", "--head", farm.address, "--token", client_token(farm)).stdout
        assert verb("local", "resume", "--home", home).returncode == 0
        assert client.wait(job.id).status == JobStatus.FINISHED
    attempts = farm.reader().attempts(job.id)
    assert [attempt.status for attempt in attempts] == [AttemptStatus.CANCELLED, AttemptStatus.FINISHED]
    assert attempts[0].reason is not None
    assert attempts[0].reason.startswith("The card is kept for its owner: paused")


def client_token(farm: FarmProcess) -> str:
    return farm.data.admin_token.read_text().strip()


def test_a_pc_that_leaves_takes_its_credential_with_it(
    farm: FarmProcess, tmp_path: Path, picture: Path
) -> None:
    engine = open_engine(farm.data.database_url, writes=True)
    code, home = new_token(), tmp_path / "node"
    Registry(engine).add_token(code, TokenKind.JOIN, "test", time.time(), expires_at=time.time() + 600)
    engine.dispose()
    words = ("join", farm.address, "--token", code, "--name", "attic", "--home", str(home))
    with (tmp_path / "join.log").open("wb") as log:
        join = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "farm.cli.main",
                *words,
                "--ray-port",
                str(free_ray_port() + 480),
                "--hours",
                "mon-sun all",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with farm.client() as client:
            wait_until(lambda: "attic" in states(client), 90, "its card joins")
            wait_until(lambda: states(client)["attic"] == "idle", 90, "its card is ready")
            rules = {node.name: node.owner_rules for node in client.nodes()}
            assert rules["attic"] == "hours mon-sun all"
            node_token = json.loads((home / "farm.json").read_text())["node_token"]
            left = verb("leave", "--home", str(home))
            assert left.returncode == 0, left.stderr
            assert "This PC has left the farm" in left.stdout
            join.wait(30)
            wait_until(lambda: states(client)["attic"] == "not answering", LIMIT_S, "it is shown as away")
        assert not (home / "farm.json").exists()
        assert not (home / "ray-token").exists()
        body = {"name": "attic", "ray_version": "1", "python_version": "3.11"}
        headers = {"Authorization": f"Bearer {node_token}"}
        answer = httpx.post(f"{farm.address}/api/v1/nodes/hello", json=body, headers=headers)
        assert answer.status_code == 401
        again = verb("leave", "--home", str(home))
        assert (again.returncode, "no node of a farm" in again.stderr) == (1, True)
    finally:
        if join.poll() is None:
            join.terminate()
            join.wait(30)


def states(client: Farm) -> dict[str, str]:
    return {card.node_name: card.state for card in client.cards()}


def test_a_game_on_a_graphics_card_is_seen_by_the_node_s_agent(tmp_path: Path) -> None:
    """A real farm with a card of the fake NVML. It renders nothing, since no torch here serves it; its report is what counts."""
    pc = json.loads((FIXTURES / "rtx-2060.json").read_text())
    (card,) = pc["gpus"]
    game, card["graphics"], card["used_mib"] = card["graphics"], [], 190
    nvml = tmp_path / "pc.json"
    put(nvml, pc)
    shim = os.pathsep.join([str(ROOT / "tests" / "nvml_shim"), str(ROOT)])
    farm = FarmProcess(tmp_path / "data", PYTHONPATH=shim, FARM_TEST_NVML=str(nvml))
    OwnerRules(only_idle=True, max_temperature_c=90.0).save(farm.data.node_home)
    with farm, farm.client() as client:
        wait_until(lambda: bool(client.cards()), LIMIT_S, "the card is reported")
        (told,) = client.cards()
        assert (told.name, told.vram_gib, told.usable_gib, told.others_gib) == ("RTX 2060", 6.0, 5.4, 0.0)
        assert told.facts is not None
        assert told.facts.bus_id == "00000000:04:00.0"
        assert told.state != "kept"
        wait_until(lambda: bool(workers(farm)), LIMIT_S, "it has a worker")
        card["graphics"], card["used_mib"] = game, 4388
        put(nvml, pc)
        wait_until(lambda: not workers(farm), LIMIT_S, "the worker leaves the card")
        wait_until(lambda: client.cards()[0].state == "kept", LIMIT_S, "the card is shown as kept")
        (told,) = client.cards()
        assert told.why == "kept for its owner: space.x86_64 uses the card"
        assert (told.usable_gib, told.others_gib) == (1.15, 4.25)
        wait_until(
            lambda: bool(farm.reader().telemetry.of(told.id, time.time() - 600, time.time())),
            60,
            "how it fares becomes history",
        )
        (first, *_) = farm.reader().telemetry.of(told.id, time.time() - 600, time.time())
        assert (first.figures.power_w, first.figures.temperature_c) == (155.2, 71.0)


def put(file: Path, pc: object) -> None:
    """Replaces the PC's file, whole."""
    half = file.with_suffix(".half")
    half.write_text(json.dumps(pc))
    half.replace(file)
