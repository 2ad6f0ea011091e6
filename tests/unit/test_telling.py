"""When a node answers the head's question how it is. Time is a clock that the waits move."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from farm.model import CardKind
from farm.news import mark_of, told_from_dict
from farm.wire import CardReport, NodeReport
from node_agent.telling import LOOK_EVERY_S, QUIET_S, Over, Telling
from scheduler.leases import SILENT_AFTER_S
from scheduler.watch import HOLD_S
from tests.fakes import MovedClock

CARD = CardReport("GPU-1", CardKind.CUDA, "RTX 3060")
QUIET = NodeReport("n1", "attic", "10.0.0.2", 0.0, {}, (CARD,), bench=())
SLOW_S = 3.0
"""What a look takes that meets workers which do not answer (`node_agent.agent.STATE_TIMEOUT_S`)."""


@dataclass
class Post:
    """A node whose report is `now`, and changes when the clock says so: `later` are times and what happens then."""

    clock: MovedClock = field(default_factory=lambda: MovedClock(0.0))
    now: NodeReport = QUIET
    look_s: float = 0.0
    looks: list[float] = field(default_factory=list)
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.telling = Telling(self._look, self.clock, self._wait)

    def _look(self) -> NodeReport:
        self.looks.append(self.clock.now())
        self._pass(self.look_s, lambda: False)
        return replace(self.now, at=self.clock.now())

    def _wait(self, over: Over, seconds: float) -> None:
        self._pass(seconds, over)

    def _pass(self, seconds: float, over: Over) -> None:
        end = self.clock.now() + seconds
        while not over() and self.later and self.later[0][0] <= end:
            at, happens = self.later.pop(0)
            self.clock.seconds = max(at, self.clock.now())
            happens()
        if not over():
            self.clock.seconds = end

    def changes(self, at: float, report: NodeReport) -> None:
        self.later.append((at, lambda: setattr(self, "now", report)))

    def ask(self, known: str, hold_s: float = HOLD_S) -> dict[str, Any]:
        return self.telling.answer(known, hold_s)


@pytest.fixture
def post() -> Post:
    """A node that has told everything at 0 s."""
    made = Post()
    first = told_from_dict(made.ask(""))
    assert first.report == QUIET
    assert made.looks == [0.0]
    return made


KNOWN = mark_of(QUIET)


def test_a_quiet_node_holds_its_answer_and_goes_on_looking(post: Post) -> None:
    answer = told_from_dict(post.ask(KNOWN))
    assert answer.report is None
    assert answer.still is not None
    assert answer.still.at == post.clock.now() == HOLD_S
    assert post.looks == [0.0, 2.0, 4.0]
    post.ask(KNOWN)
    assert post.looks == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0], "one look every two seconds, whoever asks"


@pytest.mark.parametrize(
    "news",
    [
        replace(QUIET, cards=(replace(CARD, kept="space uses the card"),)),
        replace(QUIET, cards=(replace(CARD, trouble="fell off the bus"),)),
        replace(QUIET, cards=()),
        replace(QUIET, spooled=("A1",)),
    ],
)
@pytest.mark.parametrize("at", [0.5, 2.5, 4.5])
def test_news_are_told_within_two_seconds(post: Post, news: NodeReport, at: float) -> None:
    post.changes(at, news)
    answer = told_from_dict(post.ask(KNOWN))
    if answer.report is None:  # it came after the last look of this question; the next one follows at once
        answer = told_from_dict(post.ask(KNOWN))
    assert answer.report is not None
    assert mark_of(answer.report) == mark_of(news) == answer.mark
    assert post.clock.now() - at <= LOOK_EVERY_S


def test_a_head_that_knows_something_else_is_answered_at_once(post: Post) -> None:
    post.clock.move(0.1)
    answer = told_from_dict(post.ask("what a former agent said"))
    assert answer.report is not None
    assert post.clock.now() == 0.1


def test_questions_that_have_piled_up_are_answered_from_one_look() -> None:
    """An agent that started for a minute then made a look of three seconds for each question that nobody waited for any more."""
    post = Post(look_s=SLOW_S)
    answers = [told_from_dict(post.ask("", 0.0)) for _ in range(12)]
    assert [answer.report for answer in answers] == [replace(QUIET, at=SLOW_S)] * 12
    assert post.looks == [0.0]
    post.clock.move(1.0)
    post.ask("", 0.0)
    assert post.looks == [0.0, SLOW_S + 1.0]


def test_a_question_that_may_not_be_held_is_answered_at_once(post: Post) -> None:
    post.clock.move(0.1)
    answer = told_from_dict(post.ask(KNOWN, 0.0))
    assert answer.still is not None
    assert post.clock.now() == 0.1
    assert post.looks == [0.0, 0.1]


def test_a_card_at_work_is_told_of_at_each_look(post: Post) -> None:
    """What it draws is read every two seconds."""
    post.now = replace(QUIET, cards=(replace(CARD, attempt_id="A1"),))
    mark = told_from_dict(post.ask(KNOWN)).mark
    answered = [post.clock.now()]
    for _ in range(3):
        assert told_from_dict(post.ask(mark)).still is not None
        answered.append(post.clock.now())
    assert answered == [2.0, 4.0, 6.0, 8.0]


def test_slow_workers_do_not_make_a_node_silent() -> None:
    for first, then in ((0.0, SLOW_S), (SLOW_S, SLOW_S), (1.5, SLOW_S), (2.05, SLOW_S)):
        post = Post()
        post.ask("")
        asked = post.clock.now()
        post.look_s = first
        post.later.append(
            (asked + LOOK_EVERY_S + 0.01, lambda post=post, then=then: setattr(post, "look_s", then))
        )  # type: ignore[misc]
        post.ask(KNOWN)
        assert post.clock.now() - asked <= HOLD_S - QUIET_S + SLOW_S + 0.01 < SILENT_AFTER_S


def test_a_newer_question_ends_the_wait_of_an_older_one(post: Post) -> None:
    """A head that was killed while it asked left its question: its successor must not wait for it."""
    told_to_successor: list[dict[str, Any]] = []
    post.later.append((2.5, lambda: told_to_successor.append(post.ask("", 0.0))))
    post.ask(KNOWN)
    assert post.clock.now() == 2.5
    assert told_from_dict(told_to_successor[0]).report is not None


def test_in_threads_a_newer_question_ends_the_wait_of_an_older_one() -> None:
    telling = Telling(
        lambda: QUIET, MovedClock(0.0)
    )  # the clock stands: only the newer question can end the wait
    telling.answer("", 0.0)
    older = threading.Thread(target=telling.answer, args=(KNOWN, 600.0), daemon=True)
    older.start()
    while telling._newest < 2:
        time.sleep(0.001)
    telling.answer("", 0.0)
    older.join(10.0)
    assert not older.is_alive()
