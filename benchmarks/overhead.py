"""What the farm adds to a render: submit to assigned, and clip complete on the card to job finished. Real farm, real Ray, one CPU card."""

from pathlib import Path

import sqlalchemy as sa

from benchmarks.record import percentile, record
from farm.client import Farm
from farm.store import schema
from farm.store.engine import open_engine
from tests.farm_process import FarmProcess
from tests.pictures import street

JOBS = 40
WARM = 3
"""Jobs before the measured ones: the first loads ffmpeg, OpenCV and Ray's connections."""


def run(root: Path) -> None:
    """Submits jobs one after the other, each when the last is finished, and reads the times from the store."""
    picture = root / "street.png"
    street(768, 768).image.save(picture)
    with FarmProcess(root / "data") as farm:
        with farm.client() as client:
            jobs = [_one(client, picture) for _ in range(WARM + JOBS)][WARM:]
        assigned, delivered = _times(farm.data.database_url, jobs)
    rows = "\n".join(
        f"| {name} | {1000 * percentile(times, 0.5):.0f} | {1000 * percentile(times, 0.95):.0f} | {1000 * max(times):.0f} |"
        for name, times in (
            ("submit to assigned (row committed to attempt committed)", assigned),
            (
                "result to finished (clip complete on the card to fetched, verified by decoding, stored, committed)",
                delivered,
            ),
            ("both", [a + d for a, d in zip(assigned, delivered, strict=True)]),
        )
    )
    record(
        "overhead",
        f"## Overhead of the farm per job\n\n{JOBS} drafts of 512x512x16, one after the other, on one CPU card through the whole farm "
        f"(`benchmarks/overhead.py`). Must: median under 100 ms.\n\n"
        f"| what | median ms | p95 ms | max ms |\n|---|---|---|---|\n{rows}",
    )


def _one(client: Farm, picture: Path) -> str:
    job = client.wait(client.submit(picture, preset="draft", prompt="zoom").id)
    assert job.status == "finished", client.log(job.id)
    return job.id


def _times(url: str, jobs: list[str]) -> tuple[list[float], list[float]]:
    """Seconds from the store's own times, all by this PC's clock."""
    assigned, delivered = [], []
    with open_engine(url, writes=False).connect() as connection:
        for job_id in jobs:
            created = connection.scalar(sa.select(schema.jobs.c.created_at).where(schema.jobs.c.id == job_id))
            told = dict(
                connection.execute(
                    sa.select(schema.story.c.what, schema.story.c.at).where(schema.story.c.job_id == job_id)
                ).all()
            )
            assigned.append(told["assigned"] - created)
            delivered.append(told["finished"] - told["rendered"])
    return assigned, delivered
