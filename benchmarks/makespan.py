"""How near the policy comes to the best possible on ten fleets, and how long previews wait beside batches. In virtual time."""

from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.record import record
from farm.catalogue.models import builtin_models
from scheduler.baselines import PLANNERS
from scheduler.bounds import bounds
from scheduler.fleet import read_fleet, read_jobs
from scheduler.fleets import MIXED, builtin_fleet, builtin_fleets
from scheduler.simulate import Run, World, simulate

MOST = 1.05
"""Times the lower bound."""
MOST_OVER_BASELINE = 1.01
MOST_WAIT = 0.5
"""Times the 95th percentile of the previews' waits under first-come first-served."""
BASELINES = tuple(name for name in PLANNERS if name != "farm")


def run(_root: Path) -> None:
    """Runs every fleet with its own jobs, then each with the mixed load, once in batches by two people and once as single jobs of one."""
    record(
        "makespan",
        f"## Makespan against the best possible\n\n{len(builtin_fleets())} fleets without failures and their jobs "
        f"(`scheduler/fleets/`), run in virtual time by the scheduler's own policy and by what other farms do "
        f"(`benchmarks/makespan.py`). The bound is the largest of the linear relaxation, the integral bound per class of card and the "
        f"release-time bound, under the same eligibility and without loading models, which the runs do pay. "
        f"Must: at most {MOST} times the bound, and at most {MOST_OVER_BASELINE} times the best baseline, on each.\n\n"
        f"| fleet | cards | jobs | bound s | farm s | over the bound | {' | '.join(BASELINES)} | over the best of them |\n"
        f"|---|---|---|---|---|---|{'---|' * len(BASELINES)}---|\n" + "\n".join(_makespans()) + "\n\n"
        f"Previews that come one by one while batches of 600 standard and 200 quality clips wait (`mixed.jobs.yaml`), seconds that 95 of "
        f"100 waited at most. Must: at most {MOST_WAIT} times those under first-come first-served. *One person*: all is one person's, and "
        f"no batch is named.\n\n"
        f"| fleet | farm | fcfs | ratio | farm, one person | ratio |\n|---|---|---|---|---|---|\n"
        + "\n".join(_waits()),
    )


def _world(name: str, jobs: Path) -> World:
    models = builtin_models()
    fleet = read_fleet(builtin_fleet(name)[0], models)
    return World(fleet.cards, read_jobs(jobs, models), models, fleet.tiers or "soft")


def _makespans() -> list[str]:
    rows, over = [], []
    for name in builtin_fleets():
        world = _world(name, builtin_fleet(name)[1])
        low = bounds(world).best
        runs: dict[str, Run] = {policy: simulate(world, policy) for policy in PLANNERS}
        for policy, ended in runs.items():
            assert (ended.finished, ended.failed) == (len(world.arrivals), 0), f"{name}, {policy}"
        own = runs["farm"].makespan_s
        others = [runs[policy].makespan_s for policy in BASELINES]
        over.append(own / low)
        print(
            f"{name}: {own / low:.3f} of the bound, {own / min(others):.3f} of the best baseline", flush=True
        )
        assert own / low <= MOST, f"{name}: {own / low:.3f} times the bound"
        assert own / min(others) <= MOST_OVER_BASELINE, f"{name}: {own / min(others):.3f} times a baseline"
        compared = " | ".join(f"{other / low:.3f}" for other in others)
        rows.append(
            f"| {name} | {len(world.cards)} | {len(world.arrivals):,} | {low:,.0f} | {own:,.0f} | {own / low:.3f} | {compared} "
            f"| {own / min(others):.3f} |"
        )
    return [*rows, f"| median | | | | | {median(over):.3f} |{' |' * len(BASELINES)} |"]


def _waits() -> list[str]:
    rows = []
    for name in builtin_fleets():
        world = _world(name, MIXED)
        alone = [replace(one, batch=None, job=replace(one.job, submitted_by="")) for one in world.arrivals]
        own, fcfs = (_preview_p95(world, policy) for policy in ("farm", "fcfs"))
        single = _preview_p95(replace(world, arrivals=alone), "farm")
        print(f"{name}: previews wait {own:.0f} or {single:.0f} s, fcfs {fcfs:.0f} s", flush=True)
        assert max(own, single) <= MOST_WAIT * fcfs, f"{name}: {own:.0f} or {single:.0f} of {fcfs:.0f} s"
        rows.append(
            f"| {name} | {own:,.0f} | {fcfs:,.0f} | {own / fcfs:.3f} | {single:,.0f} | {single / fcfs:.3f} |"
        )
    return rows


def _preview_p95(world: World, policy: str) -> float:
    return simulate(world, policy).wait["preview"].p95
