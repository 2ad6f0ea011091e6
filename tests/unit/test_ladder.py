"""What is tried after a failed try, and whose memory it was: by value."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.models import builtin_models
from farm.model import FailureClass, MemoryPlan, RenderSettings
from farm.planning.memory import UNKNOWN, Room, peak_gib, step_seconds
from farm.planning.plans import best_plan, leaner, smallest_peak_gib, streamed_gib
from node_agent.faults import Fault
from node_agent.ladder import (
    MemoryReading,
    Program,
    next_try,
    plan_within,
    stayed_away,
    taken_since,
    what_others_hold,
)

I2VGEN = builtin_models()["i2vgen-xl"]
STANDARD = RenderSettings("i2vgen-xl", 512, 512, frames=16, steps=50, guidance=9.0, fps=8, seed=1)
RAN_OUT = Fault(FailureClass.OUT_OF_MEMORY, "The card ran out of memory.")
GAME, DESKTOP = Program(4123, "game", 3.0), Program(11, "Xorg", 0.1)
SETTINGS = st.builds(
    replace,
    st.just(STANDARD),
    width=st.integers(32, 160).map(lambda n: n * 8),
    height=st.integers(32, 90).map(lambda n: n * 8),
    frames=st.integers(1, 48),
    guidance=st.sampled_from([1.0, 9.0]),
)


@given(SETTINGS, st.sampled_from(["fp16", "fp32"]))
def test_every_rung_takes_less_and_the_ladder_ends(settings: RenderSettings, precision: str) -> None:
    plan = MemoryPlan(precision=precision)  # type: ignore[arg-type]
    rungs = 0
    while (less := leaner(I2VGEN, settings, plan)) is not None:
        assert peak_gib(I2VGEN, settings, less) < peak_gib(I2VGEN, settings, plan)
        assert less.precision == precision
        plan, rungs = less, rungs + 1
    assert rungs < 100
    least = smallest_peak_gib(I2VGEN, settings) * (1 if precision == "fp16" else 2)
    assert peak_gib(I2VGEN, settings, plan) <= max(1.35 * least, least + 0.4)


def test_every_rung_keeps_within_the_memory_of_the_pc() -> None:
    """With 1.0 GiB of it the next rung streamed 1.2 GiB."""
    room = Room(5.4, ram_gib=1.0)
    found = best_plan(I2VGEN, STANDARD, room)
    assert found is not None
    plan, rungs = found.plan, 0
    while (less := leaner(I2VGEN, STANDARD, plan, room)) is not None:
        assert streamed_gib(I2VGEN, less) <= 1.0
        plan, rungs = less, rungs + 1
    assert rungs > 0
    assert streamed_gib(I2VGEN, leaner(I2VGEN, STANDARD, plan) or MemoryPlan()) > 1.0, "or it is no test"


def test_a_rung_is_the_fastest_on_the_card_s_own_bus() -> None:
    """It was chosen for 6 GB/s, also behind a riser of one lane."""
    riser = Room(3.4, bus_gb_s=0.74)
    found = best_plan(I2VGEN, STANDARD, riser)
    assert found is not None
    less, blind = (leaner(I2VGEN, STANDARD, found.plan, room) for room in (riser, UNKNOWN))
    assert less is not None
    assert blind is not None
    took, would_take = (step_seconds(I2VGEN, STANDARD, plan, riser) for plan in (less, blind))
    assert took < 0.6 * would_take


def test_single_precision_is_planned_anew_for_what_the_card_has() -> None:
    """Only the precision was changed: 10.2 GiB on a card of 5.4, and four loads of the model that could not do."""
    room = Room(5.4, ram_gib=13.0, bus_gb_s=6.0)
    found = best_plan(I2VGEN, STANDARD, room)
    assert found is not None
    black = Fault(FailureClass.CARD_FAULT, "The picture is black.", broken_picture=True)
    swapped = replace(found.plan, precision="fp32")
    retry = next_try(black, I2VGEN, STANDARD, found.plan, room)
    assert retry is not None
    assert retry.plan.precision == "fp32"
    assert peak_gib(I2VGEN, STANDARD, retry.plan) <= 5.4 < peak_gib(I2VGEN, STANDARD, swapped)
    for nothing_fits_or_is_known in (Room(0.5), UNKNOWN):
        last_hope = next_try(black, I2VGEN, STANDARD, found.plan, nothing_fits_or_is_known)
        assert last_hope is not None
        assert last_hope.plan == swapped


def test_a_model_without_memory_of_its_own_has_no_ladder() -> None:
    assert leaner(builtin_models()["animatic"], STANDARD, MemoryPlan()) is None
    assert next_try(RAN_OUT, builtin_models()["animatic"], STANDARD, MemoryPlan()) is None


@pytest.mark.parametrize("kind", sorted(set(FailureClass) - {FailureClass.OUT_OF_MEMORY}))
def test_only_memory_and_broken_pictures_are_worth_another_try_here(kind: FailureClass) -> None:
    assert next_try(Fault(kind, "It broke."), I2VGEN, STANDARD, MemoryPlan()) is None


def test_nothing_is_tried_where_cuda_is_broken_or_plans_make_no_difference() -> None:
    assert next_try(replace(RAN_OUT, cuda_is_broken=True), I2VGEN, STANDARD, MemoryPlan()) is None
    assert next_try(RAN_OUT, None, STANDARD, MemoryPlan()) is None


@pytest.mark.parametrize(
    ("free", "reserved", "missing"),
    [(5.6, 0.0, 0.0), (5.2, 0.0, 0.0), (2.4, 0.0, 3.0), (0.4, 2.0, 3.0), (0.2, 5.4, 0.0)],
)
def test_what_is_missing_is_neither_ours_nor_the_context_s(
    free: float, reserved: float, missing: float
) -> None:
    """Of 6 GiB a context takes 0.6; what our allocator holds can be used again; a little is nobody's."""
    assert MemoryReading(6.0, free, reserved).missing_gib == pytest.approx(missing)


