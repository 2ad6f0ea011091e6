"""The worker's disk."""

import threading
import time
from pathlib import Path

import pytest

from farm.events import Loading, Rendering
from farm.model import MemoryPlan, StageKind
from farm.wire import Order
from node_agent.spool import Spool
from tests.storage import SETTINGS

ORDER = Order("A1", "J1", StageKind.GENERATE, SETTINGS, MemoryPlan(), "ab" * 32)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    made = Spool(tmp_path / "spool")
    made.open(ORDER)
    return made


def test_events_come_back_in_order_and_after_a_number(spool: Spool) -> None:
    told = [Loading("A1", 1, 1.0), Rendering("A1", 2, 2.0)]
    for event in told:
        spool.append(event)
    assert spool.events("A1", 0) == told
    assert spool.events("A1", 1) == told[1:]
    assert spool.attempts() == ("A1",)


def test_a_line_cut_short_by_a_power_cut_is_left_out(spool: Spool) -> None:
    spool.append(Loading("A1", 1, 1.0))
    with (spool.directory("A1") / "events.jsonl").open("ab") as file:
        file.write(b'{"attempt_id": "A1", "seq": 2, "at"')
    assert [event.seq for event in spool.events("A1", 0)] == [1]


def test_a_follower_hears_at_once_and_does_not_wait_longer_than_it_said(spool: Spool) -> None:
    began = time.monotonic()
    assert spool.follow("A1", 0, 0.05) == []
    assert time.monotonic() - began < 5
    teller = threading.Timer(0.05, lambda: spool.append(Loading("A1", 1, 1.0)))
    teller.start()
    assert [event.seq for event in spool.follow("A1", 0, 60.0)] == [1]
    teller.join()


@pytest.mark.parametrize("name", ["../A1", "a/b", "", "..", "."])
def test_what_is_no_attempt_s_name_leads_nowhere(spool: Spool, name: str) -> None:
    with pytest.raises(ValueError, match="not an attempt id"):
        spool.directory(name)


@pytest.mark.parametrize("name", ["../order.json", ".hidden", "no-such-file"])
def test_only_files_of_the_attempt_are_read(spool: Spool, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        spool.read("A1", name)


def test_a_forgotten_attempt_is_gone_and_forgetting_twice_is_no_fault(spool: Spool) -> None:
    spool.append(Loading("A1", 1, 1.0))
    spool.forget("A1")
    spool.forget("A1")
    assert spool.attempts() == ()
    assert spool.events("A1", 0) == []
