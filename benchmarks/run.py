"""`make bench`: all CPU benchmarks, or those named: `python -m benchmarks.run overhead intake`."""

import os
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks.record import COMMIT, commit

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
    """Runs the benchmarks one after the other, each in a process of its own: Ray reads its environment but once."""
    names = sys.argv[1:] or ALL
    if len(names) > 1:
        print(f"measuring commit {commit()}", flush=True)
        for name in names:
            environment = os.environ | {COMMIT: commit()}
            subprocess.run([sys.executable, "-m", "benchmarks.run", name], check=True, env=environment)
        return
    (name,) = names
    print(f"{name} on commit {commit()} ...", flush=True)
    with tempfile.TemporaryDirectory(prefix=f"farm-speed-{name}-") as root:
        import_module(f"benchmarks.{name}").run(Path(root))
    print("written to docs/benchmarks.md")


if __name__ == "__main__":
    main()