@pytest.mark.parametrize(
    ("missing", "programs", "said"),
    [
        (0.0, [GAME], None),
        (3.1, [DESKTOP, GAME], "Other programs hold 3.1 GiB of the card's memory, first of all game (process 4123) with 3.0 GiB."),
        (3.1, [Program(7, "game.exe", None)], "Other programs hold 3.1 GiB of the card's memory, first of all game.exe (process 7)."),
        (3.1, [], "Other programs hold 3.1 GiB of the card's memory."),
    ],
)  # fmt: skip
def test_who_holds_the_memory(missing: float, programs: list[Program], said: str | None) -> None:
    assert what_others_hold(missing, programs) == said


BEFORE = MemoryReading(6.0, 5.4, 0.0)


@pytest.mark.parametrize(
    ("after", "programs", "taken", "away"),
    [
        (MemoryReading(6.0, 5.4, 0.0), [], 0.0, 0.0),
        (MemoryReading(6.0, 5.2, 0.1), [], 0.0, 0.0),  # a workspace
        (MemoryReading(6.0, 4.4, 1.0), [], 0.0, 1.0),  # our own allocator holds it
        (MemoryReading(6.0, 3.4, 0.0), [], 0.0, 2.0),  # nobody accounts for it
        (MemoryReading(6.0, 2.4, 0.0), [GAME], 3.0, 0.0),
        (MemoryReading(6.0, 0.4, 0.0), [GAME], 3.0, 2.0),
        (MemoryReading(6.0, 2.4, 0.0), [Program(7, "game.exe", None)], 3.0, 0.0),  # Windows tells no sizes
        (MemoryReading(6.0, 5.4, 0.0), [GAME], 0.0, 0.0),
    ],
)
def test_memory_that_others_took_and_memory_that_stayed_away(
    after: MemoryReading, programs: list[Program], taken: float, away: float
) -> None:
    assert taken_since(BEFORE, after, programs) == pytest.approx(taken)
    assert stayed_away(BEFORE, after, programs) == pytest.approx(away)


def test_a_program_that_was_there_before_took_nothing_since() -> None:
    before = MemoryReading(6.0, 2.4, 0.0)
    assert taken_since(before, MemoryReading(6.0, 1.4, 0.0), [GAME]) == 0.0
    assert stayed_away(before, MemoryReading(6.0, 1.4, 0.0), [GAME]) == pytest.approx(1.0)


@given(SETTINGS, st.floats(0, 24), st.floats(0, 24))
def test_beside_others_the_plan_fits_or_is_the_leanest(
    settings: RenderSettings, free: float, total: float
) -> None:
    plan = MemoryPlan()
    memory = MemoryReading(max(total, free), free, 0.0)
    chosen = plan_within(I2VGEN, settings, plan, memory)
    if memory.missing_gib == 0:
        assert chosen == plan
    else:
        fits = peak_gib(I2VGEN, settings, chosen) <= free
        assert fits or leaner(I2VGEN, settings, chosen) is None


@pytest.mark.parametrize("planned_for", [1.1, 1.2])
def test_beside_others_what_fits_between_two_steps_of_the_ladder_is_taken(planned_for: float) -> None:
    """A plan was looked for in steps of a tenth, and the last step taken though it did not fit: so a render ran out that need not have."""
    least = smallest_peak_gib(I2VGEN, STANDARD)
    free = 1.01 * least
    large = best_plan(I2VGEN, STANDARD, Room(planned_for * least))
    assert large is not None
    assert large.peak_gib > free
    chosen = plan_within(I2VGEN, STANDARD, large.plan, MemoryReading(24.0, free, 0.0))
    assert peak_gib(I2VGEN, STANDARD, chosen) <= free
    retry = next_try(RAN_OUT, I2VGEN, STANDARD, large.plan, Room(free))
    assert retry is not None
    assert peak_gib(I2VGEN, STANDARD, retry.plan) <= free


def test_without_a_reading_the_order_s_plan_stands() -> None:
    assert plan_within(I2VGEN, STANDARD, MemoryPlan(), None) == MemoryPlan()
