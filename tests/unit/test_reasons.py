"""Why a job of a kind that the scheduler has not told of waits: looked at once for its kind, and again after a moment."""

from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.reasons import FRESH_S, Reasons
from dashboard.stream import Live
from farm.catalogue.models import builtin_models
from farm.feed import CardChanged, LiveCard
from farm.model import Card, CardKind, Job, JobStatus, Node, Tier
from farm.planning import eligibility
from tests.fakes import MovedClock
from tests.storage import SETTINGS, Storage, open_storage

JOB = Job("J", JobStatus.QUEUED, SETTINGS, Tier.PREVIEW, "ab", 1.0, draft=True)
CPU = Card("CPU-1", "n1", CardKind.CPU, "Ryzen 5", models=frozenset({"animatic"}))


@pytest.fixture
def store(tmp_path: Path):
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


def reasons(store: Storage, clock: MovedClock, live: Live) -> Reasons:
    return Reasons(store.reader, live, builtin_models(), lambda: "soft", clock)


def busy(card_id: str, state: str = "busy") -> CardChanged:
    return CardChanged(LiveCard(card_id, "n1", "attic", "Ryzen 5", state))  # type: ignore[arg-type]  # a state's name


def test_what_it_says_follows_the_cards_within_moments(store: Storage, tmp_path: Path) -> None:
    clock, live = MovedClock(), Live(tmp_path / "none.sock")
    why = reasons(store, clock, live).why
    assert why(JOB) == "No card has joined the farm yet: start `farm join` on a PC."
    store.registry.see_node(Node("n1", "attic", "10.0.0.2"), [CPU, replace(CPU, id="CPU-2")], 1.0)
    live.take(busy("CPU-1"))
    live.take(busy("CPU-2", "drained"))
    assert why(JOB).startswith("No card has joined"), "said a moment ago"
    clock.move(FRESH_S)
    assert why(JOB) == "Waits for one of 2 cards that can run it: 1 is busy, 1 is drained."
    needs = replace(JOB, needs=("studio",))
    assert why(needs).startswith(
        "No card can run it. The nearest is Ryzen 5: it needs a PC with the tag studio"
    )


def test_a_list_of_one_kind_on_many_cards_alike_asks_the_planner_once(
    store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    plain = eligibility.check
    monkeypatch.setattr("dashboard.reasons.check", lambda *of: (asked.append(of), plain(*of))[1])
    cards = [replace(CPU, id=f"CPU-{number}", facts=None) for number in range(50)]
    store.registry.see_node(Node("n1", "attic", "10.0.0.2"), cards, 1.0)
    why = reasons(store, MovedClock(), Live(tmp_path / "none.sock")).why
    assert {why(replace(JOB, id=f"J{number}")) for number in range(200)} == {"Its turn comes next."}
    assert len(asked) == 1
    why(replace(JOB, settings=replace(SETTINGS, frames=16)))
    assert len(asked) == 2
