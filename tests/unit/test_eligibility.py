"""May this job run on this card, and the sentences that say why not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.interpolators import interpolator
from farm.catalogue.models import builtin_models
from farm.model import Card, CardKind, Coming, Job, JobStatus, MemoryPlan, RenderSettings, StageKind, Tier
from farm.planning.eligibility import (
    FILTERS,
    LASTING,
    FarmView,
    bands_of,
    check,
    unplaceable,
    without_its_owner,
)
from farm.planning.interpolation import interpolation_seconds
from farm.planning.memory import peak_gib
from farm.planning.plans import smallest_peak_gib
from farm.planning.tiers import band_of, tier_now, tier_of
from farm.planning.waiting import why_waiting

STANDARD = RenderSettings("i2vgen-xl", 512, 512, 16, 50, 9.0, 8, seed=1, prompt="waves")
NATIVE = replace(STANDARD, width=1280, height=704)
LONG = replace(NATIVE, frames=64)
DRAFT = replace(STANDARD, model="animatic", steps=1)
BOTH = frozenset({"animatic", "i2vgen-xl"})


def job(settings: RenderSettings = STANDARD, **more: object) -> Job:
    return Job("j1", JobStatus.QUEUED, settings, tier_of(settings), "ab" * 32, 0.0, **more)  # type: ignore[arg-type]


def gpu(name: str, vram_gib: float, models: frozenset[str] = BOTH) -> Card:
    band = band_of(vram_gib, CardKind.CUDA)
    return Card(f"GPU-{name}", "n1", CardKind.CUDA, name, vram_gib, vram_gib - 0.6, band, (7, 5), models)


RTX_2060, RTX_2070S, RTX_3060 = gpu("RTX 2060", 6), gpu("RTX 2070 Super", 8), gpu("RTX 3060", 12)
H100, GTX_1050 = gpu("H100", 80), gpu("GTX 1050", 3)
CPU = Card("CPU-n1", "n1", CardKind.CPU, "Ryzen 5 3600", models=frozenset({"animatic"}))
ALL = (CPU, RTX_2060, RTX_2070S, RTX_3060, H100)


def view(*cards: Card, **more: object) -> FarmView:
    return FarmView(builtin_models(), bands=bands_of(cards), **more)  # type: ignore[arg-type]


def takers(settings: RenderSettings, *cards: Card, anywhere: bool = False, **more: object) -> list[str]:
    farm = view(*cards, **more)
    return [card.name for card in cards if check(job(settings, anywhere=anywhere), card, farm).eligible]


def test_soft_keeps_bands_and_lets_preview_work_onto_big_cards() -> None:
    assert takers(STANDARD, *ALL) == ["RTX 2070 Super", "RTX 3060", "H100"]
    assert takers(NATIVE, *ALL) == ["RTX 3060", "H100"]


def test_soft_lets_one_small_card_alone_still_render() -> None:
    assert takers(STANDARD, CPU, RTX_2060) == ["RTX 2060"]


def test_soft_sends_quality_work_to_preview_cards_only_if_there_are_no_quality_cards() -> None:
    modest = replace(STANDARD, width=576, height=576)
    assert tier_of(modest) is Tier.QUALITY
    assert takers(modest, RTX_2060, RTX_2070S) == ["RTX 2060", "RTX 2070 Super"]
    assert takers(modest, RTX_2060, RTX_2070S, RTX_3060) == ["RTX 3060"]


def test_no_work_is_kept_for_a_band_whose_cards_are_all_in_trouble() -> None:
    """Quality work waited for a 12 GB card that had been taken out of its PC, while `farm plan` said that the 8 GB card takes it."""
    modest, out = (
        replace(STANDARD, width=576, height=576),
        replace(RTX_3060, trouble="its PC no longer has it"),
    )
    assert takers(modest, RTX_2070S, out) == ["RTX 2070 Super", "RTX 3060"]
    assert takers(modest, RTX_2070S, out, RTX_3060) == ["RTX 3060", "RTX 3060"]


def test_strict_keeps_to_the_band_and_off_and_anywhere_to_memory_alone() -> None:
    assert takers(STANDARD, *ALL, tiers="strict") == ["RTX 2070 Super"]
    assert takers(STANDARD, RTX_2060, tiers="strict") == []
    everything = ["RTX 2060", "RTX 2070 Super", "RTX 3060", "H100"]
    assert takers(STANDARD, *ALL, tiers="off") == everything
    assert takers(STANDARD, *ALL, tiers="strict", anywhere=True) == everything


@pytest.mark.parametrize("tiers", ["soft", "strict", "off"])
def test_drafts_run_on_every_card_and_on_cpus(tiers: str) -> None:
    assert takers(DRAFT, *ALL, tiers=tiers) == [card.name for card in ALL]


def test_an_owners_pin_counts_not_the_memory() -> None:
    pinned = replace(H100, band=Tier.PREVIEW)
    assert takers(NATIVE, RTX_3060, pinned) == ["RTX 3060"]


def test_a_verdict_carries_the_plan_and_the_time() -> None:
    small = check(job(), RTX_2060, view(RTX_2060))
    assert small.plan is not None
    assert (small.plan.parts, small.plan.guidance, small.plan.piece_mib) == ("by_stage", "together", 0)
    assert 0.6 <= small.plan.weights_on_card < 0.95
    assert check(job(), H100, view(H100)).plan == MemoryPlan("resident", "together")
    assert small.seconds > check(job(), H100, view(H100)).seconds > 24.0


def waits(job: Job, cards: list[Card], farm: FarmView) -> str:
    """What is said of a job that waits while all cards are busy."""
    found = [(card, check(job, card, farm)) for card in cards]
    return unplaceable(job, cards, farm) or why_waiting(found, {card.id: "is busy" for card in cards})


def test_each_reason_in_words() -> None:
    farm = view(*ALL, failed={"j1": frozenset({RTX_3060.id})})
    assert check(job(LONG), GTX_1050, farm).reasons == (
        "needs 5.0 GiB, GTX 1050 has 2.4 usable",
        "it is quality work, GTX 1050 is kept for post work",
    )
    assert check(job(), RTX_3060, farm).reasons == ("it failed on RTX 3060 before",)
    assert check(job(), CPU, farm).reasons == (
        "i2vgen-xl needs a GPU, Ryzen 5 3600 is a CPU",
        "i2vgen-xl is not installed on the PC of Ryzen 5 3600",
        "it is preview work, Ryzen 5 3600 is kept for post work",
    )
    bare = replace(RTX_2070S, models=frozenset(), usable_gib=None)
    assert check(job(), bare, farm).reasons == (
        "i2vgen-xl is not installed on the PC of RTX 2070 Super",
        "needs 1.2 GiB, and the memory of RTX 2070 Super is not known yet",
    )
    gone = check(job(replace(STANDARD, model="svd-xxl")), H100, farm)
    assert gone.reasons[0] == "the farm knows no model called svd-xxl"
    assert not gone.eligible


def test_a_job_waits_for_weights_that_are_on_their_way() -> None:
    """And is unplaceable only where they cannot come, with the reason."""
    bare = replace(RTX_2060, models=frozenset())
    coming = replace(bare, coming=(Coming("svd", 1, 2), Coming("i2vgen-xl", 4_310_000, 10_000_000)))
    verdict = check(job(), coming, view(coming))
    assert (verdict.eligible, verdict.able) == (False, True)
    assert verdict.reasons == ("RTX 2060 is still without i2vgen-xl: it is being fetched to its PC (43 %)",)
    assert unplaceable(job(), [coming], view(coming)) is None
    assert waits(job(), [coming], view(coming)) == (
        "Waits for RTX 2060, which is still without i2vgen-xl: it is being fetched to its PC (43 %)."
    )
    here = replace(coming, models=frozenset({"i2vgen-xl"}))
    assert check(job(), here, view(here)).eligible, (
        "a newer version on its way keeps no job from the present one"
    )

    stuck = replace(bare, coming=(Coming("i2vgen-xl", 0, 10, "The disk of /m has 1.0 GB free."),))
    assert unplaceable(job(), [stuck], view(stuck)) == (
        "No card can run it. The nearest is RTX 2060: i2vgen-xl cannot be fetched to the PC of RTX 2060: "
        "The disk of /m has 1.0 GB free. Mend that, and the PC fetches it by itself."
    )


def test_a_job_says_why_the_weights_that_a_pc_has_are_of_no_use() -> None:
    """Half of a download, or another model's checkpoint, was said to be not installed."""
    why = "/m/unet/config.json is of another model: its num_frames is 14, not 25. Set its `source`."
    damaged = replace(RTX_2060, models=frozenset(), coming=(Coming("i2vgen-xl", 0, 0, why, damaged=True),))
    assert unplaceable(job(), [damaged], view(damaged)) == (
        f"No card can run it. The nearest is RTX 2060: i2vgen-xl cannot be used on the PC of RTX 2060: {why} "
        "Mend that, or run `farm models pull i2vgen-xl` on the head."
    )


