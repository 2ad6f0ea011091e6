"""How many assignments a second the store takes: SQLite on disk, synced, by compare-and-set, one transaction for each tick."""

import os
import time
from collections import deque
from pathlib import Path

import sqlalchemy as sa

from benchmarks.record import percentile, record
from farm.ids import new_id
from farm.model import Artifact, Card, CardKind, MemoryPlan, Node, RenderSettings, Tier
from farm.store import schema
from farm.store.claims import Assignment
from farm.store.engine import migrate, open_engine
from farm.store.registry import Registry
from farm.store.requests import NewJob, Requests
from farm.store.writer import Writer

CARDS = 1_000
JOBS = 20_000
TICKS = (1, 32, 200)
"""Assignments for each transaction: one card freed, a busy farm's tick, a farm that starts."""
MUST = 2_000.0
MUST_AT = 32
SETTINGS = RenderSettings("i2vgen-xl", 512, 512, 16, 50, 9.0, 8, seed=1, prompt="waves roll in")


def run(root: Path) -> None:
    """Assigns all jobs of a full queue, `TICKS` at a time; between the measured transactions the attempts end, so that cards are free."""
    rows = []
    for number in TICKS:
        took_s, each_ms = _measure(root / f"{number}.sqlite3", number)
        rate = len(each_ms) * number / took_s
        rows.append(
            f"| {number} | {rate:,.0f} | {percentile(each_ms, 0.5):.1f} | {percentile(each_ms, 0.95):.1f} | {max(each_ms):.1f} |"
        )
        print(f"{number}: {rate:.0f} a second", flush=True)
        assert number != MUST_AT or rate > MUST, f"{rate:.0f} assignments a second"
    record(
        "assign",
        f"## Assignments through the store\n\n{CARDS:,} cards, {JOBS:,} queued jobs, SQLite in WAL mode with `synchronous=FULL`; an "
        f"assignment claims job and card by compare-and-set, and writes attempt and story (`benchmarks/assign.py`). "
        f"Must: {MUST:,.0f} a second "
        f"sustained with {MUST_AT} in a transaction.\n\n"
        f"| assignments in a transaction | per second | median ms | p95 ms | max ms |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + f"\n\nLoad average of the PC, by other work too: {os.getloadavg()[0]:.1f}.",
    )


def _measure(path: Path, number: int) -> tuple[float, list[float]]:
    url = f"sqlite:///{path}"
    migrate(url)
    engine = open_engine(url, writes=True)
    try:
        cards = [
            Card(f"GPU-{index}", "n1", CardKind.CUDA, "RTX 3060", 12.0, 11.4, Tier.QUALITY)
            for index in range(CARDS)
        ]
        Registry(engine).see_node(Node("n1", "n1", "127.0.0.1"), cards, 1.0)
        jobs = JOBS if number > 1 else JOBS // 10
        queue = deque(_queued(engine, jobs))
        writer, each_ms = Writer(engine), []
        while len(queue) >= number:
            batch = [
                Assignment(
                    new_id(), queue.popleft(), "n1", card.id, card.name, MemoryPlan(), predicted_s=118.0
                )
                for card in cards[:number]
            ]
            began = time.perf_counter()
            won = writer.assign(batch, 2.0)
            each_ms.append(1000 * (time.perf_counter() - began))
            assert len(won) == number
            with engine.begin() as connection:
                connection.execute(
                    sa.update(schema.attempts)
                    .where(schema.attempts.c.status == "assigned")
                    .values(status="finished", finished_at=3.0)
                )
        return sum(each_ms) / 1000, each_ms
    finally:
        engine.dispose()


def _queued(engine: sa.Engine, count: int) -> list[str]:
    """The ids of so many queued jobs: the first through the front door, the rest copied from its row."""
    picture = Artifact("ab" * 32, "image/png", 3)
    first = Requests(engine).submit(NewJob(SETTINGS, Tier.PREVIEW, draft=False, picture=picture), 1.0)[0]
    ids = [new_id() for _ in range(count - 1)]
    with engine.begin() as connection:
        row = dict(connection.execute(sa.select(schema.jobs)).mappings().one())
        del row["seq"]
        connection.execute(sa.insert(schema.jobs), [{**row, "id": job_id} for job_id in ids])
    return [first.id, *ids]
