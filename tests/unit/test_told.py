"""What was told of the queue, asked job by job; and how true it comes when the same farm is simulated."""

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from farm.catalogue.interpolators import interpolator
from farm.catalogue.models import builtin_models
from farm.clock import Clock
from farm.feed import Behind, Expected, Knot, LiveCard, QueueChanged, QueuePlace
from farm.model import Job, JobStatus, RenderSettings, StageKind, Tier
from farm.planning.eligibility import FarmView
from farm.planning.interpolation import interpolation_seconds
from farm.planning.kinds import kind_of
from farm.planning.learned import PRIOR
from farm.planning.spans import spread
from farm.told import Told
from scheduler import outlook
from scheduler.board import Board
from scheduler.fleet import read_fleet, read_jobs
from scheduler.outlook import Outlook
from scheduler.policy import Policy
from scheduler.simulate import World, simulate
from tests.fakes import MovedClock

SETTINGS = RenderSettings("i2vgen-xl", 512, 512, 16, 50, 9.0, 8, seed=1, prompt="waves")


def job(seq: int, **more: object) -> Job:
    one = Job(f"J{seq}", JobStatus.QUEUED, SETTINGS, Tier.PREVIEW, "ab" * 32, 0.0, seq=seq)
    return replace(one, **more)  # type: ignore[arg-type]  # names of fields


KIND = kind_of(job(0))
QUEUE = QueueChanged(
    1000.0,
    waiting=6,
    placed=2,
    places=(
        QueuePlace("J9", KIND, None, Expected(1010, 1005, 1015), "GPU-1"),
        QueuePlace("J1", KIND, 1, Expected(1060, 1040, 1090), "GPU-1"),
        QueuePlace("J2", f"{KIND} -GPU-2", 2, None),
    ),
    order=(5, 3, 4, 7),
    newest=7,
    levels=((3, 2), (1, 3), (0, 6)),
    curves={
        KIND: (Knot(3, 1100.0, 2.0), Knot(5, 1300.0, 2.0), Knot(7, 1310.0, 2.0)),
        f"{KIND} -GPU-3": (Knot(3, 1500.0, 2.0),),
    },
    why={KIND: "Its turn comes next.", f"{KIND} -GPU-2": "No card can run it.", f"{KIND} -GPU-3": "Waits."},
    behind={KIND: Behind(2, "Waits for the jobs before it.")},
    apart={"J7": f"{KIND} -GPU-3"},
)
TOLD = Told(QUEUE)


def test_every_waiting_job_has_its_position() -> None:
    positions = {seq: TOLD.position(job(seq)) for seq in (1, 2, 3, 4, 5, 7, 8, 9)}
    assert positions == {1: 1, 2: 2, 5: 3, 3: 4, 4: 5, 7: 6, 8: None, 9: None}
    assert TOLD.position(replace(job(0), seq=None)) is None


def test_a_newer_job_comes_behind_all_of_its_priority_at_the_latest() -> None:
    assert [TOLD.last_of(priority) for priority in (4, 3, 2, 1, 0, -1)] == [0, 2, 2, 3, 6, 6]


def test_times_of_places_are_theirs_and_those_behind_are_read_off_the_curve() -> None:
    assert TOLD.expected(job(1), 1) == (Expected(1060, 1040, 1090), True)
    assert TOLD.expected(job(9), None) == (Expected(1010, 1005, 1015), True)
    assert TOLD.expected(job(2), 2) == (None, True)
    found = {position: TOLD.expected(job(5), position)[0] for position in (2, 3, 4, 5, 6, 7, 99)}
    assert {position: done.at for position, done in found.items() if done} == {
        2: 1100.0, 3: 1100.0, 4: 1200.0, 5: 1300.0, 6: 1305.0, 7: 1310.0, 99: 1310.0
    }  # fmt: skip
    assert TOLD.expected(job(3), 4) == (Expected(1200.0, 1100.0, 1400.0), False)
    assert TOLD.expected(job(7), 6) == (Expected(1500.0, 1250.0, 2000.0), False)
    assert TOLD.expected(job(8, needs=("studio",)), 7) == (None, False)
    assert TOLD.expected(job(8), None) == (None, False)


