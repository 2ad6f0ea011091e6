"""Which workers of a PC with many cards may rest."""

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
