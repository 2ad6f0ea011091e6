"""What a card does about a failed try, in the real runner with a scripted model; only torch and NVML are faked, at their edge."""

import gc
import io
import sys
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from farm import events
from farm.catalogue.models import ModelRow, builtin_models
from farm.errors import BrokenPictureError
from farm.events import Event
from farm.model import FailureClass, MemoryPlan, RenderSettings
from farm.planning.memory import HELD, Room, peak_gib
from farm.planning.plans import best_plan, leaner, streamed_gib
from node_agent import attempt as attempt_module
from node_agent.ladder import Program
from node_agent.pipelines.base import RenderRequest, Report
from node_agent.runner import Busy
from node_agent.spool import Spool
from tests.fake_torch import FakeTorch
from tests.pictures import product
from tests.storage import SETTINGS
from tests.workshop import LIMIT_S, AcceleratorError, OutOfMemoryError, Workshop, ended, order, set_up

ROW = replace(builtin_models()["i2vgen-xl"], name="one", pipeline="scripted", tensor_needed=False)
GUIDED = replace(SETTINGS, model="one", guidance=9.0)


def rungs(row: ModelRow, settings: RenderSettings) -> list[MemoryPlan]:
    """The plan with everything on the card, and all that are tried after it."""
    found = [MemoryPlan()]
    while (less := leaner(row, settings, found[-1])) is not None:
        found.append(less)
    return found


LADDER = rungs(ROW, GUIDED)
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


@dataclass
class Card:
    """A card under test: its workshop, its torch, and the programs that NVML would name."""

    shop: Workshop
    torch: FakeTorch
    programs: list[Program]
    picture: bytes

    def make(self, name: str = "A1") -> list[Event]:
        told = self.shop.make(self.picture, name, guidance=GUIDED.guidance)
        attempt = self.shop.runner._current
        assert attempt is not None
        attempt.thread.join(LIMIT_S)  # what follows its last word has happened too
        return told

    def just_holds(self, plan: MemoryPlan) -> None:
        """The card's memory ends where the plan is held to."""
        self.torch.total_gib = HELD * peak_gib(ROW, GUIDED, plan) + self.torch.context_gib

    def fail_under(self, *plans: MemoryPlan, error: Exception | None = None) -> None:
        def script(request: RenderRequest, _report: Report) -> None:
            if request.plan in plans:
                raise error or OutOfMemoryError(OUT_OF_MEMORY)

        self.shop.script = script


@pytest.fixture(scope="module")
def picture() -> bytes:
    file = io.BytesIO()
    product(160, 120).image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes) -> Iterator[Card]:
    torch = FakeTorch(total_gib=12.0)
    monkeypatch.setitem(sys.modules, "torch", torch.module())
    programs: list[Program] = []
    rows: dict[str, ModelRow] = {"one": ROW}
    shop = set_up(Spool(tmp_path / "spool"), monkeypatch, "cuda:0", rows, programs=lambda: list(programs))
    yield Card(shop, torch, programs, picture)
    attempt = shop.runner._current
    if attempt is not None:
        attempt.stop.set()
        attempt.thread.join(LIMIT_S)


def retries(told: Sequence[Event]) -> list[events.Retrying]:
    return [event for event in told if isinstance(event, events.Retrying)]


def failure(told: Sequence[Event]) -> events.Failed:
    last = told[-1]
    assert isinstance(last, events.Failed), last
    return last


# --- out of memory ---
def test_out_of_memory_is_tried_again_with_the_next_leaner_plan_and_the_same_settings(card: Card) -> None:
    """An out-of-memory broke the queue although a leaner plan would have done (Wan2GP#2052)."""
    seen: list[RenderRequest] = []

    def script(request: RenderRequest, _report: Report) -> None:
        seen.append(request)
        if request.plan == LADDER[0]:
            raise OutOfMemoryError(OUT_OF_MEMORY)

    card.just_holds(LADDER[0])
    card.shop.script = script
    told = card.make()
    assert told[-1].kind == "done"
    (step,) = retries(told)
    assert step.plan == leaner(ROW, GUIDED, LADDER[0])
    assert step.reason == (
        f"The card ran out of memory: {OUT_OF_MEMORY}. The card tries it again with a leaner memory plan."
    )
    assert {request.settings for request in seen} == {GUIDED}
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    kinds = [event.kind for event in told if event.kind != "step"]
    assert kinds == ["loading", "rendering", "retrying", "loading", "rendering", "done"]


