"""Ten fleets with their jobs, made up to be unlike each other: `farm simulate NAME` runs one, `benchmarks/makespan.py` all.

`NAME.fleet.yaml` and `NAME.jobs.yaml` are files as `farm simulate` takes them. `mixed.jobs.yaml` is a load for any fleet: previews that
come one by one while batches wait.
"""

from pathlib import Path

HERE = Path(__file__).parent
MIXED = HERE / "mixed.jobs.yaml"


def builtin_fleets() -> tuple[str, ...]:
    """The names, sorted."""
    return tuple(sorted(path.name.split(".")[0] for path in HERE.glob("*.fleet.yaml")))


def builtin_fleet(name: str) -> tuple[Path, Path]:
    """The files of a fleet and of its jobs."""
    return HERE / f"{name}.fleet.yaml", HERE / f"{name}.jobs.yaml"
