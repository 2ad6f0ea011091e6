"""What the scheduler makes of the nodes' reports."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from farm.feed import CardChanged, FeedMessage, LiveCard
from farm.model import Attempt, AttemptStatus, Card, Coming, Job, MemoryPlan, StageKind
from farm.planning.eligibility import Verdict
from farm.store.registry import Heard
from farm.vitals import CardFacts, Vitals
from farm.wire import NodeReport, Order
from scheduler import watch
from scheduler.board import Board
from scheduler.cluster import NodeGoneError
from scheduler.doubts import ANSWER_LEASES, ENDED, SILENT, STOP_LEASES, STRAY
from scheduler.leases import SILENT_AFTER_S, Leases
from scheduler.nodebook import STORE_EVERY_S
from scheduler.policy import Policy
from scheduler.watch import Watch
from tests.fakes import FakeCluster, MovedClock
from tests.storage import SETTINGS, Storage, open_storage


@dataclass
class Post:
    """A watch and all that it speaks to."""

    store: Storage
    cluster: FakeCluster = field(default_factory=FakeCluster)
    clock: MovedClock = field(default_factory=MovedClock)
    leases: Leases = field(default_factory=lambda: Leases(30.0))
    told: list[FeedMessage] = field(default_factory=list)
    holders: dict[str, str] = field(default_factory=dict)
    attended: set[str] = field(default_factory=set)
    reports: list[NodeReport] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.policy = Policy(_anything)
        self.board = Board(self.told.append)
        self.watch = Watch(
            self.cluster,
            self.store.registry,
            self.policy,
            self.board,
            self.leases,
            self.clock,
            holder=self.holders.get,
            work=lambda _card_id: None,
            attended=lambda: frozenset(self.attended),
            spooled=self.reports.append,
            changed=lambda: self.changes.append(1),
        )

    def round(self) -> None:
        asyncio.run(self.watch.round())

    def live(self, card_id: str) -> LiveCard:
        return {card.id: card for card in self.board.snapshot().cards}[card_id]

    def free(self) -> set[str]:
        return set(self.policy._scene.free)


def order(attempt_id: str) -> Order:
    return Order(attempt_id, "J1", StageKind.GENERATE, SETTINGS, MemoryPlan(), "ab" * 32)


def _anything(_job: Job, _card: Card) -> Verdict:
    return Verdict(True, (), MemoryPlan(), 1.0)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    store = open_storage(tmp_path)
    yield Post(store)
    store.close()


def test_reported_cards_are_free_shown_and_stored(post: Post) -> None:
    first, second = post.cluster.add_node("n1", cards=2)
    post.holders[second] = "J1"
    post.round()
    assert post.free() == {first}
    assert (post.live(first).state, post.live(second).state) == ("idle", "busy")
    assert post.live(second).job_id == "J1"
    assert {card.id for card in post.store.reader.cards()} == {first, second}
    assert [report.node_id for report in post.reports] == ["n1"]
    assert post.changes


def test_what_its_owner_set_is_stored_and_changed_with_the_next_report(post: Post) -> None:
    post.cluster.add_node("n1")
    told = []
    for rules in ("", "hours 22:00-08:00", "only while nobody uses the PC", ""):
        post.cluster.owner_rules["n1"] = rules
        post.round()
        told.append(post.store.reader.node("n1").owner_rules)
    assert told == ["", "hours 22:00-08:00", "only while nobody uses the PC", ""]


def test_how_a_card_is_goes_out_with_each_report_that_says_something_new(post: Post) -> None:
    """Only the history had what nodes read; a reading that differs in its time alone would wake every page every two seconds."""
    (card,) = post.cluster.add_node("n1")
    (report,) = post.cluster.cards["n1"]
    told: list[tuple[float | None, float | None]] = []
    for at, watts, others in ((1.0, 30.0, 0.0), (3.0, 30.0, 0.0), (5.0, 155.0, 0.0), (7.0, 155.0, 2.5)):
        vitals = Vitals(at, power_w=watts)
        post.cluster.cards["n1"] = [replace(report, vitals=vitals, others_gib=others)]
        post.told.clear()
        post.round()
        told += [
            (one.card.vitals.power_w, one.card.others_gib)
            for one in post.told
            if isinstance(one, CardChanged) and one.card.vitals is not None
        ]
    assert told == [(30.0, 0.0), (155.0, 0.0), (155.0, 2.5)]
    post.cluster.gone.add("n1")
    post.clock.move(SILENT_AFTER_S + 1.0)
    post.round()
    assert (post.live(card).vitals, post.live(card).others_gib) == (None, None)


def test_a_card_that_its_worker_has_not_tested_gets_no_work_yet(post: Post) -> None:
    """A card got its first job before anyone knew whether the installed torch serves it."""
    (card,) = post.cluster.add_node("n1")
    (report,) = post.cluster.cards["n1"]
    post.cluster.cards["n1"] = [replace(report, tested=False)]
    post.round()
    assert post.free() == set()
    assert (post.live(card).state, post.live(card).why) == ("starting", "its worker is starting and tests it")
    post.cluster.cards["n1"] = [report]
    post.round()
    assert post.free() == {card}


def test_a_model_on_its_way_is_stored_and_told_as_it_comes(post: Post) -> None:
    (card,) = post.cluster.add_node("n1")
    (report,) = post.cluster.cards["n1"]
    for done, line in ((430, "svd 43 %, 1 kB to go"), (1000, "svd 100 %, 0 kB to go")):
        coming = (Coming("svd", done, 1000),)
        post.cluster.cards["n1"] = [replace(report, coming=coming)]
        post.round()
        assert post.store.reader.cards()[0].coming == coming
        assert post.live(card).fetching == (line,)
    assert len([told for told in post.told if isinstance(told, CardChanged)]) == 2
    assert post.free() == {card}, "it works on what it has meanwhile"


def test_a_node_that_falls_silent_gets_no_work_and_is_named(post: Post) -> None:
    (card,) = post.cluster.add_node("n1")
    post.round()
    post.cluster.gone.add("n1")
    post.clock.move(SILENT_AFTER_S)
    post.round()
    assert post.free() == {card}
    post.clock.move(0.5)
    post.round()
    assert post.free() == set()
    assert (post.live(card).state, post.live(card).silent_s) == ("not answering", SILENT_AFTER_S + 0.5)
    assert post.live(card).why == "its PC does not answer"
    post.cluster.gone.clear()
    post.round()
    assert post.free() == {card}


def test_cards_of_the_store_wait_for_their_node(post: Post) -> None:
    (card,) = post.store.add_cards(1, "n1")
    post.watch.know(post.store.reader.nodes(), post.store.reader.cards())
    assert post.free() == set()
    assert post.live(card.id).why == "has not answered since the scheduler was started"


def test_a_doubted_card_waits_for_its_node_s_next_report(post: Post) -> None:
    (card,) = post.cluster.add_node("n1")
    post.round()
    post.watch.doubt(card, "its worker ended")
    post.watch.refresh(card)
    assert post.free() == set()
    assert post.live(card).state == "starting"
    post.round()
    assert post.free() == {card}


def test_a_worker_inside_an_attempt_that_nobody_attends_is_told_to_stop_and_gets_no_work_until_it_has(
    post: Post,
) -> None:
    (card,) = post.cluster.add_node("n1")
    post.cluster.workers[card].order = order("A1")
    post.cluster.stubborn.add(card)
    post.attended.add("A1")
    post.round()
    assert post.cluster.workers[card].cancelled == set()
    post.attended.clear()
    post.round()
    assert post.cluster.workers[card].cancelled == {"A1"}
    assert post.free() == set()
    assert (post.live(card).state, post.live(card).why) == ("starting", STRAY)
    post.cluster.stubborn.clear()
    post.round()  # told once more, and now it stops
    assert post.free() == set()
    post.round()
    assert post.free() == {card}
    assert post.cluster.replaced == []


def test_a_worker_that_does_not_stop_is_replaced_after_its_grace(post: Post) -> None:
    (card,) = post.cluster.add_node("n1")
    post.cluster.workers[card].order = order("A1")
    post.cluster.stubborn.add(card)
    post.round()
    post.clock.move(STOP_LEASES * 30.0)
    post.round()
    assert post.cluster.replaced == []
    post.clock.move(0.5)
    post.round()
    assert post.cluster.replaced == [card]
    post.round()
    assert post.free() == {card}


def test_a_worker_that_does_not_answer_gets_no_work_and_is_replaced_after_its_grace(post: Post) -> None:
    """A hung worker kept its card free: each job waited for its lease there, and after five was given up."""
    (card,) = post.cluster.add_node("n1")
    post.cluster.stuck.add(card)
    post.round()
    assert post.free() == set()
    assert (post.live(card).state, post.live(card).why) == ("starting", SILENT)
    post.clock.move(ANSWER_LEASES * 30.0)
    post.round()
    assert post.cluster.replaced == []
    post.clock.move(0.5)
    post.round()
    assert post.cluster.replaced == [card]
    post.round()
    assert post.free() == {card}


def test_a_worker_too_busy_to_answer_is_left_to_the_lease_of_its_attempt(post: Post) -> None:
    (card,) = post.cluster.add_node("n1")
    post.holders[card] = "J1"
    post.cluster.stuck.add(card)
    for _ in range(3):
        post.round()
        post.clock.move(ANSWER_LEASES * 30.0)
    assert post.cluster.replaced == []
    assert post.live(card).state == "busy"


def test_a_report_that_was_asked_for_before_the_doubt_does_not_take_it_away(post: Post) -> None:
    """The attempt was lost while its node's report was under way: what that report said of the card was old already."""
    (card,) = post.cluster.add_node("n1")
    post.round()
    original = post.cluster.report

    async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
        said = await original(node_id)
        post.watch.doubt(card, ENDED)
        return said

    post.cluster.report = report  # type: ignore[method-assign]  # the loss comes in between
    post.round()
    assert post.free() == set()
    post.cluster.report = original  # type: ignore[method-assign]
    post.round()
    assert post.free() == {card}