def test_the_ladder_ends_and_the_job_goes_to_a_bigger_card(card: Card) -> None:
    card.fail_under(*LADDER)
    told = card.make()
    tried = [plan for model in card.shop.opened for plan in model.plans]
    assert tried[0] == LADDER[0]
    assert [step.plan for step in retries(told)] == tried[1:]
    assert leaner(ROW, GUIDED, tried[-1]) is None
    last = failure(told)
    assert (last.failure_class, last.disturbed, last.worker_ends) == (
        FailureClass.OUT_OF_MEMORY,
        False,
        False,
    )
    assert last.remedy == "It will be tried on another card."
    assert card.shop.ends == []
    card.shop.script = lambda _request, _report: None
    assert card.make("A2")[-1].kind == "done", "the card works on"


def test_a_layer_that_cudnn_cannot_compute_ends_the_tries_where_half_of_the_card_is_free(card: Card) -> None:
    """All of the ladder was walked, its model loaded eighteen times, for what no memory would have mended."""
    said = "GET was unable to find an engine to execute this computation"
    has = HELD * peak_gib(ROW, GUIDED, LADDER[0])
    card.just_holds(LADDER[0])
    card.fail_under(*LADDER, error=RuntimeError(said))
    told = card.make()
    *before, tried = [LADDER[0], *(step.plan for step in retries(told))]
    assert 2 * peak_gib(ROW, GUIDED, tried) <= has < 2 * peak_gib(ROW, GUIDED, before[-1])
    last = failure(told)
    assert (last.failure_class, last.disturbed, last.worker_ends) == (FailureClass.CARD_FAULT, False, True)
    assert last.message == (
        f"cuDNN found no way to compute a layer, mostly for want of memory: {said}. Half of the card's memory was free, so there is none "
        "on this card."
    )


def test_a_pc_without_memory_takes_no_leaner_plan_and_teaches_nothing_of_the_card(card: Card) -> None:
    """A leaner plan streams more from the PC's memory, which was what had run out; and the card was held for smaller than it is."""
    card.fail_under(LADDER[0], error=MemoryError())
    told = card.make()
    last = failure(told)
    assert retries(told) == []
    assert (last.failure_class, last.disturbed, last.worker_ends) == (FailureClass.OUT_OF_MEMORY, True, False)
    assert last.remedy.startswith("Close other programs on that PC")


def test_weights_stream_from_what_the_pc_has_free_or_the_warm_model_holds(card: Card) -> None:
    """The planner knew all of the PC's memory, and nobody what was free of it.

    What a warm model was to hold was counted, also where a cancel came before it had that; and not, where one came after.
    """
    room = Room(11.4, ram_gib=13.0)
    found = best_plan(ROW, GUIDED, replace(room, usable_gib=2.0))
    assert found is not None
    lean, needed = found.plan, streamed_gib(ROW, found.plan)
    assert needed > 0.5

    def make(name: str, free_gib: float) -> list[Event]:
        card.shop.runner._ram_gib = lambda: free_gib
        asked = replace(order(card.picture, name, lean, model="one", guidance=9.0), room=room)
        card.shop.runner.start(asked, card.picture)
        return ended(card.shop.spool, name)

    assert retries(make("A1", needed + 0.1)) == []
    (model,) = card.shop.opened
    model.streams_gib = needed
    assert retries(make("A2", 0.1)) == [], "the warm model has its own"
    model.streams_gib = 0.0
    assert len(retries(make("A3", 0.5))) == 1, "the warm model was cancelled before it had its own"
    card.shop.runner.drop_model()
    (step,) = retries(make("A4", 0.5))
    assert streamed_gib(ROW, step.plan) <= 0.5
    assert step.reason == (
        f"This PC has 0.5 GiB of memory to spare, and {needed:.1f} GiB of weights were to stream from there. "
        "The card takes a memory plan that streams less."
    )


def test_each_try_starts_with_an_empty_card(card: Card) -> None:
    """The exception of the failed try held its frames, and with them the tensors, so that the leaner plan ran out too."""
    held: list[weakref.ref[object]] = []
    alive_when_emptied: list[bool] = []

    class Tensors:
        """What a render holds on to."""

    def script(request: RenderRequest, _report: Report) -> None:
        tensors = Tensors()
        if request.plan == LADDER[0]:
            held.append(weakref.ref(tensors))
            raise OutOfMemoryError(OUT_OF_MEMORY)

    card.just_holds(LADDER[0])
    card.torch.on_empty_cache = lambda: alive_when_emptied.extend(one() is not None for one in held)
    card.shop.script = script
    gc.disable()  # luck shall not free what is still held
    try:
        assert card.make()[-1].kind == "done"
    finally:
        gc.enable()
    assert alive_when_emptied
    assert not any(alive_when_emptied)
    assert card.shop.opened[0].done[-1] == "unload"


