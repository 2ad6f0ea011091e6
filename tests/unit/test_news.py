"""What a node answers a head that knows its last report."""

import json
from dataclasses import replace

import pytest

from farm.model import CardKind
from farm.news import Still, Told, mark_of, told, told_from_dict, told_to_dict, understood
from farm.own_bench import BenchResult
from farm.vitals import Vitals
from farm.wire import CardReport, NodeReport
from tests.unit.test_benched import ROW

GPU = CardReport("GPU-1", CardKind.CUDA, "RTX 3060", 12.0, 11.2, vitals=Vitals(100.0, temperature_c=38.0))
CPU = CardReport("CPU-1", CardKind.CPU, "Ryzen")
REPORT = NodeReport(
    "n1", "attic", "10.0.0.2", 100.0, {"farm": "0.1.0"}, (GPU, CPU), ram_gib=16.0, ram_free_gib=9.0, bench=()
)
LATER = replace(
    REPORT,
    at=106.0,
    ram_free_gib=8.5,
    cards=(replace(GPU, vitals=Vitals(105.0, temperature_c=41.0, power_w=14.0)), CPU),
)


def sent(answer: Told) -> Told:
    """As it comes out of the wire."""
    return told_from_dict(json.loads(json.dumps(told_to_dict(answer))))


def test_what_moves_all_the_time_leaves_the_mark_as_it_is() -> None:
    assert mark_of(LATER) == mark_of(REPORT)


@pytest.mark.parametrize(
    "news",
    [
        replace(REPORT, name="cellar"),
        replace(REPORT, spooled=("A1",)),
        replace(REPORT, owner_rules="hours 22:00-08:00"),
        replace(REPORT, bench=(ROW,)),
        replace(REPORT, cards=(GPU,)),
        replace(REPORT, cards=(replace(GPU, kept="space uses the card"), CPU)),
        replace(REPORT, cards=(replace(GPU, others_gib=0.25), CPU)),
        replace(REPORT, cards=(replace(GPU, trouble="fell off the bus"), CPU)),
        replace(REPORT, cards=(replace(GPU, attempt_id="A1"), CPU)),
        replace(REPORT, cards=(replace(GPU, answers=False), CPU)),
        replace(REPORT, cards=(GPU, replace(CPU, models=("svd",)))),
    ],
)
def test_whatever_the_head_acts_on_changes_the_mark_and_travels_whole(news: NodeReport) -> None:
    mark = mark_of(news)
    assert mark != mark_of(REPORT)
    answer = sent(told(news, mark, mark_of(REPORT)))
    assert answer == Told(mark, news)
    assert understood(answer, REPORT) == news


def test_a_head_that_knows_nothing_hears_everything() -> None:
    assert sent(told(REPORT, mark_of(REPORT), "")) == Told(mark_of(REPORT), REPORT)


def test_a_node_that_is_as_it_was_says_so_in_a_few_words_and_the_head_knows_the_rest() -> None:
    answer = sent(told(LATER, mark_of(LATER), mark_of(REPORT)))
    assert answer == Told(
        mark_of(REPORT), still=Still(106.0, 8.5, (Vitals(105.0, temperature_c=41.0, power_w=14.0), None))
    )
    assert understood(answer, REPORT) == replace(LATER, bench=None)
    assert len(json.dumps(told_to_dict(answer))) < 400 < len(json.dumps(told_to_dict(Told("m", REPORT))))


@pytest.mark.parametrize("known", [None, replace(REPORT, cards=(GPU,))])
def test_few_words_about_what_the_head_does_not_know_are_refused(known: NodeReport | None) -> None:
    answer = told(LATER, mark_of(LATER), mark_of(LATER))
    with pytest.raises(ValueError, match="how that was is not known"):
        understood(answer, known)


def test_an_answer_with_neither_is_refused() -> None:
    with pytest.raises(ValueError, match="how that was is not known"):
        understood(Told("m"), REPORT)


def test_benches_that_were_told_once_are_not_heard_again() -> None:
    with_bench: tuple[BenchResult, ...] = (ROW,)
    before = replace(REPORT, bench=with_bench)
    now = replace(LATER, bench=with_bench)
    assert understood(told(now, mark_of(now), mark_of(before)), before).bench is None
