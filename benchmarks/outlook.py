"""What telling every job its place and time costs: a long queue on many cards, through the scheduler's own policy and outlook."""

import asyncio
import gc
import time
from dataclasses import replace
from math import inf
from pathlib import Path
from statistics import median

from benchmarks.record import record
from farm.catalogue.models import builtin_models
from farm.clock import SystemClock
from farm.feed import FeedMessage, LiveCard, QueueChanged, to_line
from farm.model import Job, JobStatus, RenderSettings, Tier
from farm.planning.eligibility import FarmView
from farm.planning.foresee import imagined_card
from scheduler.board import Board
from scheduler.judging import Judging
from scheduler.order import Queue
from scheduler.outlook import Outlook
from scheduler.policy import Policy

CARDS = 1000
JOBS = 100_000
KINDS = 20
ROUNDS = 5
MODELS = ("RTX 2060", "RTX 2070 Super", "RTX 3060", "RTX 3090")
MOST_MS = 100.0
"""The longest that the scheduler's own thread may be held up, in the middle of the rounds."""


class Measured(Policy):
    """The policy, which notes how long it took to copy its queue: that is what holds the scheduler's own thread up."""

    held_s = 0.0

    def queue(self, now: float) -> Queue:
        """As the policy's."""
        began = time.perf_counter()
        found = super().queue(now)
        self.held_s = time.perf_counter() - began
        return found


def run(_root: Path) -> None:
    """Tells the queue some times over, after the first one, in which all kinds are judged."""
    told: list[QueueChanged] = []

    def hear(message: FeedMessage) -> None:
        if isinstance(message, QueueChanged):
            told.append(message)

    view = FarmView(builtin_models(), tiers="off")
    judge = Judging(lambda: view)
    board, policy = Board(hear), Measured(judge)
    outlook = Outlook(policy, board, SystemClock(), judge=judge, view=lambda: view, running=list)
    for number in range(CARDS):
        name = MODELS[number % len(MODELS)]
        card = replace(imagined_card(name, models=("i2vgen-xl",)), id=f"GPU-{number}", name=name)
        policy.set_card(card, free=False)
        board.card(LiveCard(card.id, "n1", "attic", name, "idle"))
    for number in range(JOBS):
        settings = RenderSettings("i2vgen-xl", 512, 512, 16, 20 + number % KINDS, 9.0, 8, seed=number)
        job = Job(f"J{number}", JobStatus.QUEUED, settings, Tier.PREVIEW, "ab" * 32, float(number))
        policy.add_job(job, number)
    gc.freeze()
    first_s = _round(outlook)
    took, held = [], []
    for _ in range(ROUNDS):
        took.append(_round(outlook))
        held.append(1000 * policy.held_s)
    gc.unfreeze()
    line_ms = min(_line_ms(told[-1]) for _ in range(ROUNDS))
    assert median(held) + line_ms < MOST_MS
    record("outlook", _text(first_s, median(took), median(held), line_ms, told[-1]))


def _round(outlook: Outlook) -> float:
    """Tells once, whether it is due or not; the seconds it took."""
    outlook._ended = -inf
    began = time.perf_counter()
    asyncio.run(outlook.tell())
    return time.perf_counter() - began


def _line_ms(told: QueueChanged) -> float:
    began = time.perf_counter()
    to_line(told)
    return 1000 * (time.perf_counter() - began)


def _text(first_s: float, took_s: float, held_ms: float, line_ms: float, told: QueueChanged) -> str:
    line = to_line(told)
    return f"""## Place and time of every job in a long queue

{JOBS:,} jobs of {KINDS} kinds wait for {CARDS:,} cards (`benchmarks/outlook.py`). Told every 5 s at most, and after so long a
queue no more often than takes 2 % of the time. Must: the scheduler's own thread is held up under {MOST_MS:g} ms, in the middle.

| what | figure |
|---|---|
| one telling, in a thread of its own | {took_s:.2f} s |
| of that the scheduler's own thread is held up | {held_ms:.0f} ms |
| the first telling, which asks the planner for many kinds and cards | {first_s:.2f} s |
| jobs placed one by one; the rest have their position, and a time by their kind's curve | {told.placed:,}; {len(told.order):,} |
| what goes to the dashboard, and how long it takes to put into a line | {len(line) / 1024:.0f} KiB, {line_ms:.0f} ms |"""