def test_seconds_of_failed_tries_are_told_apart_and_the_peak_is_the_last_try_s(card: Card) -> None:
    def script(request: RenderRequest, _report: Report) -> None:
        card.torch.reserved_gib = card.torch.peak_gib = 3.5
        if request.plan == LADDER[0]:
            card.torch.peak_gib = 7.0
            raise OutOfMemoryError(OUT_OF_MEMORY)

    card.just_holds(LADDER[0])
    card.shop.script = script
    done = card.make()[-1]
    assert isinstance(done, events.Done)
    assert set(done.stage_seconds) == {"earlier_tries", "encode"}
    assert done.stage_seconds["earlier_tries"] > 0
    assert done.peak_gib == 3.5
    assert card.torch.called.count("reset_peak_memory_stats") == 2


def test_a_render_that_ran_out_of_what_it_was_held_to_has_the_whole_card_under_the_same_plan(
    card: Card,
) -> None:
    """The law was low for a card or torch, and the cap that follows from it was taken for a card that is too small."""
    given: list[float | None] = []

    def script(request: RenderRequest, _report: Report) -> None:
        given.append(request.peak_gib)
        if len(given) == 1:
            raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    told = card.make()
    assert told[-1].kind == "done"
    by_law = peak_gib(ROW, GUIDED, LADDER[0])
    assert list(dict.fromkeys(given)) == [pytest.approx(by_law), pytest.approx(11.6)]
    (step,) = retries(told)
    assert step.plan == LADDER[0]
    left = 11.6 - HELD * by_law
    assert step.reason.endswith(
        f"It was held to {HELD * by_law:.1f} GiB, which was expected to do, and the card has {left:.1f} more: the card tries it again "
        "with all of them."
    )


def test_with_the_whole_card_the_next_step_is_a_leaner_plan(card: Card) -> None:
    given: list[tuple[MemoryPlan, float | None]] = []

    def script(request: RenderRequest, _report: Report) -> None:
        given.append((request.plan, request.peak_gib))
        if len(given) < 3:
            raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    assert card.make()[-1].kind == "done"
    assert [plan for plan, _ in given[:3]] == [LADDER[0], LADDER[0], leaner(ROW, GUIDED, LADDER[0])]
    assert given[2][1] == pytest.approx(11.6), "what the law says is not believed any more"


def test_a_render_is_held_to_what_was_learned_of_the_card(card: Card) -> None:
    given: list[float | None] = []
    card.shop.script = lambda request, _report: given.append(request.peak_gib)
    by_law = peak_gib(ROW, GUIDED, LADDER[0])
    for name, learned in (("A1", 1.2), ("A2", 0.8)):
        asked = order(card.picture, name, model="one", guidance=GUIDED.guidance)
        card.shop.runner.start(replace(asked, predicted_gib=by_law * learned), card.picture)
        ended(card.shop.spool, name)
        assert card.shop.runner._current is not None
        card.shop.runner._current.thread.join(LIMIT_S)
    assert list(dict.fromkeys(given)) == [pytest.approx(1.2 * by_law), pytest.approx(by_law)]


def test_the_peak_of_a_job_is_not_that_of_the_job_before(card: Card) -> None:
    """What an earlier, larger render had left in the allocator was recorded as this one's, and taught that the card is small."""

    def script(_request: RenderRequest, _report: Report) -> None:
        card.torch.reserved_gib = takes
        card.torch.peak_gib = max(card.torch.peak_gib, takes)

    card.torch.total_gib = 16.0
    card.shop.script = script
    takes = 14.0
    larger = card.make("A1")[-1]
    takes = 7.5
    done = card.make("A2")[-1]
    assert isinstance(larger, events.Done)
    assert isinstance(done, events.Done)
    assert (larger.peak_gib, done.peak_gib) == (14.0, 7.5)


