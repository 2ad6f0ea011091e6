"""A farm whose other PC has no weights: the head takes a model in, the PC fetches it by itself and renders with it. Everything is real."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from farm.auth import TokenKind, new_token
from farm.client import Farm
from farm.model import JobStatus
from farm.store.engine import open_engine
from farm.store.registry import Registry
from farm.video import verify
from farm.weights import Shelf
from tests.checkpoints import small_row_toml, write_small_i2vgen
from tests.farm_process import FarmProcess, free_ray_port
from tests.farm_verbs import run_apart
from tests.pictures import street
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

MODEL = "i2vgen-xl-small"
LIMIT_S = 90.0


def pull(farm: FarmProcess, models: Path, checkpoint: Path) -> None:
    words = ("models", "pull", MODEL, "--from", str(checkpoint), "--data", str(farm.data.root))
    done = run_apart(words, {"FARM_MODELS_FILE": str(models)})
    assert done.returncode == 0, done.stderr


def join(farm: FarmProcess, home: Path, environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    engine = open_engine(farm.data.database_url, writes=True)
    code = new_token()
    Registry(engine).add_token(code, TokenKind.JOIN, "test", time.time(), expires_at=time.time() + 600)
    engine.dispose()
    with log.open("wb") as out:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "farm.cli.main", "join", farm.address, "--token", code),
                *("--name", "attic", "--home", str(home), "--ray-port", str(free_ray_port() + 480)),
            ],
            env={**os.environ, **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def node_card(client: Farm, name: str) -> list[str]:
    """The models of a PC's card; empty while it has none."""
    return [model for card in client.cards() if card.node_name == name for model in card.models]


def test_a_pc_without_weights_gets_them_from_the_head_and_renders(tmp_path: Path) -> None:
    checkpoint = write_small_i2vgen(tmp_path / "small")
    models = tmp_path / "models.toml"
    models.write_text(small_row_toml(MODEL, tmp_path / "nowhere"))
    picture, home = tmp_path / "street.png", tmp_path / "attic"
    street(256, 192).image.save(picture)
    environment = {"FARM_MODELS_FILE": str(models), "HF_HOME": str(tmp_path / "empty-cache")}
    with FarmProcess(tmp_path / "data", **environment) as farm, farm.client() as client:
        settings = {"model": MODEL, "width": 64, "height": 64, "frames": 4, "steps": 2, "prompt": "waves"}
        joined = join(farm, home, environment, tmp_path / "join.log")
        try:
            wait_until(lambda: "animatic" in node_card(client, "attic"), LIMIT_S, "the PC joins")
            early = client.submit(picture, seed=1, anywhere=True, **settings)
            told = f"Run `farm models pull {MODEL}` on the head."
            wait_until(
                lambda: told in (client.job(early.id).unplaceable or ""), LIMIT_S, "the job says what helps"
            )
            (head_node,) = (node for node in client.nodes() if node.name != "attic")
            client.drain(head_node.id)  # so that it is the other PC that renders
            pull(farm, models, checkpoint)
            wait_until(lambda: MODEL in node_card(client, "attic"), LIMIT_S, "the PC has fetched it")
            done = client.wait(early.id)
            assert done.status == JobStatus.FINISHED, done.failure
            late = client.wait(client.submit(picture, seed=2, anywhere=True, **settings).id)
            assert late.status == JobStatus.FINISHED, late.failure
            verify(client.video(late.id, tmp_path / "clip.mp4"), width=64, height=64, frames=4, fps=8)
            for job in (early, late):
                (attempt,) = farm.reader().attempts(job.id)
                assert attempt.node_id != head_node.id
            theirs, ours = Shelf(home / "models").manifests(), Shelf(farm.data.models).manifests()
            assert theirs == ours
            assert len(ours) == 1
            assert not (farm.data.node_home / "models").exists(), "the head's own node reads the head's shelf"
        finally:
            joined.terminate()
            joined.wait(30)
