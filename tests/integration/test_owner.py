"""The owner of a PC plays on a graphics card of a real farm. `tests/whole_farm/test_owner.py` has what needs no card."""

import json
import os
import time
from pathlib import Path

import pytest

from node_agent.owner import OwnerRules
from tests.fake_nvml import FIXTURES
from tests.farm_process import FarmProcess, card_workers
from tests.waiting import wait_until

pytestmark = pytest.mark.ray

LIMIT_S = 30.0
ROOT = Path(__file__).parent.parent.parent


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
        wait_until(lambda: bool(card_workers(farm)), LIMIT_S, "it has a worker")
        card["graphics"], card["used_mib"] = game, 4388
        put(nvml, pc)
        wait_until(lambda: not card_workers(farm), LIMIT_S, "the worker leaves the card")
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
