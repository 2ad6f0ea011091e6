"""What the scheduler tells of the queue: places, times, reasons, at a bounded rate and cost."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from farm.catalogue.models import builtin_models
from farm.feed import Behind, CardChanged, FeedMessage, LiveCard, QueueChanged
from farm.model import Attempt, AttemptStatus, Card, CardKind, Job, JobStatus, RenderSettings, Tier
from farm.planning.eligibility import FarmView, Verdict, check
from farm.planning.kinds import kind_of
from farm.planning.learned import Learned
from farm.standing import DRAINED
from scheduler import outlook
from scheduler.board import Board
from scheduler.outlook import EVERY_S, Outlook
from scheduler.policy import Policy
from tests.fakes import MovedClock

SETTINGS = RenderSettings("i2vgen-xl", 512, 512, 16, 50, 9.0, 8, seed=1, prompt="waves")
DRAFT = replace(SETTINGS, model="animatic", steps=1)
NOW = 1000.0


def gpu(name: str, seconds_off: float = 1.0) -> Card:
    return Card(
        f"GPU-{name}", "n1", CardKind.CUDA, name, 12.0, 11.4, Tier.QUALITY, (8, 6), frozenset({"i2vgen-xl"})
    )


def job(name: str, settings: RenderSettings = SETTINGS, **more: object) -> Job:
    return Job(name, JobStatus.QUEUED, settings, Tier.PREVIEW, "ab" * 32, NOW, **more)  # type: ignore[arg-type]  # names of fields


@dataclass
class Desk:
    """An outlook with a real policy and board, and what they hold."""

    learned: dict[tuple[str, str], Learned] = field(default_factory=dict)
    at_work: list[tuple[Attempt, Job]] = field(default_factory=list)
    told: list[QueueChanged] = field(default_factory=list)
    judged: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = MovedClock(NOW)
        self.board = Board(self._hear)
        self.policy = Policy(self._judge)
        self.outlook = Outlook(
            self.policy,
            self.board,
            self.clock,
            judge=self._judge,
            view=self.view,
            running=lambda: self.at_work,
        )

    def view(self) -> FarmView:
        return FarmView(builtin_models(), tiers="off", learned=self.learned)

    def _judge(self, job: Job, card: Card) -> Verdict:
        self.judged.append((job.id, card.id))
        return check(job, card, self.view())

    def _hear(self, message: FeedMessage) -> None:
        if isinstance(message, QueueChanged):
            self.told.append(message)

    def card(self, card: Card, state: str = "idle", why: str | None = None) -> None:
        self.policy.set_card(card, free=state == "idle")
        self.board.card(LiveCard(card.id, "n1", "attic", card.name, state, why=why))  # type: ignore[arg-type]  # a state's name

    def queue(self, *waiting: Job) -> None:
        for seq, one in enumerate(waiting):
            self.policy.add_job(replace(one, created_at=NOW + seq), seq)

    def tell(self) -> QueueChanged:
        self.clock.move(EVERY_S + 0.01)
        asyncio.run(self.outlook.tell())
        return self.told[-1]

    def times(self, told: QueueChanged) -> dict[str, float | None]:
        return {
            place.id: None if place.done is None else place.done.at - told.made_at for place in told.places
        }


ONE, TWO = gpu("RTX 3060"), gpu("RTX 3090")


def taught(seconds: float, card: Card = ONE) -> Learned:
    """Renders of SETTINGS take `seconds` on the card."""
    plain = check(job("x"), card, FarmView(builtin_models(), tiers="off")).seconds
    return Learned(seconds / plain, renders=5, of_card=0.05, of_render=0.1)


def test_places_and_times_of_all_that_wait_and_run() -> None:
    desk = Desk({(ONE.id, "i2vgen-xl"): taught(100.0), (TWO.id, "i2vgen-xl"): taught(50.0, TWO)})
    desk.card(ONE)
    desk.card(TWO, "busy")
    busy = Attempt(
        "A", "r", 1, "n1", TWO.id, TWO.name, AttemptStatus.RUNNING, NOW, started_at=NOW, predicted_s=50.0, predicted_high_s=60.0
    )  # fmt: skip
    desk.at_work = [(busy, job("r"))]
    desk.queue(job("a"), job("b"), job("c", priority=5))
    told = desk.tell()
    passed = told.made_at - NOW
    places = {place.id: (place.position, place.card_id) for place in told.places}
    assert places == {"r": (None, TWO.id), "c": (1, TWO.id), "a": (2, ONE.id), "b": (3, TWO.id)}
    times = desk.times(told)
    assert times == pytest.approx({"r": 50 - passed, "c": 100 - passed, "a": 100, "b": 150 - passed}, abs=1)
    assert (told.waiting, told.placed, told.order) == (3, 3, ())
    assert told.why == {kind_of(job("a")): "Its turn comes next: 1 of 2 cards that can run it is idle."}
    done = next(place.done for place in told.places if place.id == "a")
    assert done is not None
    span = desk.learned[ONE.id, "i2vgen-xl"].span(100.0)
    assert (done.low_at, done.high_at) == pytest.approx(
        (told.made_at + span.low, told.made_at + span.high), abs=1
    )


def test_a_running_job_is_told_by_its_own_steps_once_it_makes_some() -> None:
    desk = Desk()
    desk.card(ONE, "busy")
    attempt = Attempt(
        "A", "r", 1, "n1", ONE.id, ONE.name, AttemptStatus.RUNNING, NOW, started_at=NOW, predicted_s=120.0
    )
    desk.at_work = [(attempt, job("r"))]
    desk.board.running(job("r"), attempt, "running")
    first = desk.tell()
    assert desk.times(first)["r"] == pytest.approx(120 - (first.made_at - NOW), abs=1)
    desk.board.change("r", done=10, total=50, seconds_per_step=4.0, eta_s=160.0)
    assert desk.times(desk.tell())["r"] == pytest.approx(160, abs=1)


def test_a_render_that_takes_longer_than_foretold_is_never_told_to_be_done_already() -> None:
    desk = Desk()
    desk.card(ONE, "busy")
    attempt = Attempt(
        "A",
        "r",
        1,
        "n1",
        ONE.id,
        ONE.name,
        AttemptStatus.RUNNING,
        NOW,
        started_at=NOW - 500,
        predicted_s=120.0,
    )
    desk.at_work = [(attempt, job("r"))]
    told = desk.tell()
    assert desk.times(told)["r"] == pytest.approx(6, abs=1)


def test_cards_that_take_no_work_are_not_counted_on_and_said_so() -> None:
    """A job whose only card does not answer had a time as if it did; host shown up with an old ping (OpenCue#1265)."""
    desk = Desk()
    desk.card(ONE, "not answering")
    desk.queue(job("a"))
    told = desk.tell()
    assert desk.times(told) == {"a": None}
    assert told.why == {kind_of(job("a")): "Waits for RTX 3060, which does not answer."}
    desk.card(ONE, "busy")
    told = desk.tell()
    assert desk.times(told)["a"] is not None
    assert told.why == {kind_of(job("a")): "Waits for RTX 3060, which is busy."}


@pytest.mark.parametrize(
    ("state", "why", "said"),
    [
        ("drained", DRAINED, "is drained"),
        ("busy", DRAINED, "is drained"),
        ("paused", "Three jobs failed on it.", "is paused"),
        ("busy", "Three jobs failed on it.", "is paused"),
        ("kept", "kept for its owner: a game uses the card", "is kept for its owner: a game uses the card"),
    ],
)
def test_a_job_says_that_its_only_card_is_drained_paused_or_kept(state: str, why: str, said: str) -> None:
    """Only the card said so. A card that was drained at work counted as busy, and its end as a time for the job."""
    desk = Desk()
    desk.card(replace(ONE, kept="a game uses the card") if state == "kept" else ONE, state, why)
    desk.queue(job("a"))
    told = desk.tell()
    assert told.why == {kind_of(job("a")): f"Waits for RTX 3060, which {said}."}
    assert desk.times(told) == {"a": None}
    desk.card(TWO, "busy")
    assert desk.times(desk.tell())["a"] is not None, "another card takes it"


def test_a_job_that_failed_on_a_card_is_not_told_to_run_there() -> None:
    desk = Desk({(ONE.id, "i2vgen-xl"): taught(10.0), (TWO.id, "i2vgen-xl"): taught(900.0, TWO)})
    desk.card(ONE)
    desk.card(TWO)
    desk.policy.exclude("a", ONE.id)
    desk.queue(job("a"), job("b"))
    told = desk.tell()
    assert {place.id: place.card_id for place in told.places} == {"a": TWO.id, "b": ONE.id}
    assert told.why[f"{kind_of(job('b'))} -{ONE.id}"] == "Its turn comes next."
    desk.policy.exclude("a", TWO.id)
    desk.policy.add_job(job("a"), 0)
    nowhere = desk.tell()
    assert nowhere.why[f"{kind_of(job('b'))} -{ONE.id} -{TWO.id}"].startswith("No card can run it.")
    assert set(told.why) == {kind_of(job("b")), f"{kind_of(job('b'))} -{ONE.id}"}
    assert {place.kind for place in told.places} == set(told.why)


def test_it_is_told_every_few_seconds_at_most_and_only_when_it_changed() -> None:
    desk = Desk()
    desk.card(ONE)
    desk.queue(job("a"))
    for _ in range(10):
        asyncio.run(desk.outlook.tell())
        desk.clock.move(EVERY_S / 5 - 0.01)
    assert len(desk.told) == 2  # the time until then has passed meanwhile: it is a later one
    desk.policy.remove_job("a")
    desk.tell()
    for _ in range(5):
        desk.tell()
    assert len(desk.told) == 3
    assert desk.told[-1].places == ()


def test_verdicts_are_asked_for_once_per_kind_and_card_until_something_changes() -> None:
    """No call of the planner for each job where one for its kind will do: a queue of 100,000 would take minutes."""
    desk = Desk()
    desk.card(ONE)
    desk.card(TWO)
    desk.queue(*(job(f"j{number}") for number in range(300)))
    desk.tell()
    desk.tell()
    assert sorted(card for _, card in desk.judged) == [ONE.id, TWO.id]
    desk.policy.forget_verdicts(ONE.id)
    desk.tell()
    assert sorted(card for _, card in desk.judged) == [ONE.id, ONE.id, TWO.id]


def steps(number: int) -> RenderSettings:
    return replace(SETTINGS, steps=number)


def test_every_kind_has_its_reason_however_far_back_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the kinds of the first jobs were judged: all others waited for "its turn"."""
    monkeypatch.setattr(outlook, "EXACT", 10)
    desk = Desk()
    desk.card(ONE, "busy")
    desk.queue(*(job(f"j{number}", steps(1 + number)) for number in range(300)))
    told = desk.tell()
    assert told.why == {
        kind_of(job("x", steps(number))): "Waits for RTX 3060, which is busy." for number in range(1, 301)
    }
    assert told.behind == {}


def test_of_idle_cards_only_the_next_jobs_are_told_that_it_is_their_turn() -> None:
    """A job far back said "Its turn comes next." whenever a card was idle for a moment."""
    desk = Desk()
    desk.card(ONE)
    desk.queue(*(job(f"j{number}") for number in range(30)))
    told = desk.tell()
    kind = kind_of(job("x"))
    assert told.why == {kind: "Its turn comes next."}
    assert told.behind == {kind: Behind(1, "Waits for the jobs before it, which RTX 3060 takes first.")}
    desk.card(TWO, "busy")
    both = "Waits for the jobs before it; of 2 cards that can run it 1 is idle."
    assert desk.tell().behind == {kind: Behind(1, both)}


def test_a_new_kind_or_card_is_told_of_at_once_and_not_with_the_next_round() -> None:
    """For the first 5 s after the scheduler's start, and for each new kind, nothing was known."""
    desk = Desk()
    asyncio.run(desk.outlook.tell())
    assert not desk.outlook.due
    desk.queue(job("a"))
    assert desk.outlook.due
    asyncio.run(desk.outlook.tell())
    assert desk.told[-1].why == {
        kind_of(job("a")): "No card has joined the farm yet: start `farm join` on a PC."
    }
    desk.policy.add_job(job("b"), 7)
    assert not desk.outlook.due, "more of the same"
    desk.outlook.forget()
    assert desk.outlook.due
    asyncio.run(desk.outlook.tell())
    assert not desk.outlook.due
    desk.card(ONE)
    asyncio.run(desk.outlook.tell())
    assert desk.told[-1].why == {kind_of(job("a")): "Its turn comes next."}


def test_what_stands_far_behind_is_told_by_its_kind_s_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "EXACT", 50)
    desk = Desk({(ONE.id, "i2vgen-xl"): taught(100.0)})
    desk.card(ONE)
    desk.queue(*(job(f"j{number:03}") for number in range(200)))
    told = desk.tell()
    assert (told.waiting, told.placed, len(told.places)) == (200, 50, 50)
    assert told.order == tuple(range(50, 200))
    assert (told.newest, told.levels) == (199, ((0, 200),))
    curve = told.curves[kind_of(job("x"))]
    assert (curve[0].position, curve[-1].position) == (51, 201)
    for knot in curve:
        assert knot.at - told.made_at == pytest.approx(knot.position * 100.0, abs=1)
        assert knot.factor == pytest.approx(desk.learned[ONE.id, "i2vgen-xl"].span(1.0).high, rel=0.1)


