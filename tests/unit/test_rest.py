"""Which workers of a PC with many cards may rest."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError

from node_agent import agent as agent_module
from node_agent.rest import REST_AFTER_S, Rests
from node_agent.standing import Standing, WorkerWord


def idle_for(rests: Rests, cards: list[str], since: float) -> None:
    for at, card in enumerate(cards):
        rests.hear(card, since + at / 10, idle=True)


def test_a_pc_with_one_card_keeps_its_worker_and_one_with_two_keeps_one() -> None:
    """Two warm workers of a slow PC took 3.8 % of a core and more than 400 MB, with the agent."""
    rests = Rests()
    idle_for(rests, ["a"], 0.0)
    assert rests.due(["a"], 10 * REST_AFTER_S) == []
    idle_for(rests, ["a", "b"], 0.0)
    assert rests.due(["a", "b"], 10 * REST_AFTER_S) == ["a"]


def test_of_many_the_longest_idle_rest_and_some_stay() -> None:
    rests, cards = Rests(warm_most=3, rest_after_s=60.0), list("abcdefgh")
    idle_for(rests, cards, 0.0)
    assert rests.due(cards, 59.0) == []
    assert rests.due(cards, 61.0) == list("abcde")
    assert rests.due(list("fgh"), 61.0) == [], "those that rest are no longer asked"


def test_work_a_test_or_a_model_keep_a_worker() -> None:
    rests, cards = Rests(warm_most=1, rest_after_s=60.0), list("abc")
    idle_for(rests, cards, 0.0)
    rests.hear("a", 30.0, idle=False)
    rests.hear("a", 40.0, idle=True)
    rests.stays("b", 61.0)
    assert rests.due(cards, 62.0) == ["c"]
    assert rests.due(cards, 122.0) == ["c", "a"]
    assert rests.due(["a", "b"], 122.0) == ["a"]


def test_a_card_whose_worker_rests_stays_tested_and_its_spills_count() -> None:
    """The process is forgotten: while its successor started slowly, the guard took whatever had its number for the card's worker."""
    standing = Standing()
    standing.hear(WorkerWord(7, tested=True, spills=2, held_gib=1.0), 0.0)
    standing.rest()
    assert standing.word == WorkerWord(None, tested=True)
    standing.hear(WorkerWord(8, tested=True, spills=1), 1.0)
    assert standing.spills == 2


def test_a_worker_that_says_late_that_it_may_rest_is_ended_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy PC its answer came after the agent had ceased to wait. It took no work then, and was "testing" for 5 minutes."""
    said: dict[str, bool] = {}
    asked: list[str] = []
    ended: list[Any] = []

    def get(card: str, timeout: float) -> bool:
        if card not in said:
            raise GetTimeoutError
        return said[card]

    def worker(card: str) -> Any:
        return SimpleNamespace(rest=SimpleNamespace(remote=lambda: asked.append(card) or card))

    ray = SimpleNamespace(get=get, wait=lambda *_, **__: None, kill=lambda one, no_restart: ended.append(one))
    monkeypatch.setattr(agent_module, "ray", ray)
    agent = object.__new__(agent_module.NodeAgent)
    agent._rests, agent._asked_to_rest, agent._resting = Rests(warm_most=0, rest_after_s=-1.0), {}, set()
    agent._workers = {card: worker(card) for card in ("slow", "busy")}
    agent._standings = {"slow": Standing(WorkerWord(7, tested=True))}
    slow = agent._workers["slow"]
    idle_for(agent._rests, ["slow", "busy"], 0.0)
    agent._let_rest()
    assert (asked, ended) == (["slow", "busy"], [])

    said.update(slow=True, busy=False)
    agent._rests.hear("slow", 1.0, idle=False)  # its state says by now that it takes no work
    agent._let_rest()
    assert asked == ["slow", "busy"], "nobody was asked twice"
    assert (ended, agent._resting, set(agent._workers)) == ([slow], {"slow"}, {"busy"})
