"""The incremental policy against planning from scratch, through any order of events."""

from dataclasses import dataclass, fields, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from farm.catalogue.models import builtin_models
from farm.model import Card, CardKind, Job, JobStatus, RenderSettings, StageKind, Tier
from farm.planning.eligibility import FarmView, Verdict, bands_of, check
from farm.planning.tiers import band_of, tier_of
from scheduler.policy import Policy, requirements

MODELS = builtin_models()
DRAFT = RenderSettings("animatic", 512, 512, 16, 1, 1.0, 8, seed=1)
STANDARD = RenderSettings("i2vgen-xl", 512, 512, 16, 50, 9.0, 8, seed=1, prompt="waves")
KINDS = (DRAFT, STANDARD, replace(STANDARD, width=1280, height=704), replace(STANDARD, steps=20))
MACHINES = (
    (None, "Ryzen 5"),
    (4, "GTX 970"),
    (6, "RTX 2060"),
    (8, "RTX 2070 Super"),
    (12, "RTX 3060"),
    (80, "H100"),
)
JOB_IDS = [f"J{number}" for number in range(6)]
CARD_IDS = [f"C{number}" for number in range(4)]


def make_card(card_id: str, machine: int, *, weights: bool) -> Card:
    vram, name = MACHINES[machine]
    kind = CardKind.CPU if vram is None else CardKind.CUDA
    models = frozenset({"animatic", "i2vgen-xl"} if weights else {"animatic"})
    usable = None if vram is None else vram - 0.6
    return Card(card_id, "n1", kind, name, vram, usable, band_of(vram, kind), models=models)


def make_job(job_id: str, kind: RenderSettings, priority: int, *, anywhere: bool) -> Job:
    draft = MODELS[kind.model].draft
    return Job(
        job_id,
        JobStatus.QUEUED,
        kind,
        tier_of(kind),
        "ab",
        1.0,
        priority=priority,
        anywhere=anywhere,
        draft=draft,
    )


@dataclass
class Naive:
    """The farm as plain lists, and a plan made from nothing but them."""

    jobs: dict[str, tuple[Job, int]]
    cards: dict[str, Card]
    free: set[str]
    excluded: dict[str, set[str]]

    def judge(self, job: Job, card: Card) -> Verdict:
        return check(job, card, FarmView(MODELS, "soft", bands_of(self.cards.values())))

    def plan(self) -> list[tuple[str, str]]:
        """Each job in the order of the queue takes the fastest free card that may take it."""
        free, made = set(self.free), []
        for job, _seq in sorted(self.jobs.values(), key=lambda entry: (-entry[0].priority, entry[1])):
            able = []
            for card_id in free - self.excluded.get(job.id, set()):
                verdict = self.judge(job, self.cards[card_id])
                if verdict.eligible:
                    able.append((verdict.seconds, card_id))
            if able:
                card_id = min(able)[1]
                made.append((job.id, card_id))
                free.discard(card_id)
        return made


