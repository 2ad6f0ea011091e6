"""The incremental policy against planning from scratch, through any order of events."""

from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from farm.catalogue.models import builtin_models
from farm.model import Card, CardKind, Job, JobStatus, RenderSettings, StageKind, Tier
from farm.planning.eligibility import FarmView, Verdict, bands_of, check
from farm.planning.loading import load_seconds
from farm.planning.tiers import band_of, tier_of
from scheduler.policy import Pick, Policy, requirements

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
JOB_IDS = [f"J{number}" for number in range(8)]
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
class Facts:
    """The farm as plain values: all that a plan may depend on."""

    jobs: dict[str, tuple[Job, int]]
    cards: dict[str, Card]
    free: set[str]
    ends: dict[str, float]
    models: dict[str, str]
    excluded: dict[str, set[str]]

    def judge(self, job: Job, card: Card) -> Verdict:
        return check(job, card, FarmView(MODELS, "soft", bands_of(self.cards.values())))

    def may(self, job: Job, card_id: str) -> bool:
        return (
            card_id not in self.excluded.get(job.id, set()) and self.judge(job, self.cards[card_id]).eligible
        )

    def from_scratch(self, past: Policy) -> Policy:
        """A policy that hears of everything at once, in another order; of the past it is told only who got how much, and when."""
        made = Policy(self.judge, loading)
        for card_id in sorted(self.cards, reverse=True):
            made.set_card(
                self.cards[card_id],
                free=card_id in self.free,
                busy_until=self.ends.get(card_id),
                model=self.models.get(card_id),
            )
        for job_id, cards in self.excluded.items():
            for card_id in cards:
                made.exclude(job_id, card_id)
        for job, seq in sorted(self.jobs.values(), key=lambda pair: -pair[1]):
            made.add_job(job, seq)
        made._scene.shares.accounts = dict(past._scene.shares.accounts)
        for key, group in past._scene.groups.items():
            for name, lane in group.lanes.items():
                twin = made._scene.groups[key].lanes[name]
                twin.served, twin.burst = lane.served, lane.burst
                twin.note()
        return made

    def needs(self, job: Job, card_id: str) -> float:
        """Seconds of the job on the card, from now, were it free."""
        cold = self.models.get(card_id) != job.settings.model
        load_s = loading(job.settings.model, self.cards[card_id]) if cold else 0.0
        return load_s + self.judge(job, self.cards[card_id]).seconds

    def done(self, job: Job, card_id: str, now: float) -> float | None:
        """When the card would have done the job at the earliest; None where nobody knows when it is free."""
        if card_id in self.free:
            return now + self.needs(job, card_id)
        ends = self.ends.get(card_id)
        if ends is None:
            return None
        return (ends if ends >= now else 2 * now - ends) + self.needs(job, card_id)

    def sooner_elsewhere(self, job: Job, card_id: str, now: float) -> bool:
        """Whether some other card would have it done before this free one."""
        mine = now + self.needs(job, card_id)
        others = (
            self.done(job, other, now) for other in self.cards if other != card_id and self.may(job, other)
        )
        return any(end is not None and end < mine for end in others)

    def done_elsewhere(self, job: Job, card_id: str, now: float) -> int:
        """How many jobs like this one the other cards would have finished before this free one has done one. Counted one by one."""
        mine, count = now + self.needs(job, card_id), 0
        for other in self.cards:
            end = self.done(job, other, now) if other != card_id and self.may(job, other) else None
            while end is not None and end < mine - 1e-6 and count < len(self.jobs):
                count += 1
                end += self.judge(job, self.cards[other]).seconds
        return count

    def gives_way(self, job: Job, card_id: str) -> bool:
        """Whether the job is preview work, and the card one of the quality band in a farm that has a preview band."""
        soft = job.tier is Tier.PREVIEW and not (job.anywhere or job.draft)
        bands = bands_of(self.cards.values())
        return soft and self.cards[card_id].band is Tier.QUALITY and Tier.PREVIEW in bands

    def quality_waits(self, card_id: str) -> bool:
        return any(job.tier is Tier.QUALITY and self.may(job, card_id) for job, _ in self.jobs.values())


def loading(model: str, _card: Card) -> float:
    return load_seconds(MODELS[model])


