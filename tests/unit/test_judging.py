"""The remembered word of the filters is the filters' own, and they are asked once for what is alike."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.models import builtin_models
from farm.model import Card, CardKind, Coming, Job, JobStatus, RenderSettings, StageKind, Tier
from farm.planning.eligibility import FarmView, alike, check
from farm.planning.learned import Learned
from scheduler import judging
from scheduler.judging import Judging

MODELS = builtin_models()
SETTINGS = RenderSettings("i2vgen-xl", 512, 512, 16, 50, 9.0, 8, seed=1, prompt="waves")
CARD = Card(
    "GPU-1",
    "n1",
    CardKind.CUDA,
    "RTX 2060",
    6.0,
    5.4,
    Tier.POST,
    (7, 5),
    frozenset({"i2vgen-xl", "animatic"}),
)
CARDS = st.builds(
    Card,
    st.sampled_from(["GPU-1", "GPU-2", "GPU-3"]),
    st.sampled_from(["n1", "n2"]),
    st.sampled_from(CardKind),
    st.sampled_from(["RTX 2060", "GTX 1080"]),
    st.sampled_from([None, 6.0, 12.0]),
    st.sampled_from([None, 0.5, 5.4, 11.2]),
    st.sampled_from(Tier),
    models=st.sampled_from([frozenset(), frozenset({"i2vgen-xl", "animatic"})]),
    trouble=st.sampled_from([None, "broken"]),
    driver=st.sampled_from([None, "550"]),
    ram_gib=st.sampled_from([None, 4.0, 32.0]),
    kept=st.sampled_from([None, "a game uses the card"]),
    others_gib=st.sampled_from([None, 2.0]),
    coming=st.sampled_from([(), (Coming("i2vgen-xl", 1, 2),)]),
    tags=st.sampled_from([frozenset(), frozenset({"studio"})]),
)
JOBS = st.builds(
    Job,
    st.sampled_from(["J1", "J2"]),
    st.just(JobStatus.QUEUED),
    st.sampled_from(
        [SETTINGS, replace(SETTINGS, width=1280, height=704), replace(SETTINGS, model="animatic", smooth=24)]
    ),
    st.sampled_from(Tier),
    st.just("ab"),
    st.just(1.0),
    stage=st.sampled_from(StageKind),
    anywhere=st.booleans(),
    needs=st.sampled_from([(), ("studio",)]),
)
LEARNED = st.dictionaries(
    st.tuples(st.sampled_from(["GPU-1", "GPU-2"]), st.sampled_from(["i2vgen-xl", "animatic", "mci"])),
    st.builds(Learned, st.floats(0.5, 2), st.floats(0.8, 2)),
)


@given(
    st.lists(st.tuples(JOBS, CARDS), max_size=12),
    st.lists(st.tuples(st.sampled_from(["soft", "strict", "off"]), LEARNED), min_size=1, max_size=3),
)
def test_it_says_what_the_filters_say_whatever_was_asked_before(
    asks: list[tuple[Job, Card]], views: list[tuple[str, dict[tuple[str, str], Learned]]]
) -> None:
    view = FarmView(MODELS)
    judge = Judging(lambda: view)
    for tiers, learned in views:
        view = FarmView(MODELS, tiers, frozenset({Tier.POST}), learned=learned)  # type: ignore[arg-type]  # a mode's name
        for job, card in asks:
            assert judge(job, card) == check(job, card, view)


@given(JOBS, CARDS)
def test_what_is_left_out_of_a_card_no_filter_reads(job: Job, card: Card) -> None:
    view = FarmView(MODELS, "soft", frozenset({Tier.POST}))
    assert check(job, card, view) == check(job, alike(card), view)


def test_a_thousand_cards_of_two_sorts_are_judged_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new kind of job on a thousand cards held the scheduler up for as long as a thousand plans take."""
    asked = []
    monkeypatch.setattr(
        judging, "check", lambda job, card, view: (asked.append(card.id), check(job, card, view))[1]
    )
    view = FarmView(MODELS)
    judge = Judging(lambda: view)
    cards = [
        replace(CARD, id=f"GPU-{number}", node_id=f"n{number}", ram_gib=16.0 * (1 + number % 2))
        for number in range(1000)
    ]
    job = Job("J", JobStatus.QUEUED, SETTINGS, Tier.POST, "ab", 1.0)
    for card in cards:
        judge(job, card)
        judge(replace(job, id="another"), card)
    assert asked == ["GPU-0", "GPU-1"]
    view = replace(view, learned={("GPU-7", "i2vgen-xl"): Learned(seconds=2.0, renders=3)})
    assert judge(job, cards[7]).seconds == pytest.approx(2 * judge(job, cards[9]).seconds)
    assert asked == ["GPU-0", "GPU-1", "GPU-7"]
    view = replace(view, resting={"n9": "is drained"})
    assert judge(job, cards[9]).reasons == ("RTX 2060 is drained",)