def test_an_attempt_that_ended_while_the_report_was_under_way_is_no_stray(post: Post) -> None:
    (card,) = post.cluster.add_node("n1")
    post.cluster.workers[card].order = order("A1")
    post.attended.add("A1")
    original = post.cluster.report

    async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
        said = await original(node_id)
        post.attended.clear()
        return said

    post.cluster.report = report  # type: ignore[method-assign]  # the end comes in between
    post.round()
    assert post.free() == {card}
    assert post.cluster.workers[card].cancelled == set()


def test_a_node_that_hangs_does_not_silence_the_others(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round waited for its slowest node, ten seconds for one that hung; by then all others counted as not answering."""
    monkeypatch.setattr(watch, "EVERY_S", 0.01)
    post.cluster.add_node("hangs")
    (card,) = post.cluster.add_node("works")
    original = post.cluster.report
    asked: list[str] = []

    async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
        asked.append(node_id)
        if node_id == "hangs":
            await asyncio.Event().wait()
        return await original(node_id)

    post.cluster.report = report  # type: ignore[method-assign]  # one node owes its answer for ever

    async def rounds() -> None:
        for _ in range(3):
            post.clock.move(SILENT_AFTER_S + 1.0)
            await asyncio.wait_for(post.watch.round(), 10.0)
            assert post.free() == {card}

    asyncio.run(rounds())
    assert asked == ["hangs", "works", "works", "works"], "a node that owes an answer is not asked again"


def test_a_late_answer_counts_when_it_comes(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "EVERY_S", 0.01)
    (card,) = post.cluster.add_node("n1")
    original = post.cluster.report

    async def story() -> None:
        answer = asyncio.Event()

        async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
            await answer.wait()
            return await original(node_id)

        post.cluster.report = report  # type: ignore[method-assign]  # takes longer than a round
        await post.watch.round()
        assert post.free() == set()
        told = len(post.changes)
        answer.set()
        await asyncio.wait_for(_until(lambda: post.free() == {card}), 10.0)
        assert len(post.changes) > told, "the scheduler is woken"

    asyncio.run(story())


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0)


def test_a_card_that_its_pc_no_longer_reports_gets_no_work(post: Post) -> None:
    """A card that was taken out, or fell off its bus, stayed idle for ever and was given one job after the other."""
    first, second = post.cluster.add_node("n1", cards=2)
    (elsewhere,) = post.cluster.add_node("n2")
    post.round()
    kept, removed = post.cluster.cards["n1"]
    post.cluster.cards["n1"] = [kept]
    post.round()
    assert post.free() == {first, elsewhere}
    assert (post.live(second).state, post.live(second).why) == ("trouble", "its PC no longer has it")
    post.cluster.cards["n1"] = [kept, removed]
    post.round()
    assert post.free() == {first, second, elsewhere}
    assert post.live(second).state == "idle"


def test_one_node_s_unusable_report_does_not_keep_the_others_waiting(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    """One node with a report of another version ended every round before any card was seen to: the whole farm stood still."""
    post.cluster.add_node("bad")
    (card,) = post.cluster.add_node("good")
    original = post.cluster.report

    async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
        if node_id == "bad":
            raise ValueError("a field is missing")
        return await original(node_id)

    post.cluster.report = report  # type: ignore[method-assign]  # one node speaks nonsense
    with caplog.at_level(logging.ERROR):
        post.round()
    assert post.free() == {card}
    assert post.changes
    assert "the report of node bad cannot be used" in caplog.text


def test_a_card_is_told_of_only_when_something_changed(post: Post) -> None:
    post.cluster.add_node("n1")
    post.round()
    told = len(post.told)
    post.clock.move(1.0)
    post.round()
    assert len(post.told) == told


def test_a_card_that_is_kept_for_its_owner_gets_no_work_and_says_why(post: Post) -> None:
    (card,) = post.cluster.add_node("n1")
    (report,) = post.cluster.cards["n1"]
    post.cluster.cards["n1"] = [replace(report, kept="space.x86_64 uses the card")]
    post.round()
    assert post.free() == set()
    assert (post.live(card).state, post.live(card).why) == (
        "kept",
        "kept for its owner: space.x86_64 uses the card",
    )
    assert post.watch.kept(card) == "space.x86_64 uses the card"
    (stored,) = post.store.reader.cards()
    assert stored.kept == "space.x86_64 uses the card"
    post.cluster.cards["n1"] = [report]
    post.round()
    assert post.free() == {card}
    assert post.watch.kept(card) is None


def test_what_others_hold_and_what_nvml_tells_reach_the_store(post: Post) -> None:
    post.cluster.add_node("n1")
    (report,) = post.cluster.cards["n1"]
    facts = CardFacts("00000000:01:00.0", (12, 4), 160.0, ecc=False, retired_pages=0)
    post.cluster.cards["n1"] = [replace(report, usable_gib=1.15, others_gib=4.25, facts=facts)]
    post.round()
    (stored,) = post.store.reader.cards()
    assert (stored.usable_gib, stored.others_gib, stored.facts) == (1.15, 4.25, facts)


def test_silence_is_shown_within_ten_seconds_while_the_round_still_waits(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that vanished was shown up to fourteen seconds later: only rounds looked, and a round waits for who does not answer."""
    assert SILENT_AFTER_S + watch.LOOK_EVERY_S < 10
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(watch, "EVERY_S", 600.0)
    (card,) = post.cluster.add_node("n1")

    async def story() -> None:
        running = asyncio.create_task(post.watch.run())
        try:
            await _until(lambda: post.free() == {card})
            post.clock.move(SILENT_AFTER_S + 0.5)
            await _until(lambda: post.live(card).state == "not answering")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())