def test_memory_that_does_not_come_back_ends_the_worker_and_not_the_job(card: Card) -> None:
    """A leak in a long-lived worker made every later job run out of memory; only a fresh process gives it back."""

    def script(_request: RenderRequest, _report: Report) -> None:
        card.torch.reserved_gib = card.torch.kept_gib = 1.5
        raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    last = failure(card.make())
    assert (last.failure_class, last.worker_ends) == (FailureClass.INTERNAL, True)
    assert last.message.endswith("1.5 GiB did not come back, so this worker makes nothing more.")
    assert last.remedy == "It is started anew, and the job tried again."
    assert card.shop.ends == [1]
    with pytest.raises(Busy):
        card.shop.runner.start(order(card.picture, "A2", model="one"), card.picture)


def test_memory_missing_at_the_driver_without_any_program_to_account_for_it_is_ours(card: Card) -> None:
    def script(_request: RenderRequest, _report: Report) -> None:
        card.torch.others_gib = 2.0
        raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    last = failure(card.make())
    assert (last.failure_class, last.worker_ends) == (FailureClass.INTERNAL, True)
    assert "2.0 GiB did not come back" in last.message


def test_a_game_that_took_the_memory_is_named_and_nothing_is_held_against_the_card(card: Card) -> None:
    """The owner's game held the memory, and the farm learned that the card is too small (sheepit-client#168)."""

    def script(_request: RenderRequest, _report: Report) -> None:
        card.torch.others_gib = 6.0
        card.programs[:] = [Program(11, "Xorg", 0.2), Program(4123, "game.exe", 5.8)]
        raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    last = failure(card.make())
    assert (last.failure_class, last.disturbed, last.worker_ends) == (FailureClass.OUT_OF_MEMORY, True, False)
    assert (
        "Other programs hold 5.8 GiB of the card's memory, first of all game.exe (process 4123) with 5.8 GiB."
        in last.message
    )


def test_beside_a_game_that_began_in_the_middle_the_next_try_is_one_that_fits(card: Card) -> None:
    """Rung by rung, each with the model loaded anew, it ran out again where anyone could see that it would."""
    tried: list[MemoryPlan] = []

    def script(request: RenderRequest, _report: Report) -> None:
        tried.append(request.plan)
        card.torch.others_gib = 9.6
        card.programs[:] = [Program(4123, "game.exe", 9.6)]
        if peak_gib(ROW, GUIDED, request.plan) > 2.0:
            raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    told = card.make()
    assert told[-1].kind == "done"
    (step,) = retries(told)
    assert 0.9 * 0.9 * 2.0 < peak_gib(ROW, GUIDED, step.plan) <= 2.0
    assert list(dict.fromkeys(tried)) == [LADDER[0], step.plan]


def test_where_a_program_already_holds_memory_the_first_try_is_a_leaner_one(card: Card) -> None:
    card.torch.others_gib = 7.0  # leaves 4.6 of 12: not enough for everything resident
    card.programs[:] = [Program(4123, "blender", 7.0)]
    settings = {"guidance": 9.0, "width": 512, "height": 512, "frames": 8}
    told = card.shop.make(card.picture, "A1", **settings)
    (step,) = retries(told)
    assert (step.plan.parts, step.seq) == ("resident", 1) or step.plan.parts == "by_stage"
    assert step.reason.startswith("Other programs hold 6.8 GiB of the card's memory, first of all blender")
    assert [plan for model in card.shop.opened for plan in model.plans] == [step.plan]
    assert told[-1].kind == "done"


@pytest.mark.parametrize("programs", [[Program(11, "Xorg", 1.0)], []])
def test_a_desktop_on_the_card_is_not_why_a_render_ran_out_of_what_it_was_held_to(
    card: Card, programs: list[Program]
) -> None:
    """Where a monitor hung on the card, or Windows had some of it, each render was blamed on that: the law was never put right."""
    card.torch.others_gib = 1.0
    card.programs[:] = programs
    ran_out: list[MemoryPlan] = []

    def script(request: RenderRequest, _report: Report) -> None:
        if not ran_out:
            ran_out.append(request.plan)
            raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    told = card.make()
    (step,) = retries(told)
    assert step.plan == LADDER[0]
    assert "and the card has" in step.reason
    assert told[-1].kind == "done"