def test_a_later_stage_waits_for_no_weights() -> None:
    coming = replace(CPU, models=frozenset(), coming=(Coming("i2vgen-xl", 0, 10),))
    later = replace(job(), stage=StageKind.INTERPOLATE)
    assert check(later, coming, view(coming, tiers="off")).eligible


def test_why_a_job_waits_in_words() -> None:
    assert waits(job(), [], view()) == "No card has joined the farm yet: start `farm join` on a PC."
    assert waits(job(), [RTX_3060], view(RTX_3060)) == "Waits for RTX 3060, which is busy."
    assert waits(job(), ALL, view(*ALL)) == "Waits for one of 3 cards that can run it; all are busy."
    assert waits(job(LONG), [GTX_1050], view(GTX_1050)) == (
        "No card can run it. The nearest is GTX 1050: needs 5.0 GiB, GTX 1050 has 2.4 usable. "
        "Ask for 28 frames at 1280 x 704."
    )
    assert waits(job(), [CPU], view(CPU)).endswith(
        "Choose the preset 'draft', or add a PC with an NVIDIA card."
    )
    bare = replace(H100, models=frozenset())
    assert waits(job(), [bare], view(bare)).endswith("Run `farm models pull i2vgen-xl` on the head.")
    strict = view(RTX_2060, RTX_2070S, tiers="strict")
    assert waits(job(NATIVE), [H100], replace(strict, bands=frozenset({Tier.QUALITY}))) == (
        "Waits for H100, which is busy."
    )
    assert waits(job(), [H100], strict) == (
        "No card can run it. The nearest is H100: it is preview work, H100 is kept for quality work. "
        "Submit it with `--anywhere`."
    )