def test_a_clip_that_will_be_smoothed_is_done_when_that_is() -> None:
    """It was told to be done with the first of its two stages."""
    smooth = replace(SETTINGS, smooth=24)
    told = Told(replace(QUEUE, smoothing=3.0))
    span = spread(3.0 * interpolation_seconds(interpolator(), smooth), PRIOR)
    place, exact = told.expected(job(1, settings=smooth), 1)
    assert place == Expected(1060 + span.likely, 1040 + span.low, 1090 + span.high)
    assert exact
    behind, _ = told.expected(job(3, settings=smooth), 4)
    assert behind == Expected(1200.0 + span.likely, 1100.0 + span.low, 1400.0 + span.high)
    last = job(1, settings=smooth, stage=StageKind.INTERPOLATE)
    assert told.expected(last, 1) == (Expected(1060, 1040, 1090), True)


def test_the_reason_is_that_of_the_job_s_kind_and_of_its_turn() -> None:
    assert TOLD.why(job(1), 1) == "Its turn comes next."
    assert TOLD.why(job(2), 2) == "No card can run it."
    assert TOLD.why(job(4), 5) == "Waits for the jobs before it."
    assert TOLD.why(job(7), 6) == "Waits."
    assert TOLD.why(job(8, needs=("studio",)), 7) is None


FLEET = """cards:
- {model: RTX 2060, count: 4}
- {model: RTX 3060, count: 3}
- {model: RTX 3090}
tiers: "off"
"""
JOBS = """jobs:
- {preset: preview, count: 1500, user: ann, batch: a}
- {preset: standard, count: 500, user: bob, batch: b}
- {preset: quality, count: 300, user: bob, batch: c}
- {preset: preview, count: 400, user: cat, priority: 1, batch: d}
"""


def foretold(world: World, clock: Clock) -> tuple[Told, dict[str, Job]]:
    """What the scheduler tells of the world's jobs before any of them has begun."""
    said: list[QueueChanged] = []
    board = Board(lambda message: said.append(message) if isinstance(message, QueueChanged) else None)
    policy = Policy(world.judge, world.loading)
    for one in world.cards:
        policy.set_card(one.card, free=True)
        board.card(LiveCard(one.card.id, one.card.node_id, "attic", one.card.name, "idle"))
    jobs = {}
    for seq, arrival in enumerate(world.arrivals):
        jobs[arrival.job.id] = replace(arrival.job, seq=seq)
        policy.add_job(jobs[arrival.job.id], seq, arrival.batch)
    view = FarmView(world.models, world.tiers)
    teller = Outlook(policy, board, clock, judge=world.judge, view=lambda: view, running=list)
    asyncio.run(teller.tell())
    return Told(said[-1]), jobs


def test_the_farm_in_virtual_time_ends_each_job_when_it_was_told_to_be_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,700 jobs of four kinds and three users, of which the first 200 are placed one by one.

    The policy does not play the queue in its order: it spreads batches over cards so that all end together. So single jobs are off by
    more, and the whole is not.
    """
    monkeypatch.setattr(outlook, "EXACT", 200)
    models = builtin_models()
    (tmp_path / "fleet.yaml").write_text(FLEET)
    (tmp_path / "jobs.yaml").write_text(JOBS)
    fleet = read_fleet(tmp_path / "fleet.yaml", models)
    world = World(fleet.cards, read_jobs(tmp_path / "jobs.yaml", models), models, "off")
    told, jobs = foretold(world, MovedClock(0.0))
    run = simulate(world)
    assert run.finished == len(jobs) == told.queue.waiting
    off, positions = [], []
    for placed in run.placed:
        position = told.position(jobs[placed.job_id])
        done, exact = told.expected(jobs[placed.job_id], position)
        assert position is not None
        assert done is not None
        assert exact == (position <= 200)
        why = told.why(jobs[placed.job_id], position)
        assert why is not None
        assert why.startswith("Its turn comes next" if position <= 8 else "Waits for")
        positions.append(position)
        off.append(math.log(done.at / placed.end))
    assert sorted(positions) == list(range(1, len(jobs) + 1))
    behind = sorted(abs(one) for one, position in zip(off, positions, strict=True) if position > 200)
    assert median(behind) < math.log(1.05)
    assert behind[int(0.9 * len(behind))] < math.log(1.5)
    ends = [told.expected(one, told.position(one))[0] for one in jobs.values()]
    assert max(done.at for done in ends if done is not None) == pytest.approx(run.makespan_s, rel=0.03)