@pytest.mark.parametrize(("usable", "disturbed"), [(11.4, True), (9.9, False)])
def test_memory_that_the_planner_left_to_others_is_not_why_a_render_ran_out(
    card: Card, usable: float, disturbed: bool
) -> None:
    """A desktop that had been there all the time excused each out-of-memory: the job came back six times, and nobody learned of it."""
    card.torch.others_gib = 1.5
    card.fail_under(*LADDER)
    asked = order(card.picture, model="one", guidance=GUIDED.guidance)
    over = 1.1  # what the head has learned of this card: its room is counted in what the law says
    asked = replace(asked, room=Room(usable / over), predicted_gib=over * peak_gib(ROW, GUIDED, LADDER[0]))
    card.shop.runner.start(asked, card.picture)
    last = failure(ended(card.shop.spool))
    assert (last.failure_class, last.disturbed) == (FailureClass.OUT_OF_MEMORY, disturbed)
    assert ("Other programs hold" in last.message) == disturbed


def test_a_plan_beside_others_is_for_what_was_learned_of_the_card(card: Card) -> None:
    """What fitted by the law ran out first, although the head knew that it takes more here."""
    by_law = peak_gib(ROW, GUIDED, LADDER[0])
    card.torch.total_gib = 1.1 * by_law + card.torch.context_gib + 1.0
    card.torch.others_gib = 1.0

    def first_plan(name: str, learned: float) -> MemoryPlan:
        asked = order(card.picture, name, model="one", guidance=GUIDED.guidance)
        asked = replace(asked, predicted_gib=learned * by_law)
        card.shop.runner.start(asked, card.picture)
        told = ended(card.shop.spool, name)
        return next((step.plan for step in retries(told)), asked.plan)

    assert first_plan("A1", 1.0) == LADDER[0]
    assert 1.2 * peak_gib(ROW, GUIDED, first_plan("A2", 1.2)) <= 1.1 * by_law


def test_a_warm_model_is_not_taken_for_another_program(card: Card) -> None:
    assert retries(card.make()) == []
    card.torch.reserved_gib = 8.4
    assert retries(card.make("A2")) == []


def test_a_cancel_between_two_tries_ends_it(card: Card) -> None:
    def script(_request: RenderRequest, _report: Report) -> None:
        card.shop.runner.cancel("A1")
        raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    told = card.make()
    assert told[-1].kind == "cancelled"
    assert retries(told) == []


# --- broken pictures ---
def test_a_black_picture_is_tried_once_in_single_precision(card: Card) -> None:
    """GTX 16xx give black frames in half precision, and nobody knew why (diffusers#2153)."""
    card.fail_under(LADDER[0], error=BrokenPictureError("The picture is black."))
    told = card.make()
    (step,) = retries(told)
    assert step.plan == replace(LADDER[0], precision="fp32")
    assert step.reason == "The picture is black. The card tries it again in single precision."
    assert told[-1].kind == "done"


def test_a_picture_that_stays_black_is_the_card_s_fault_and_goes_elsewhere(card: Card) -> None:
    card.fail_under(
        LADDER[0], replace(LADDER[0], precision="fp32"), error=BrokenPictureError("The picture is black.")
    )
    told = card.make()
    assert len(retries(told)) == 1
    last = failure(told)
    assert (last.failure_class, last.worker_ends) == (FailureClass.CARD_FAULT, True)
    assert last.message == "The picture is black. It is so in single precision too."
    assert "fetch the model's files on that PC again" in last.remedy


def test_single_precision_that_runs_out_of_memory_steps_down_and_keeps_its_precision(card: Card) -> None:
    single = replace(LADDER[0], precision="fp32")

    def script(request: RenderRequest, _report: Report) -> None:
        if request.plan.precision == "fp16":
            raise BrokenPictureError("The picture is black.")
        if request.plan == single:
            raise OutOfMemoryError(OUT_OF_MEMORY)

    card.just_holds(single)
    card.torch.total_gib += 0.01  # for the bytes that are rounded off
    card.shop.script = script
    told = card.make()
    assert told[-1].kind == "done"
    steps = [step.plan for step in retries(told)]
    assert steps == [single, leaner(ROW, GUIDED, single)]
    assert steps[1].precision == "fp32"