def test_the_advice_holds() -> None:
    """What a job is told would fit does fit, and one frame more does not."""
    fitting, over = (replace(NATIVE, frames=frames) for frames in (28, 29))
    assert takers(fitting, GTX_1050) == ["GTX 1050"]
    assert takers(over, GTX_1050) == []


def test_unplaceable() -> None:
    assert unplaceable(job(NATIVE), [], view()) is None
    assert unplaceable(job(NATIVE), ALL, view(*ALL)) is None
    why = unplaceable(job(LONG), [CPU, GTX_1050], view(CPU, GTX_1050))
    assert why is not None
    assert "needs 5.0 GiB, GTX 1050 has 2.4 usable" in why


def test_a_drained_pc_keeps_its_cards_from_work_and_the_job_waits_for_it() -> None:
    """Offline workers count as capable elsewhere, and a job that only they could serve looks as if it were lost."""
    farm = view(RTX_3060, resting={"n1": "is drained"})
    verdict = check(job(), RTX_3060, farm)
    assert verdict.reasons == ("RTX 3060 is drained",)
    assert (verdict.eligible, verdict.able) == (False, True)
    assert unplaceable(job(), [RTX_3060], farm) is None
    assert waits(job(), [RTX_3060], farm) == "Waits for RTX 3060, which is drained."
    paused = view(RTX_3060, resting={RTX_3060.id: "is paused by its owner"})
    assert check(job(), RTX_3060, paused).reasons == ("RTX 3060 is paused by its owner",)
    assert check(job(), RTX_2070S, paused).eligible


def test_why_a_job_waits_says_what_the_cards_that_can_run_it_do() -> None:
    """No reason shown why a job waits (gflow PR#208): complaint 16."""
    farm = view(*ALL, resting={H100.id: "works from 22:00 to 08:00"})
    found = [(card, check(job(), card, farm)) for card in ALL]
    assert why_waiting(found, {RTX_2070S.id: "is busy", RTX_3060.id: "is busy"}) == (
        "Waits for one of 3 cards that can run it: 2 are busy, 1 works from 22:00 to 08:00."
    )
    assert why_waiting(found, {RTX_2070S.id: "does not answer", RTX_3060.id: "is busy"}) == (
        "Waits for one of 3 cards that can run it: 1 does not answer, 1 is busy, 1 works from 22:00 to 08:00."
    )
    assert why_waiting(found[:3], {RTX_2070S.id: "does not answer"}) == (
        "Waits for RTX 2070 Super, which does not answer."
    )
    assert why_waiting(found[2:4], {card.id: "does not answer" for card in ALL}) == (
        "Waits for one of 2 cards that can run it; none answers."
    )
    assert why_waiting(found, {RTX_3060.id: "is busy"}) == (
        "Its turn comes next: 1 of 3 cards that can run it is idle."
    )
    assert why_waiting(found[2:4], {}) == "Its turn comes next."
    assert why_waiting([], {}).startswith("No card has joined")