def test_a_node_that_holds_its_answer_is_asked_again_at_once(post: Post) -> None:
    """Until the next round it would be unheard for two seconds more."""
    (card,) = post.cluster.add_node("n1")
    original, holds = post.cluster.report, []

    async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
        holds.append(hold_s)
        if len(holds) < 4:
            post.clock.move(hold_s)
        return await original(node_id)

    post.cluster.report = report  # type: ignore[method-assign]  # holds three answers, not the fourth
    post.round()
    assert holds == [watch.HOLD_S] * 4
    assert post.free() == {card}
    post.round()
    assert len(holds) == 5, "one that answers at once is asked once a round"


@pytest.mark.parametrize("answers", [True, False])
def test_a_node_that_is_gone_or_silent_is_not_asked_at_once(post: Post, answers: bool) -> None:
    """A PC that came back is another one to Ray, which only a round finds out: its former self would be asked again for ten seconds."""
    post.cluster.add_node("n1")
    original, asked = post.cluster.report, []

    async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
        asked.append(node_id)
        post.clock.move(hold_s)
        if not answers:
            raise NodeGoneError(node_id)
        post.watch._nodes = set()
        return await original(node_id)

    post.cluster.report = report  # type: ignore[method-assign]  # takes its time
    post.round()
    assert asked == ["n1"]
    post.round()
    assert asked == ["n1"] * 2