def test_a_job_far_back_that_is_kept_from_a_card_has_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook, "EXACT", 3)
    desk = Desk()
    desk.card(ONE)
    desk.card(TWO, "busy")
    desk.policy.exclude("j5", ONE.id)
    desk.queue(*(job(f"j{number}") for number in range(9)))
    told = desk.tell()
    label = f"{kind_of(job('x'))} -{ONE.id}"
    assert told.apart == {"j5": label}
    assert told.why[label] == "Waits for RTX 3090, which is busy."
    assert len(told.curves[label]) > 1


def test_how_long_interpolation_takes_here_is_told_of_a_card_in_the_middle() -> None:
    slow = Learned(seconds=3.0, renders=5)
    desk = Desk({(ONE.id, "mci"): slow, ("GPU-away", "mci"): Learned(seconds=9.0)})
    desk.card(ONE)
    assert desk.tell().smoothing == 3.0
    desk.card(TWO, "busy")
    assert desk.tell().smoothing == 2.0
    assert Desk().tell().smoothing == 1.0


def test_levels_say_how_far_back_a_priority_stands() -> None:
    desk = Desk()
    desk.card(ONE)
    desk.queue(*(job(f"j{number}", priority=number % 3) for number in range(9)))
    assert desk.tell().levels == ((2, 3), (1, 6), (0, 9))


def test_a_fault_in_the_telling_does_not_end_the_scheduler(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    desk.card(ONE)
    desk.queue(job("a"))
    broken: Mapping[tuple[str, str], Learned] = None  # type: ignore[assignment]  # as a fault would have it
    desk.learned = broken  # type: ignore[assignment]  # see above
    asyncio.run(desk.outlook.tell())
    assert desk.told == []
    assert "could not be told" in caplog.text


def test_the_board_keeps_the_newest_for_who_comes_later() -> None:
    desk = Desk()
    desk.card(ONE)
    desk.queue(job("a"))
    told = desk.tell()
    assert desk.board.snapshot().queue == told
    assert not isinstance(desk.board.snapshot().cards[0], CardChanged)