def test_a_pc_with_too_little_memory_is_named_with_what_would_help() -> None:
    """RAM is a dimension too: 16 GB of host RAM with streamed weights (Wan2GP#1612): complaint 7."""
    small, enough = (replace(RTX_2060, usable_gib=2.0, ram_gib=ram) for ram in (4.0, 8.0))
    farm = view(small)
    assert check(job(), small, farm).reasons == (
        "its PC has 1.0 GiB of memory to spare for it (of 4.0), too little for the weights that RTX 2060 cannot hold",
    )
    assert check(job(), enough, farm).eligible
    why = unplaceable(job(), [small], farm)
    assert why is not None
    assert "Give that PC more memory, or ask for" in why


def test_a_card_that_fits_is_not_refused_and_one_that_does_not_is_not_taken() -> None:
    """Underestimates run out of memory, overestimates refuse cards that fit (gpustack#2101, #1249, #1126): complaint 7.

    At the limit of what the planner says, a little more memory makes the difference, and nothing is taken beyond it.
    """
    least = smallest_peak_gib(builtin_models()["i2vgen-xl"], NATIVE)
    for usable, takes in ((least + 0.02, True), (least - 0.02, False)):
        card = replace(RTX_2060, usable_gib=usable)
        verdict = check(job(NATIVE), card, view(card))
        assert verdict.eligible is takes
        assert verdict.peak_gib is None or verdict.peak_gib <= usable
        if not takes:
            assert verdict.reasons == (f"needs {least:.1f} GiB, RTX 2060 has {usable:.1f} usable",)


CARDS = st.builds(
    Card,
    id=st.sampled_from(["a", "b"]),
    node_id=st.just("n"),
    kind=st.sampled_from(CardKind),
    name=st.sampled_from(["RTX 2060", "H100", "Unheard Of 1"]),
    vram_gib=st.none() | st.floats(1, 141),
    usable_gib=st.none() | st.floats(0.1, 140),
    band=st.sampled_from(Tier),
    models=st.sets(st.sampled_from(["animatic", "i2vgen-xl", "gone"])).map(frozenset),
    ram_gib=st.none() | st.floats(1, 64),
)
JOBS = st.builds(
    lambda model, side, frames, guidance, anywhere: job(
        replace(STANDARD, model=model, width=side * 8, height=side * 8, frames=frames, guidance=guidance),
        anywhere=anywhere,
    ),
    st.sampled_from(["animatic", "i2vgen-xl", "gone"]),
    st.integers(8, 160),
    st.integers(1, 64),
    st.floats(0, 30),
    st.booleans(),
)
VIEWS = st.builds(
    FarmView,
    models=st.just(builtin_models()),
    tiers=st.sampled_from(["soft", "strict", "off"]),
    bands=st.sets(st.sampled_from(Tier)).map(frozenset),
    failed=st.dictionaries(st.just("j1"), st.sets(st.sampled_from(["a", "b"])).map(frozenset)),
    resting=st.dictionaries(st.sampled_from(["a", "b", "n"]), st.just("is drained")),
)


@given(JOBS, CARDS, VIEWS)
def test_eligible_exactly_where_no_filter_objects(job: Job, card: Card, farm: FarmView) -> None:
    verdict = check(job, card, farm)
    reasons = [reason for ask in FILTERS if (reason := ask(job, card, farm))]
    assert list(verdict.reasons) == reasons
    assert verdict.eligible == (not reasons)
    assert waits(job, [card], farm).startswith("Waits for" if verdict.able else "No card can run it.")
    assert (unplaceable(job, [card], farm) is None) == verdict.able
    assert verdict.able == (not any(ask(job, card, farm) for ask in LASTING))
    if verdict.eligible:
        assert verdict.plan is not None
        assert verdict.seconds > 0
        assert job.settings.model in card.models
        if job.settings.model == "i2vgen-xl":
            assert card.usable_gib is not None
            row = builtin_models()["i2vgen-xl"]
            assert peak_gib(row, job.settings, verdict.plan) <= card.usable_gib


