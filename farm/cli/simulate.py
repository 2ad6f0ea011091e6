"""`farm simulate`: what the scheduler would make of a fleet and its jobs, in virtual time, beside what others would."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farm.cli.show import Json, table

if TYPE_CHECKING:
    from scheduler.simulate import Run

Fleet = Annotated[
    Path,
    typer.Argument(
        metavar="FLEET.yaml",
        help="The cards, one row for each kind; or the name of a built-in fleet, such as attic.",
    ),
]
Jobs = Annotated[
    Path | None, typer.Option("--jobs", metavar="JOBS.yaml", help="The jobs and when they come.")
]
Poisson = Annotated[
    float | None,
    typer.Option(
        "--poisson",
        metavar="RATE",
        help="In place of --jobs: jobs that come by chance, so many an hour; 7 in 10 previews, 2 standard, 1 quality.",
    ),
]
Count = Annotated[int, typer.Option("--count", min=1, max=500_000, help="How many jobs --poisson makes.")]
PolicyName = Annotated[
    str,
    typer.Option(
        "--policy", metavar="NAME", help="farm (the scheduler's own), fcfs, list-order, equal-shares."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same arrivals and failures.")]


def simulate(
    fleet: Fleet,
    jobs: Jobs = None,
    poisson: Poisson = None,
    count: Count = 500,
    policy: PolicyName = "farm",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Run the scheduler's own planner over a simulated fleet; needs no running farm.

    A fleet file: cards: [{model: "RTX 3060", count: 4, node: a, ram_gib: 16, pcie: "3x16", hours: "22:00-08:00", mtbf_h: 40, speed: 0.9}];
    only `model` is needed, `ram_gib` is the PC's.
    A jobs file: jobs: [{preset: preview, count: 500, at_s: 0, every_s: 2, user: ann, priority: 0, batch: b1}].
    """
    report = _report(fleet, jobs, poisson, count, policy, seed)
    if as_json:
        import json

        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    _print(report)


def _report(
    fleet: Path, jobs: Path | None, rate: float | None, count: int, policy: str, seed: int
) -> dict[str, Any]:
    from farm.catalogue.models import load_models
    from farm.errors import BadInputError
    from farm.settings import FarmSettings
    from scheduler.baselines import PLANNERS
    from scheduler.bounds import bounds
    from scheduler.fleet import poisson, read_fleet, read_jobs
    from scheduler.fleets import builtin_fleet, builtin_fleets
    from scheduler.simulate import World
    from scheduler.simulate import simulate as run

    if policy not in PLANNERS:
        raise BadInputError(
            "policy", f"There is no policy called {policy!r}.", f"Choose one of {', '.join(PLANNERS)}."
        )
    if not fleet.exists() and str(fleet) in builtin_fleets():
        fleet, its_jobs = builtin_fleet(str(fleet))
        jobs = its_jobs if jobs is None and rate is None else jobs
    elif not fleet.exists():
        raise BadInputError(
            "fleet",
            f"There is no file {fleet}, and no built-in fleet of that name.",
            f"Name a file, or one of {', '.join(builtin_fleets())}.",
        )
    if (jobs is None) == (rate is None):
        raise BadInputError(
            "jobs",
            "Either --jobs or --poisson says which jobs come, and not both.",
            "For example --poisson 60.",
        )
    own = FarmSettings()
    models = load_models(own.models_file)
    cards = read_fleet(fleet, models)
    arrivals = read_jobs(jobs, models) if jobs is not None else poisson(rate or 0.0, count, seed, models)
    world = World(cards.cards, arrivals, models, cards.tiers or own.tiers)
    low = bounds(world).best
    others = [name for name in PLANNERS if name not in ("farm", policy)]
    return {
        **_told(run(world, policy, seed), low),
        "policy": policy,
        "baselines": {name: _told(run(world, name, seed), low) for name in others},
    }


def _told(run: "Run", low: float) -> dict[str, Any]:
    return {
        "makespan_s": round(run.makespan_s, 3),
        "lower_bound_s": round(low, 3),
        "ratio": round(run.makespan_s / low, 4) if low else None,
        "wait": {
            kind: {"mean": round(wait.mean, 3), "p95": round(wait.p95, 3)} for kind, wait in run.wait.items()
        },
        "utilization": {card: round(share, 4) for card, share in run.utilization.items()},
        "finished": run.finished,
        "failed": run.failed,
    }


def _print(report: dict[str, Any]) -> None:
    from farm.cli.plan import lasting

    runs = {report["policy"]: report, **report["baselines"]}
    kinds = list(report["wait"])
    rows = [
        [
            name,
            lasting(run["makespan_s"]),
            "-" if run["ratio"] is None else f"{run['ratio']:.3f}",
            str(run["finished"]),
            str(run["failed"]),
            *(_waits(run["wait"].get(kind)) for kind in kinds),
        ]
        for name, run in runs.items()
    ]
    table(
        ["Policy", "All done in", "Over the bound", "Finished", "Failed", *(f"{one} waits" for one in kinds)],
        rows,
    )
    typer.echo()
    typer.echo(
        f"No scheduler could be done before {lasting(report['lower_bound_s'])}. Waits: mean, 95th of 100."
    )
    typer.echo()
    table(["Card", "At work"], [[card, f"{share:.0%}"] for card, share in report["utilization"].items()])


def _waits(wait: dict[str, float] | None) -> str:
    from farm.cli.plan import lasting

    return "-" if wait is None else f"{lasting(wait['mean'])}, {lasting(wait['p95'])}"