class Planning(RuleBasedStateMachine):
    """Drives the policy as the scheduler's loop does."""

    def __init__(self) -> None:
        super().__init__()
        self.farm = Naive({}, {}, set(), {})
        self.policy = Policy(self.farm.judge)
        self.seq = 0
        self.held: dict[str, tuple[Job, int, str]] = {}

    # --- jobs ---
    @rule(
        name=st.sampled_from(JOB_IDS),
        kind=st.sampled_from(KINDS),
        priority=st.integers(-2, 2),
        anywhere=st.booleans(),
    )
    def submit(self, name: str, kind: RenderSettings, priority: int, anywhere: bool) -> None:
        """A new job, or one of that name replaced by another."""
        if name in self.held:
            return
        self.seq += 1
        job = make_job(name, kind, priority, anywhere=anywhere)
        self.policy.add_job(job, self.seq)
        self.farm.jobs[name] = (job, self.seq)

    @rule(name=st.sampled_from(JOB_IDS))
    def cancel(self, name: str) -> None:
        self.policy.remove_job(name)
        self.farm.jobs.pop(name, None)

    @precondition(lambda self: self.farm.jobs)
    @rule(data=st.data(), priority=st.integers(-2, 2))
    def change_priority(self, data: st.DataObject, priority: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.farm.jobs)))
        self.policy.change_priority(name, priority)
        job, seq = self.farm.jobs[name]
        self.farm.jobs[name] = (replace(job, priority=priority), seq)

    @rule(name=st.sampled_from(JOB_IDS), priority=st.integers(-2, 2))
    def change_priority_of_a_job_that_does_not_wait(self, name: str, priority: int) -> None:
        if name not in self.farm.jobs:
            self.policy.change_priority(name, priority)

    @rule(name=st.sampled_from(JOB_IDS))
    def note(self, name: str) -> None:
        self.policy.note_unplaceable({name: "no card"})

    # --- cards ---
    @rule(
        name=st.sampled_from(CARD_IDS),
        machine=st.integers(0, len(MACHINES) - 1),
        weights=st.booleans(),
    )
    def card_appears_or_changes(self, name: str, machine: int, weights: bool) -> None:
        card = make_card(name, machine, weights=weights)
        free = all(on != name for _, _, on in self.held.values())
        self.policy.set_card(card, free=free)
        self.farm.cards[name] = card
        self.farm.free = self.farm.free | {name} if free else self.farm.free - {name}

    @rule(name=st.sampled_from(CARD_IDS))
    def card_falls_silent(self, name: str) -> None:
        if name in self.farm.cards:
            self.policy.set_card(self.farm.cards[name], free=False)
            self.farm.free.discard(name)

    @rule(name=st.sampled_from(CARD_IDS))
    def card_vanishes(self, name: str) -> None:
        self.policy.remove_card(name)
        self.farm.cards.pop(name, None)
        self.farm.free.discard(name)

    # --- attempts ---
    @rule()
    def decide(self) -> None:
        expected = self.farm.plan()
        picks = self.policy.decide()
        assert [(pick.job.id, pick.card.id) for pick in picks] == expected
        assert len({pick.card.id for pick in picks}) == len(picks), "one job for each card"
        for pick in picks:
            job, seq = self.farm.jobs.pop(pick.job.id)
            verdict = self.farm.judge(job, self.farm.cards[pick.card.id])
            assert verdict.eligible
            assert (pick.plan, pick.seconds) == (verdict.plan, verdict.seconds)
            assert pick.card == self.farm.cards[pick.card.id]
            assert pick.job.priority == job.priority
            self.farm.free.discard(pick.card.id)
            self.held[job.id] = (job, seq, pick.card.id)
        assert not self.farm.plan(), "no card stays idle that could take a waiting job"

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["finished", "failed", "lost"]))
    def attempt_ends(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        job, seq, card_id = self.held.pop(name)
        if card_id in self.farm.cards:
            self.policy.set_card(self.farm.cards[card_id], free=True)
            self.farm.free.add(card_id)
        if how == "finished":
            self.policy.forgive(name)
            self.farm.excluded.pop(name, None)
            return
        if how == "failed":
            self.policy.exclude(name, card_id)
            self.farm.excluded.setdefault(name, set()).add(card_id)
        self.policy.add_job(job, seq)
        self.farm.jobs[name] = (job, seq)

    @invariant()
    def both_see_the_same_farm(self) -> None:
        assert {job.id for job in self.policy.jobs()} == set(self.farm.jobs)
        assert self.policy.waiting == len(self.farm.jobs)
        assert {card.id: card for card in self.policy.cards} == self.farm.cards
        for name in JOB_IDS:
            assert self.policy.excluded(name) == frozenset(self.farm.excluded.get(name, set()))


Planning.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestPlanning = Planning.TestCase


@given(
    kind=st.sampled_from(KINDS),
    stage=st.sampled_from([StageKind.GENERATE, StageKind.INTERPOLATE]),
    machine=st.integers(0, len(MACHINES) - 1),
    others=st.sets(st.integers(0, len(MACHINES) - 1)),
    changes=st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 99),
            "fps": st.integers(1, 60),
            "prompt": st.text(max_size=5),
            "negative_prompt": st.text(max_size=5),
            "motion": st.sampled_from(["zoom", "left"]),
            "strength": st.floats(0.1, 2),
        },
    ),
    more=st.fixed_dictionaries(
        {},
        optional={
            "priority": st.integers(-5, 5),
            "preset": st.sampled_from(["draft", None]),
            "submitted_by": st.sampled_from(["ann", "bob"]),
            "created_at": st.floats(0, 9),
            "input_sha256": st.just("cd"),
        },
    ),
)
def test_jobs_of_equal_requirements_are_alike_to_the_judge(
    kind: RenderSettings,
    stage: StageKind,
    machine: int,
    others: set[int],
    changes: dict[str, Any],
    more: dict[str, Any],
) -> None:
    """A group is judged by one of its jobs: nothing that `requirements` leaves out may count."""
    if stage is StageKind.INTERPOLATE:
        kind = replace(kind, smooth=61)
        changes = {name: value for name, value in changes.items() if name != "fps"}
    one = replace(make_job("J1", kind, 0, anywhere=False), stage=stage)
    other = replace(one, id="J2", settings=replace(kind, **changes), **more)
    assert requirements(one) == requirements(other)
    card = make_card("C1", machine, weights=True)
    cards = [card, *(make_card(f"O{number}", number, weights=True) for number in others)]
    view = FarmView(MODELS, "soft", bands_of(cards))
    assert check(one, card, view) == check(other, card, view)


def test_every_field_of_the_settings_is_either_required_or_known_not_to_count() -> None:
    """A field added to the settings later must be thought of here: a group must not hide it from the judge."""
    free = {"seed", "prompt", "negative_prompt", "motion", "strength"}
    smoothed = replace(STANDARD, smooth=24)
    for stage, more in ((StageKind.GENERATE, {"fps", "smooth"}), (StageKind.INTERPOLATE, set[str]())):
        job = replace(make_job("J1", smoothed, 0, anywhere=False), stage=stage)
        for entry in fields(RenderSettings):
            value = getattr(smoothed, entry.name)
            other = f"{value}x" if isinstance(value, str) else value + 1
            changed = replace(job, settings=replace(smoothed, **{entry.name: other}))
            assert (requirements(changed) == requirements(job)) == (entry.name in free | more), entry.name
    job = make_job("J1", STANDARD, 0, anywhere=False)
    assert requirements(replace(job, stage=StageKind.INTERPOLATE)) != requirements(job)
    for changed in (replace(job, tier=Tier.POST), replace(job, anywhere=True), replace(job, draft=True)):
        assert requirements(changed) != requirements(job)