def test_an_owner_s_program_makes_no_job_unplaceable_but_keeps_it_waiting() -> None:
    """A game on the only card made the farm say that no card could ever run the job."""
    in_use = replace(RTX_2060, usable_gib=1.1, others_gib=4.25, kept="a game uses the card")
    farm = view(in_use)
    verdict = check(job(), in_use, farm)
    assert not verdict.eligible
    assert verdict.able
    assert verdict.reasons == (
        "RTX 2060 is kept for its owner: a game uses the card",
        "RTX 2060 has 1.1 GiB usable while other programs hold 4.2",
    )
    assert waits(job(), [in_use], farm) == (
        "Waits for RTX 2060, which is kept for its owner: a game uses the card."
    )
    assert unplaceable(job(), [in_use], farm) is None
    assert without_its_owner(in_use) == replace(RTX_2060, usable_gib=5.35)


def test_a_card_that_a_game_fills_is_no_larger_than_it_is() -> None:
    """A 6 GB card, all of it held by a game, counted as 6 GiB for renders: a job that never fits waited for the game's end."""
    full = replace(RTX_2060, usable_gib=0.0, others_gib=6.0)
    assert without_its_owner(full).usable_gib == 5.4
    assert without_its_owner(replace(full, vram_gib=None)).usable_gib == 6.0


SMOOTH = replace(STANDARD, frames=8, steps=30, smooth=24)


def smoothers(
    *cards: Card, settings: RenderSettings = SMOOTH, anywhere: bool = False, **more: object
) -> list[str]:
    """The cards that take the second stage of a smoothed job."""
    waiting = job(settings, stage=StageKind.INTERPOLATE, anywhere=anywhere)
    farm = view(*cards, **more)
    return [card.name for card in cards if check(waiting, card, farm).eligible]


def test_interpolation_is_post_work_whatever_the_clip() -> None:
    assert tier_now(job(NATIVE)) is Tier.QUALITY
    assert tier_now(job(NATIVE, stage=StageKind.INTERPOLATE)) is Tier.POST


@pytest.mark.parametrize(
    ("tiers", "cards", "expected"),
    [
        ("soft", ALL, ["Ryzen 5 3600", "RTX 2060"]),  # those that are kept for post work
        ("strict", ALL, ["Ryzen 5 3600", "RTX 2060"]),
        ("off", ALL, [card.name for card in ALL]),
        ("soft", (CPU,), ["Ryzen 5 3600"]),  # a farm of one PC without a card
        ("soft", (RTX_3060,), ["RTX 3060"]),  # a farm of one 12 GB card
        ("soft", (RTX_2070S, RTX_3060), ["RTX 2070 Super", "RTX 3060"]),
        ("strict", (RTX_2070S, RTX_3060), []),
        ("soft", (CPU, RTX_3060), ["Ryzen 5 3600"]),  # the big card is left to what only it can do
    ],
)
def test_interpolation_goes_to_post_cards_and_where_there_is_none_to_any(
    tiers: str, cards: tuple[Card, ...], expected: list[str]
) -> None:
    assert smoothers(*cards, tiers=tiers) == expected


def test_interpolation_runs_anywhere_where_the_job_may() -> None:
    assert smoothers(*ALL, anywhere=True, tiers="strict") == [card.name for card in ALL]
    drafts = smoothers(*ALL, settings=replace(SMOOTH, model="animatic", steps=1), tiers="strict")
    assert drafts == [card.name for card in ALL]


def test_interpolation_needs_neither_model_nor_memory() -> None:
    bare = replace(GTX_1050, models=frozenset(), usable_gib=None)
    verdict = check(job(SMOOTH, stage=StageKind.INTERPOLATE), bare, view(bare))
    assert (verdict.eligible, verdict.peak_gib, verdict.plan) == (True, None, MemoryPlan())
    assert verdict.seconds == interpolation_seconds(interpolator(), SMOOTH)
    assert not check(job(SMOOTH), bare, view(bare)).eligible


def test_a_second_stage_that_can_go_nowhere_says_why_and_what_helps() -> None:
    waiting = job(SMOOTH, stage=StageKind.INTERPOLATE)
    strict = view(RTX_3060, tiers="strict")
    assert unplaceable(waiting, [RTX_3060], strict) == (
        "No card can run it. The nearest is RTX 3060: it is post work, RTX 3060 is kept for quality work. "
        "Let a PC join that has a card under 8 GB or none: post work takes no more."
    )
    failed = view(CPU, failed={"j1": frozenset({CPU.id})})
    assert unplaceable(waiting, [CPU], failed) == (
        "No card can run it. The nearest is Ryzen 5 3600: it failed on Ryzen 5 3600 before. "
        "Look at the log of the failed attempt and retry the job."
    )
