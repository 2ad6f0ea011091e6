"""`make bench`: all CPU benchmarks, or those named: `python -m benchmarks.run overhead intake`."""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.record import commit

ALL = (
    "article",
    "intervals",
    "outlook",
    "planning",
    "policy",
    "makespan",
    "assign",
    "pages",
    "streams",
    "interpolation",
    "overhead",
    "intake",
    "heartbeats",
    "idle_node",
    "stress",
)


def main() -> None:
    """Runs the benchmarks one after the other."""
    print(f"measuring commit {commit()}", flush=True)
    for name in sys.argv[1:] or ALL:
        print(f"{name} ...", flush=True)
        with tempfile.TemporaryDirectory(prefix=f"farm-speed-{name}-") as root:
            import_module(f"benchmarks.{name}").run(Path(root))
    print("written to docs/benchmarks.md")


if __name__ == "__main__":
    main()