def test_rounds_follow_each_other_while_answers_are_held(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that has just joined is asked within two seconds, whoever still owes an answer."""
    monkeypatch.setattr(watch, "EVERY_S", 0.01)
    post.cluster.add_node("n1")
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async def report(_node_id: str, hold_s: float = 0.0) -> NodeReport:
        post.clock.move(watch.EVERY_S)
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        monkeypatch.setattr(watch, "LOOK_EVERY_S", 600.0)
        running = asyncio.create_task(post.watch.run())
        monkeypatch.setattr(asyncio, "sleep", noted)
        try:
            while 0.0 not in pauses:
                await sleep(0)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    post.cluster.report = report  # type: ignore[method-assign]  # owes its answer for ever
    asyncio.run(asyncio.wait_for(story(), 10.0))


def test_a_node_with_a_doubted_card_may_not_hold_its_answer(post: Post) -> None:
    (card,) = post.cluster.add_node("n1")
    post.cluster.add_node("n2")
    original, holds = post.cluster.report, {}

    async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
        holds[node_id] = hold_s
        return await original(node_id)

    post.cluster.report = report  # type: ignore[method-assign]  # notes what it was allowed
    post.round()
    post.watch.doubt(card, ENDED)
    post.round()
    assert holds == {"n1": 0.0, "n2": watch.HOLD_S}
    assert post.free() == {card, "CPU-n2-0"}
    post.round()
    assert holds == {"n1": watch.HOLD_S, "n2": watch.HOLD_S}


def test_an_attempt_that_began_and_ended_while_the_answer_was_held_is_no_stray(post: Post) -> None:
    """The node looked in between: it was told to stop what had ended, and its card got no work until it was asked again."""
    (card,) = post.cluster.add_node("n1")
    attempt = Attempt("A1", "J1", 1, "n1", card, "the card", AttemptStatus.ASSIGNED, 1.0)
    original = post.cluster.report

    async def report(node_id: str, hold_s: float = 0.0) -> NodeReport:
        post.watch.begin(attempt)
        post.cluster.workers[card].order = order("A1")
        said = await original(node_id)
        post.cluster.workers[card].order = None
        return said

    post.cluster.report = report  # type: ignore[method-assign]  # the attempt comes and goes meanwhile
    post.round()
    assert post.free() == {card}
    assert post.cluster.workers[card].cancelled == set()


def test_only_a_report_that_changes_how_a_card_stands_wakes_the_scheduler(post: Post) -> None:
    """Each of 200 PCs' reports was a turn of the scheduler's loop, with its questions to the store."""
    post.cluster.add_node("n1")
    (report,) = post.cluster.cards["n1"]
    post.round()
    by_a_round = 1
    for vitals, kept, wakes in (
        (Vitals(1.0, temperature_c=40.0), None, 0),
        (Vitals(3.0, temperature_c=60.0), None, 0),
        (Vitals(5.0), "space uses the card", 1),
        (Vitals(7.0), "space uses the card", 0),
        (Vitals(9.0), None, 1),
    ):
        post.cluster.cards["n1"] = [replace(report, vitals=vitals, kept=kept)]
        post.changes.clear()
        post.round()
        assert len(post.changes) == by_a_round + wakes


def test_nodes_that_say_nothing_new_are_written_down_together_now_and_then(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[list[str]] = []
    hear = post.store.registry.hear_nodes

    def noted(heard: list[Heard]) -> None:
        written.append(sorted(one.node_id for one in heard))
        hear(heard)

    monkeypatch.setattr(post.store.registry, "hear_nodes", noted)
    for name in ("n1", "n2", "n3"):
        post.cluster.add_node(name)
    for _ in range(12):
        post.round()
        post.clock.move(2.0)
    assert written == [["n1", "n2", "n3"]] * 3
    seen = {node.id: node.last_seen for node in post.store.reader.nodes()}
    assert all(post.clock.now() - (at or 0.0) <= STORE_EVERY_S + 2.0 for at in seen.values())
    assert {card.last_seen for card in post.store.reader.cards()} == set(seen.values())
