"""What the store's history teaches of interpolating and of loading models: which attempts count, and what becomes of predictions."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from farm.catalogue.interpolators import interpolator
from farm.catalogue.models import builtin_models
from farm.model import Artifact, Card, CardKind, FailureClass, MemoryPlan, RenderSettings, StageKind
from farm.planning.interpolation import interpolation_seconds
from farm.planning.learned import UNLEARNED, learn_load
from farm.planning.loading import load_seconds
from farm.planning.memory import peak_gib
from farm.states import AttemptMove, JobMove
from farm.store.claims import Assignment
from farm.store.writer import Result, StageResult
from scheduler.lessons import Lessons
from tests.storage import SETTINGS, Storage, open_storage

MODELS = builtin_models()
I2VGEN = replace(SETTINGS, model="i2vgen-xl", prompt="waves")
SVD = replace(SETTINGS, model="svd", prompt="")
SMOOTH = replace(SETTINGS, smooth=24)
GUESSED = load_seconds(MODELS["i2vgen-xl"])


@dataclass
class History:
    """A store into which attempts are written, one after the other."""

    store: Storage
    card: Card
    at: float = 100.0
    made: int = field(default=0)

    def attempt(
        self,
        settings: RenderSettings,
        *,
        load_s: float | None = None,
        fails: bool = False,
        disturbed: bool = False,
        earlier: bool = False,
        resumed: bool = False,
        peak_gib: float = 3.0,
    ) -> None:
        """A render on the card; `load_s` passes between the order and its first step."""
        name = self._begin(self.store.submit(settings).id, StageKind.GENERATE, load_s or 0.5, disturbed)
        if resumed:
            assert self.store.writer.note(name, 4, "went on", self.at, resumed_step=40)
        parts = {"denoise": 10.0} | ({} if load_s is None else {"load": load_s - 1.0})
        parts |= {"earlier_tries": 5.0} if earlier else {}
        if fails:
            kind = FailureClass.INTERNAL
            assert self.store.writer.fail(name, kind, "broke", self.at, then=JobMove.GIVE_UP)
        else:
            assert self.store.writer.finish(
                name, Result("ab" * 32, "cd" * 32, parts, peak_gib, self.at), self.at
            )

    def interpolation(self, factor: float, *, disturbed: bool = False) -> None:
        """A job of two stages, of which the second one takes `factor` times what is predicted."""
        job, left = self.store.submit(SMOOTH), Artifact("ef" * 32, "video/mp4", 9)
        first = self._begin(job.id, StageKind.GENERATE, 0.5, disturbed=False)
        parts = StageResult(left, {"render": 1.0}, None, self.at)
        assert self.store.writer.advance(first, parts, StageKind.INTERPOLATE, self.at)
        name = self._begin(job.id, StageKind.INTERPOLATE, 0.5, disturbed)
        took = {"interpolate": factor * interpolation_seconds(interpolator(), SMOOTH)}
        assert self.store.writer.finish(name, Result("ab" * 32, "cd" * 32, took, None, self.at), self.at)

    def _begin(self, job_id: str, stage: StageKind, load_s: float, disturbed: bool) -> str:
        self.made += 1
        name, card, writer = f"A{self.made}", self.card, self.store.writer
        claim = Assignment(name, job_id, card.node_id, card.id, card.name, MemoryPlan(), stage)
        assert writer.assign([claim], self.at)
        assert writer.progress(name, AttemptMove.LOAD, self.at, 1)
        assert writer.progress(name, AttemptMove.RUN, self.at + load_s, 2)
        if disturbed:
            assert writer.note(name, 3, "another program", self.at + load_s, disturbed=True)
        self.at += 100.0
        return name


@pytest.fixture
def history(tmp_path: Path):
    store = open_storage(tmp_path)
    yield History(store, store.add_cards(1)[0])
    store.close()


def test_only_renders_before_which_the_card_held_something_else_tell_what_a_load_takes(
    history: History,
) -> None:
    history.attempt(I2VGEN, load_s=90.0)  # nobody knows what the card held
    history.attempt(I2VGEN, load_s=2.0)  # other weights are moved about
    history.attempt(SVD, load_s=30.0)
    history.attempt(I2VGEN, load_s=40.0)
    history.attempt(SVD)
    history.attempt(I2VGEN, load_s=41.0, disturbed=True)
    history.attempt(SVD)
    history.attempt(I2VGEN, load_s=42.0, earlier=True)
    history.attempt(SVD)
    history.attempt(I2VGEN, load_s=43.0, fails=True)
    history.attempt(SVD, load_s=31.0)
    history.attempt(I2VGEN, load_s=44.0)
    taught = history.store.reader.taught
    assert taught.loads(history.card.id, "i2vgen-xl") == [44.0, 40.0]
    assert taught.loads(history.card.id, "svd") == [31.0, 30.0]
    assert taught.loads("another", "svd") == []


def test_what_loads_took_changes_what_the_planner_counts_for_the_next(history: History) -> None:
    """Loading was a guess for every card, whatever its disk."""
    lessons = Lessons(history.store.reader, MODELS, list)
    assert not lessons.take(history.card, "i2vgen-xl")
    for _ in range(4):
        history.attempt(SVD)
        history.attempt(I2VGEN, load_s=3 * GUESSED)
    assert lessons.take(history.card, "i2vgen-xl")
    learned = lessons.book[history.card.id, "i2vgen-xl"]
    assert (learned.load, learned.loads) == pytest.approx(learn_load([3 * GUESSED] * 4, MODELS["i2vgen-xl"]))
    assert 2.5 < learned.load < 3.0
    assert not lessons.take(history.card, "i2vgen-xl"), "nothing new"


def test_a_render_that_went_on_here_after_it_had_run_out_teaches_its_peak_alone(history: History) -> None:
    """What ran out as it decoded goes on from its last step with the whole card: its peak taught nobody, and each render ran out anew."""
    history.card = replace(history.card, kind=CardKind.CUDA, name="RTX 2060", vram_gib=6.0, usable_gib=5.4)
    lessons = Lessons(history.store.reader, MODELS, list)
    by_law = peak_gib(MODELS["i2vgen-xl"], I2VGEN, MemoryPlan())
    for peak in (1.2, 1.2, 1.2, 0.3):  # the last one held little, for the little that was left of it
        history.attempt(I2VGEN, earlier=True, resumed=True, peak_gib=peak * by_law)
    history.attempt(I2VGEN, resumed=True, peak_gib=1.9 * by_law)  # on from another card's checkpoint
    assert lessons.take(history.card, "i2vgen-xl")
    learned = lessons.book[history.card.id, "i2vgen-xl"]
    assert learned.peak == pytest.approx(1.19, abs=0.01)
    assert learned.seconds == 1.0


def test_interpolations_teach_their_card_s_pace(history: History) -> None:
    lessons = Lessons(history.store.reader, MODELS, list)
    history.interpolation(2.0)
    history.interpolation(9.0, disturbed=True)
    history.interpolation(2.0)
    other = replace(history.card, id="another")
    lessons.recall([history.card, other])
    name = interpolator().name
    learned = lessons.book[history.card.id, name]
    assert learned.renders == 2
    assert 1.7 < learned.seconds <= 2.0
    assert lessons.book.get((other.id, name), UNLEARNED) == UNLEARNED
    assert lessons.book.get((history.card.id, "animatic"), UNLEARNED).renders == 3, "their first stages"
    assert not lessons.take(history.card, "no model at all")
