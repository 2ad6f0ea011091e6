"""`POST /jobs` at 20 per second with 500 KB JPEGs until 10,000 jobs wait, while a render runs. Nothing lost, nothing refused."""

import asyncio
import io
import json
import time
from pathlib import Path

import httpx
import numpy as np
import sqlalchemy as sa
from PIL import Image

from benchmarks.record import percentile, record
from farm.model import JobStatus
from farm.store import schema
from farm.store.engine import open_engine
from tests.farm_process import FarmProcess
from tests.pictures import street

RATE = 20.0
QUEUE = 10_000
FILLED = QUEUE - 1200
"""Jobs that are there before the clock starts, posted as fast as the farm takes them; the rest comes at the rate, for a minute."""
PICTURES = 12
DRAFTS = 40
"""Clips of 240 frames of 1920x1080; more than one core makes in the time."""


def run(root: Path) -> None:
    """Fills the queue through the API, then keeps the rate, then counts."""
    with FarmProcess(root / "data") as farm:
        token = farm.data.admin_token.read_text().strip()
        pictures = [_jpeg(index) for index in range(PICTURES)]
        times, refused, took, fill_rate, rendered, rendering = asyncio.run(
            _drive(farm.address, token, pictures)
        )
        with open_engine(farm.data.database_url, writes=False).connect() as connection:
            rows = dict(
                connection.execute(
                    sa.select(schema.jobs.c.status, sa.func.count()).group_by(schema.jobs.c.status)
                ).all()
            )
    sent = DRAFTS + FILLED + len(times)
    stored = sum(rows.values())
    sizes = sorted(len(picture) // 1000 for picture in pictures)
    record(
        "intake",
        f"## `POST /jobs` under load\n\n{PICTURES} JPEGs of 2 megapixels and {sizes[0]} to {sizes[-1]} KB in turn, "
        f"through the whole farm, while drafts of 1920x1080x240 render on one of the two cores (`benchmarks/intake.py`). "
        f"Must: 20 per second sustained while the queue grows to 10,000, nothing lost, nothing refused.\n\n"
        f"| what | figure |\n|---|---|\n"
        f"| jobs posted, stored, refused | {sent}, {stored}, {refused} |\n"
        f"| waiting at the end | {rows.get(JobStatus.QUEUED, 0)} |\n"
        f"| rate kept in the last {took:.0f} s | {len(times) / took:.1f} per second |\n"
        f"| answer time, median / p95 / p99 | {1000 * percentile(times, 0.5):.0f} / {1000 * percentile(times, 0.95):.0f} / "
        f"{1000 * percentile(times, 0.99):.0f} ms |\n"
        f"| rate while filling, four at once | {fill_rate:.0f} per second |\n"
        f"| drafts finished meanwhile, one more rendering at the end | {rendered}, {'yes' if rendering else 'no'} |",
    )
    assert stored == sent
    assert refused == 0


def _jpeg(index: int) -> bytes:
    """A picture of 2 megapixels and about 500 KB: a scene with the grain that real photographs have."""
    scene = np.asarray(street(1632, 1224).image, np.int16)
    grain = np.random.default_rng(index).normal(0, 6, scene.shape).astype(np.int16)
    picture = Image.fromarray((scene + grain).clip(0, 255).astype(np.uint8))
    best = b""
    for quality in range(60, 96, 5):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        best = file.getvalue()
        if len(best) > 480_000:
            break
    return best


async def _drive(
    address: str, token: str, pictures: list[bytes]
) -> tuple[list[float], int, float, float, int, bool]:
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"{address}/api/v1", headers=headers, timeout=60) as http:
        # Drafts enough to keep the card rendering through it all; the others ask for a graphics card and wait.
        long = {"preset": "draft", "width": 1920, "height": 1080, "frames": 240, "steps": 1}
        drafts = [(await _post(http, pictures[0], long)).json()["id"] for _ in range(DRAFTS)]
        refused = 0
        began = time.perf_counter()
        lanes = asyncio.Semaphore(4)

        async def fill(index: int) -> None:
            nonlocal refused
            async with lanes:
                answer = await _post(
                    http, pictures[index % PICTURES], {"preset": "standard", "prompt": f"walk {index}"}
                )
                refused += answer.status_code != 201

        await asyncio.gather(*(fill(index) for index in range(FILLED)))
        fill_rate = FILLED / (time.perf_counter() - began)

        times: list[float] = []

        async def timed(index: int) -> None:
            nonlocal refused
            start = time.perf_counter()
            answer = await _post(
                http, pictures[index % PICTURES], {"preset": "standard", "prompt": f"run {index}"}
            )
            times.append(time.perf_counter() - start)
            refused += answer.status_code != 201

        rest = QUEUE - FILLED
        began = time.perf_counter()
        posts = []
        for index in range(rest):
            await asyncio.sleep(max(0.0, began + index / RATE - time.perf_counter()))
            posts.append(asyncio.create_task(timed(index)))
        await asyncio.gather(*posts)
        took = time.perf_counter() - began
        rendered = [(await http.get(f"/jobs/{job_id}")).json()["status"] for job_id in drafts]
        return times, refused, took, fill_rate, rendered.count("finished"), "running" in rendered


async def _post(http: httpx.AsyncClient, picture: bytes, settings: dict[str, object]) -> httpx.Response:
    return await http.post(
        "/jobs", files={"image": ("p.jpg", picture)}, data={"settings": json.dumps(settings)}
    )
