"""Writes figures into docs/benchmarks.md: each benchmark owns the part between its two markers."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

COMMIT = "FARM_BENCH_COMMIT"
"""Names the commit for the processes of one run: during minutes of measuring, the work may go on beside it."""
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"


def record(name: str, text: str, page: Path = PAGE, where: str | None = None) -> None:
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->`, or appends it; `where` in place of this PC."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    block = f"{begin}\n{text.strip()}\n\n{where or _where()}\n{end}"
    before = page.read_text()
    found = re.search(re.escape(begin) + ".*?" + re.escape(end), before, re.S)
    after = (
        before[: found.start()] + block + before[found.end() :]
        if found
        else f"{before.rstrip()}\n\n{block}\n"
    )
    page.write_text(after)


@cache
def commit() -> str:
    """The commit that is measured. `run` asks at once."""
    if COMMIT in os.environ:
        return os.environ[COMMIT]
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - git is the developer's own
        capture_output=True,
        text=True,
        check=False,
        cwd=PAGE.parent,
    ).stdout.strip()
    return found or "unknown"


def _where() -> str:
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return (
        f"*{datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {os.cpu_count()} cores of {cpu}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.release().split('-')[0]}.*"
    )


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie; the nearest of those measured."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