# --- a broken CUDA ---
@pytest.mark.parametrize(
    "error",
    [
        AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_cuda_error_ends_the_process_and_nothing_more_is_asked_of_cuda(
    card: Card, error: Exception
) -> None:
    """After an illegal access every call of the process fails or hangs; the worker went on and failed every job after it."""

    def script(_request: RenderRequest, _report: Report) -> None:
        card.torch.broken = True
        card.torch.called.clear()
        raise error

    card.shop.script = script
    told = card.make()
    last = failure(told)
    assert (last.failure_class, last.worker_ends) == (FailureClass.CARD_FAULT, True)
    assert last.remedy == "Its worker is started anew and the card tested."
    assert retries(told) == []
    assert card.torch.called == [], "no empty_cache on a broken context"
    assert card.shop.opened[0].done == ["load", "render"], "and no unload"
    assert card.shop.ends == [1]


def test_the_last_word_is_on_the_disk_before_the_process_ends(card: Card) -> None:
    on_disk: list[bool] = []
    card.shop.runner.end = lambda: on_disk.append(card.shop.spool.ended("A1"))
    card.fail_under(LADDER[0], error=AcceleratorError("CUDA error: unspecified launch failure"))
    card.make()
    assert on_disk == [True]


def test_a_context_that_broke_while_memory_ran_out_ends_the_process_too(card: Card) -> None:
    def script(_request: RenderRequest, _report: Report) -> None:
        card.torch.broken = True
        raise OutOfMemoryError(OUT_OF_MEMORY)

    card.shop.script = script
    last = failure(card.make())
    assert last.worker_ends
    assert "CUDA no longer answered" in last.message


def test_a_fault_of_the_attempt_s_own_code_still_gives_it_an_end(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Sequence[Program]:
        raise ZeroDivisionError

    monkeypatch.setattr(card.shop.runner, "programs", broken)
    card.fail_under(LADDER[0])
    last = failure(card.make())
    assert last.failure_class == FailureClass.INTERNAL
    assert "ZeroDivisionError" in last.message


# --- memory moved to RAM ---
def spilling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, can_spill: bool
) -> tuple[FakeTorch, Workshop, SimpleNamespace]:
    """A card of 6 GiB, a worker, and the clock that its attempts go by."""
    torch = FakeTorch(total_gib=6.0)
    monkeypatch.setitem(sys.modules, "torch", torch.module())
    shop = set_up(Spool(tmp_path / "spool"), monkeypatch, "cuda:0", {"one": ROW}, can_spill=can_spill)
    ticks = SimpleNamespace(now=0.0, perf_counter=lambda: ticks.now)
    monkeypatch.setattr(attempt_module, "time", ticks)
    return torch, shop, ticks


@pytest.mark.parametrize("can_spill", [True, False])
def test_an_attempt_that_spills_says_so_once_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes, can_spill: bool
) -> None:
    torch, shop, ticks = spilling(tmp_path, monkeypatch, can_spill=can_spill)

    def script(_request: RenderRequest, _report: Report) -> None:
        torch.reserved_gib = 5.4
        ticks.now += 8.0

    shop.script = script
    asked = replace(order(picture, model="one"), predicted_s=8 * 1.5)
    shop.runner.start(asked, picture)
    told = ended(shop.spool)
    assert told[-1].kind == "done"
    notes = [event for event in told if isinstance(event, events.Note)]
    if not can_spill:
        assert (notes, shop.runner.spills) == ([], 0)
        return
    (note,) = notes
    assert note.disturbed
    assert "a step takes 8.0 s instead of 1.5 s" in note.text
    assert shop.runner.spills == 1
    assert [event.seq for event in told] == list(range(1, len(told) + 1))


def test_a_render_in_single_precision_is_not_taken_for_one_that_spills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes
) -> None:
    """Its steps were held against those of half precision, and the card's next renders had less of its memory."""
    torch, shop, ticks = spilling(tmp_path, monkeypatch, can_spill=True)

    def script(request: RenderRequest, _report: Report) -> None:
        torch.reserved_gib = 5.4
        ticks.now += 8.0
        if request.plan.precision == "fp16":
            raise BrokenPictureError("The picture is black.")

    shop.script = script
    shop.runner.start(replace(order(picture, model="one"), predicted_s=8 * 1.5), picture)
    told = ended(shop.spool)
    assert (told[-1].kind, len(retries(told)), shop.runner.spills) == ("done", 1, 0)


def test_on_a_cpu_there_is_no_ladder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: bytes) -> None:
    shop = set_up(Spool(tmp_path / "spool"), monkeypatch, "cpu", {"one": replace(ROW, devices=("cpu",))})

    def script(_request: RenderRequest, _report: Report) -> None:
        raise MemoryError

    shop.script = script
    shop.runner.start(order(picture, model="one", guidance=9.0), picture)
    told = ended(shop.spool)
    assert retries(told) == []
    assert failure(told).failure_class == FailureClass.OUT_OF_MEMORY