class Planning(RuleBasedStateMachine):
    """Drives the policy as the scheduler's loop does."""

    def __init__(self) -> None:
        super().__init__()
        self.farm = Facts({}, {}, set(), {}, {}, {})
        self.policy = Policy(self.farm.judge, loading)
        self.seq = 0
        self.now = 100.0
        self.held: dict[str, tuple[Job, int, str, float]] = {}

    @initialize(
        machines=st.lists(st.sampled_from([1, 2, 3, 3, 4, 4, 5]), max_size=len(CARD_IDS)),
        kinds=st.lists(st.sampled_from(KINDS), max_size=len(JOB_IDS)),
    )
    def a_farm_at_work(self, machines: list[int], kinds: list[RenderSettings]) -> None:
        """Most of what matters takes several cards and jobs at once, which single steps seldom come to."""
        for name, machine in zip(CARD_IDS, machines, strict=False):
            self.card_appears_or_changes(name, machine, True)
        for name, kind in zip(JOB_IDS, kinds, strict=False):
            self.submit(name, kind, 0, False, "ann")

    # --- jobs ---
    @rule(
        name=st.sampled_from(JOB_IDS),
        kind=st.sampled_from(KINDS),
        priority=st.integers(-2, 2),
        anywhere=st.sampled_from([False, False, False, True]),
        user=st.sampled_from(["ann", "bob"]),
    )
    def submit(self, name: str, kind: RenderSettings, priority: int, anywhere: bool, user: str) -> None:
        """A new job, or one of that name replaced by another."""
        if name in self.held:
            return
        self.seq += 1
        job = make_job(name, kind, priority, anywhere=anywhere)
        job = replace(job, submitted_by=user, created_at=self.now)
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
        machine=st.sampled_from([0, 1, 2, 3, 3, 3, 4, 4, 4, 5]),
        weights=st.sampled_from([True, True, True, False]),
    )
    def card_appears_or_changes(self, name: str, machine: int, weights: bool) -> None:
        self.farm.cards[name] = make_card(name, machine, weights=weights)
        self.see(name, answers=True)

    def see(self, name: str, *, answers: bool) -> None:
        """The card is heard of, or not: a busy one that answers is expected to end when it was."""
        free = answers and all(on != name for _, _, on, _ in self.held.values())
        ends = next((ends for _, _, on, ends in self.held.values() if on == name), None) if answers else None
        self.policy.set_card(self.farm.cards[name], free=free, busy_until=ends)
        self.farm.free = self.farm.free | {name} if free else self.farm.free - {name}
        self.farm.ends.pop(name, None)
        if ends is not None:
            self.farm.ends[name] = ends

    @rule(name=st.sampled_from(CARD_IDS))
    def card_falls_silent(self, name: str) -> None:
        if name in self.farm.cards:
            self.see(name, answers=False)

    @rule(name=st.sampled_from(CARD_IDS))
    def card_vanishes(self, name: str) -> None:
        self.policy.remove_card(name)
        for known in (self.farm.cards, self.farm.ends, self.farm.models):
            known.pop(name, None)  # type: ignore[attr-defined]  # dicts of several values
        self.farm.free.discard(name)

    @rule(name=st.sampled_from(CARD_IDS))
    def worker_is_replaced(self, name: str) -> None:
        self.policy.unload(name)
        self.farm.models.pop(name, None)

    # --- attempts ---
    @rule(later=st.sampled_from([0.0, 5.0, 100.0, 4000.0]))
    def time_passes(self, later: float) -> None:
        self.now += later

    @rule(later=st.sampled_from([0.0, 1.0, 30.0]))
    def decide(self, later: float) -> None:
        self.now += later
        expected = self.farm.from_scratch(self.policy).decide(self.now)
        picks = self.policy.decide(self.now)
        noted = [replace(pick, job=replace(pick.job, unplaceable=None)) for pick in picks]
        assert noted == expected, "hearing of things one by one, or of all at once, must come to the same"
        assert len({pick.card.id for pick in picks}) == len(picks), "one job for each card"
        for pick in picks:
            self.begin(pick)
        self.no_card_idles_in_vain()

    def no_card_idles_in_vain(self) -> None:
        """What "work conserving" means where one may wait for a better card.

        A free card is left idle only if, for each kind of job that waits and may go there, the other cards would finish all that wait of it
        before this one would have finished one; or if it is kept for quality work.
        """
        for card_id in self.farm.free:
            kinds: dict[object, list[Job]] = {}
            for job, _ in self.farm.jobs.values():
                if self.farm.may(job, card_id):
                    kinds.setdefault(
                        (requirements(job), frozenset(self.farm.excluded.get(job.id, ()))), []
                    ).append(job)
            for jobs in kinds.values():
                kept = self.farm.gives_way(jobs[0], card_id) and self.farm.quality_waits(card_id)
                elsewhere = self.farm.done_elsewhere(jobs[0], card_id, self.now)
                assert kept or elsewhere >= len(jobs), "a card idles in vain"

    def begin(self, pick: Pick) -> None:
        job, seq = self.farm.jobs.pop(pick.job.id)
        card_id = pick.card.id
        assert card_id in self.farm.free
        assert self.farm.may(job, card_id), "what a filter refuses is never assigned"
        verdict = self.farm.judge(job, self.farm.cards[card_id])
        assert (pick.plan, pick.seconds) == (verdict.plan, verdict.seconds)
        assert pick.load_s + pick.seconds == pytest.approx(self.farm.needs(job, card_id))
        assert (pick.card, pick.job.priority) == (self.farm.cards[card_id], job.priority)
        ends = self.now + pick.load_s + pick.seconds
        self.farm.free.discard(card_id)
        self.farm.ends[card_id] = ends
        self.farm.models[card_id] = job.settings.model
        self.held[job.id] = (job, seq, card_id, ends)
        if self.farm.gives_way(job, card_id):
            for other, _ in self.farm.jobs.values():
                if other.tier is Tier.QUALITY and self.farm.may(other, card_id):
                    assert self.farm.sooner_elsewhere(other, card_id, self.now), (
                        "quality work waits for this card"
                    )

    @precondition(lambda self: self.held and self.farm.jobs)
    @rule(data=st.data())
    def a_card_goes_on_to_its_next_job(self, data: st.DataObject) -> None:
        """The way that a farm mostly goes: one ends, and the next is decided."""
        self.attempt_ends(data, "finished")
        self.decide(0.0)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["finished", "failed", "lost"]))
    def attempt_ends(self, data: st.DataObject, how: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        job, seq, card_id, _ = self.held.pop(name)
        if card_id in self.farm.cards:
            self.see(card_id, answers=True)
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
        assert {job.id for group in self.policy.groups for job in self.policy.jobs_of(group)} == set(
            self.farm.jobs
        )
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
