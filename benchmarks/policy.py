"""How long one decision takes with 1,000 cards and 100,000 queued jobs: a card becomes free, a job is added. One core, no store."""

import gc
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.record import percentile, record
from farm.catalogue.cards import cards
from farm.catalogue.models import builtin_models
from farm.catalogue.presets import presets
from farm.model import Card, Job, JobStatus, RenderSettings
from farm.planning.eligibility import FarmView, Verdict, bands_of, check
from farm.planning.foresee import imagined_card
from farm.planning.loading import load_seconds
from farm.planning.tiers import tier_of
from scheduler.policy import Policy

CARDS = 1_000
JOBS = 100_000
USERS = 20
STEPS = (None, 20, 40)
"""Each diffusion preset as it is, and with so many steps instead: kinds of work."""
EVENTS = 1_000
MOST_MS = 5.0


def run(_root: Path) -> None:
    """Fills a farm whose cards all work, then frees one card after the other, with and without batches in the queue."""
    plain, mixed = _measure(batches=False), _measure(batches=True)
    rows = []
    for name, found in (("single jobs", plain), ("four in five in batches", mixed)):
        for event, took_ms in found.items():
            rows.append(
                f"| {event}, {name} | {median(took_ms):.2f} | {percentile(took_ms, 0.95):.2f} | {max(took_ms):.1f} |"
            )
            assert median(took_ms) < MOST_MS, f"{event}: {median(took_ms):.2f} ms"
    record(
        "policy",
        f"## The scheduling policy\n\nOne event decided with {CARDS:,} cards of the catalogue at work and {JOBS:,} jobs queued by {USERS} "
        f"users, on one core; each event {EVENTS:,} times (`benchmarks/policy.py`). Must: median under {MOST_MS:g} ms.\n\n"
        f"| event | median ms | p95 ms | max ms |\n|---|---|---|---|\n" + "\n".join(rows),
    )


def _measure(*, batches: bool) -> dict[str, list[float]]:
    chance = random.Random(7)  # noqa: S311 - a benchmark
    models = builtin_models()
    rows = [row for row in cards() if row.vram_gb >= 4]
    fleet = [
        replace(imagined_card(row.name, row.vram_gb, models), id=f"GPU-{index:04d}", node_id=f"pc{index}")
        for index in range(CARDS)
        for row in [rows[index % len(rows)]]
    ]
    view = FarmView(models, "soft", bands_of(fleet))

    def judge(job: Job, card: Card) -> Verdict:
        return check(job, card, view)

    policy = Policy(judge, lambda model, _card: load_seconds(models[model]))
    kinds = _kinds()
    for seq in range(JOBS):
        policy.add_job(_job(seq, chance, kinds, float(seq)), seq, _batch(seq, batches=batches))
    for card in fleet:
        policy.set_card(card, free=True)
    now = float(JOBS)
    working = [pick.card for pick in policy.decide(now)]
    seq, freed, added = JOBS, [], []
    gc.collect()
    for _ in range(EVENTS):
        now += 0.5
        card = working[chance.randrange(len(working))]
        seq += 1
        job, batch = _job(seq, chance, kinds, now), _batch(seq, batches=batches)
        added.append(_timed(lambda: (policy.add_job(job, seq, batch), policy.decide(now))))  # noqa: B023 - called at once
        freed.append(_timed(lambda: (policy.set_card(card, free=True), policy.decide(now))))  # noqa: B023
    return {"job added": added, "card freed": freed}


def _kinds() -> list[RenderSettings]:
    diffusion = [one for one in presets().values() if one.name not in ("draft",)]
    return [
        RenderSettings(
            one.model, one.width, one.height, one.frames, steps or one.steps, one.guidance, one.fps, seed=0
        )
        for one in diffusion
        for steps in STEPS
    ]


def _job(seq: int, chance: random.Random, kinds: list[RenderSettings], now: float) -> Job:
    settings = chance.choice(kinds)
    user, priority = f"user{chance.randrange(USERS)}", chance.choice((0, 0, 0, 1))
    return Job(
        f"J{seq}",
        JobStatus.QUEUED,
        settings,
        tier_of(settings),
        "",
        now,
        priority=priority,
        submitted_by=user,
    )


def _batch(seq: int, *, batches: bool) -> str | None:
    return f"b{seq % 50}" if batches and seq % 5 else None


def _timed(does: Callable[[], object]) -> float:
    began = time.perf_counter()
    does()
    return 1000 * (time.perf_counter() - began)
