"""The worker's disk."""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from farm.events import Cancelled, Done, Event, Failed, Loading, Rendering, SpooledFile, Yielded
from farm.model import FailureClass, MemoryPlan, StageKind
from farm.wire import Order, order_from_dict
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


@pytest.mark.parametrize("name", ["../order.json", ".hidden", "no-such-file", ""])
def test_only_files_of_the_attempt_are_read(spool: Spool, name: str) -> None:
    with pytest.raises(FileNotFoundError):
        spool.read("A1", name)


def test_a_forgotten_attempt_is_gone_and_forgetting_twice_is_no_fault(spool: Spool) -> None:
    spool.append(Loading("A1", 1, 1.0))
    spool.forget("A1")
    spool.forget("A1")
    assert spool.attempts() == ()
    assert spool.events("A1", 0) == []


FILE = SpooledFile("video.mp4", "ab" * 32, 3, "video/mp4")
FINAL: list[Event] = [
    Done("A1", 2, 2.0, FILE, FILE, {"render": 1.0}, None),
    Failed("A1", 2, 2.0, FailureClass.INTERNAL, "It broke."),
    Cancelled("A1", 2, 2.0),
]


def test_the_order_lies_beside_the_events(spool: Spool) -> None:
    assert order_from_dict(json.loads((spool.directory("A1") / "order.json").read_text())) == ORDER


def test_an_attempt_that_was_killed_before_its_first_word_is_listed_and_so_can_be_forgotten(
    spool: Spool,
) -> None:
    """Only attempts with events were listed: the directory of a worker killed before its first event stayed for ever."""
    (spool.root / "A2").mkdir()  # killed before even its order was written
    (spool.root / "lost+found").mkdir()
    (spool.root / "note").write_text("not an attempt")
    assert spool.attempts() == ("A1", "A2")
    for attempt in spool.attempts():
        spool.forget(attempt)
    assert spool.attempts() == ()
    assert sorted(entry.name for entry in spool.root.iterdir()) == ["lost+found", "note"]


def test_zeros_left_by_a_power_cut_are_left_out(spool: Spool) -> None:
    """Some file systems fill what was not yet written with zeros; five of them were a UnicodeDecodeError for every reader."""
    spool.append(Loading("A1", 1, 1.0))
    for zeros in (1, 4, 5, 4096):
        (spool.directory("A1") / "events.jsonl").write_bytes(
            (spool.directory("A1") / "events.jsonl").read_bytes().rstrip(b"\0") + bytes(zeros)
        )
        assert [event.seq for event in spool.events("A1", 0)] == [1]


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_wherever_the_last_line_is_cut_the_ones_before_stay(spool: Spool, cut: int) -> None:
    spool.append(Loading("A1", 1, 1.0))
    spool.append(Rendering("A1", 2, 2.0))
    path = spool.directory("A1") / "events.jsonl"
    path.write_bytes(path.read_bytes()[: -1 - cut])
    assert [event.seq for event in spool.events("A1", 0)] == [1]


@pytest.mark.parametrize("final", FINAL, ids=lambda event: event.kind)
def test_the_last_event_is_on_the_disk_before_anyone_hears_of_it(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, final: Event
) -> None:
    spool.append(Loading("A1", 1, 1.0))
    assert not spool.ended("A1")
    order: list[str] = []
    real_fsync, real_notify = os.fsync, spool._changed.notify_all

    def fsync(descriptor: int) -> None:
        assert spool.events("A1", 1) == [final], "what is brought to the disk is the whole line"
        order.append("disk")
        real_fsync(descriptor)

    def notify() -> None:
        order.append("heard")
        real_notify()

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(spool._changed, "notify_all", notify)
    spool.append(final)
    assert order == ["disk", "heard"]
    assert spool.ended("A1")


def test_a_step_is_not_worth_a_wait_for_the_disk(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _descriptor: pytest.fail("only last events wait for the disk"))
    spool.append(Loading("A1", 1, 1.0))


def test_followers_of_several_attempts_each_hear_their_own(spool: Spool) -> None:
    heard: dict[str, list[Event]] = {}

    def follow(name: str) -> None:
        heard[name] = spool.follow(name, 0, 60.0)

    followers = [threading.Thread(target=follow, args=(name,)) for name in ("A1", "A2")]
    (spool.root / "A2").mkdir()
    for follower in followers:
        follower.start()
    spool.append(Loading("A2", 1, 1.0))
    followers[1].join(30)
    assert followers[0].is_alive(), "another attempt's event is no news of this one"
    spool.append(Loading("A1", 1, 1.0))
    followers[0].join(30)
    assert heard == {"A1": [Loading("A1", 1, 1.0)], "A2": [Loading("A2", 1, 1.0)]}


def test_files_of_an_attempt_are_read_by_name(spool: Spool) -> None:
    (spool.directory("A1") / "video.mp4").write_bytes(b"mp4")
    assert spool.read("A1", "video.mp4") == b"mp4"


def test_another_process_sees_what_is_spooled(spool: Spool) -> None:
    spool.append(Loading("A1", 1, 1.0))
    assert Spool(spool.root).events("A1", 0) == [Loading("A1", 1, 1.0)]
    assert Spool(spool.root).attempts() == ("A1",)


def test_a_process_that_was_killed_in_the_middle_of_a_line_leaves_room_for_the_last_word(
    spool: Spool,
) -> None:
    """The last word was glued to half a line, and could not be read any more."""
    name = ORDER.attempt_id
    assert spool.left_by(os.getpid()) == (name,)
    spool.append(Loading(name, 1, 1.0))
    with (spool.directory(name) / "events.jsonl").open("ab") as file:
        file.write(b'{"attempt_id": "A1", "se')
    spool.end(name, lambda seq: Yielded(name, seq, 2.0, "Kept."))
    assert spool.events(name, 0) == [Loading(name, 1, 1.0), Yielded(name, 2, 2.0, "Kept.")]
    assert spool.ended(name)
    assert spool.left_by(os.getpid()) == ()
    assert spool.left_by(1) == ()
