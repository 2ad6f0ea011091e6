"""`POST /jobs` at 20 per second with 500 KB JPEGs until 10,000 jobs wait, while a render runs. Nothing lost, nothing refused."""

import asyncio
import io
import json
import os
import time
from dataclasses import dataclass, field
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
SIZE = 500_000
"""Bytes of a picture."""
PICTURES = 12
"""Pictures that are drawn; each job gets one with a change of its own, for a picture seen before is not stored again."""
DRAFTS = 40
"""Clips of 240 frames of 1920x1080; more than one core makes in the time."""


@dataclass
class Driven:
    """What the sender saw: ids of the jobs that were taken, refusals, seconds per answer at the rate, and rates per second."""

    taken: list[str] = field(default_factory=list)
    refused: int = 0
    answers_s: list[float] = field(default_factory=list)
    took_s: float = 0.0
    fill_rate: float = 0.0
    drafts: list[str] = field(default_factory=list)
    """How the drafts stood at the end."""


def run(root: Path) -> None:
    """Fills the queue through the API, then keeps the rate, then counts."""
    load = os.getloadavg()[0]
    pictures = [_jpeg(index) for index in range(PICTURES)]
    with FarmProcess(root / "data") as farm:
        token = farm.data.admin_token.read_text().strip()
        driven = asyncio.run(_drive(farm.address, token, pictures))
        jobs = schema.jobs
        with open_engine(farm.data.database_url, writes=False).connect() as connection:
            stored = {row.id: row.status for row in connection.execute(sa.select(jobs.c.id, jobs.c.status))}
            inputs = connection.scalar(sa.select(sa.func.count(sa.distinct(jobs.c.input_sha256))))
    lost = set(driven.taken) - set(stored)
    rate = len(driven.answers_s) / driven.took_s
    times = driven.answers_s
    sizes = sorted(len(picture) // 1000 for picture in pictures)
    sent = DRAFTS + QUEUE
    assert driven.refused == 0, f"{driven.refused} of {sent} were refused"
    assert not lost, f"{len(lost)} of {sent} are not in the store"
    assert len(stored) == sent, f"{len(stored)} jobs of {sent}"
    assert rate > 0.99 * RATE, f"{rate:.1f} per second"
    record(
        "intake",
        f"## `POST /jobs` under load\n\nJPEGs of 2 megapixels and {sizes[0]} to {sizes[-1]} KB, each another one, "
        f"through the whole farm, while drafts of 1920x1080x240 render on one of the two cores (`benchmarks/intake.py`). "
        f"Must: 20 per second sustained while the queue grows to 10,000, nothing lost, nothing refused.\n\n"
        f"| what | figure |\n|---|---|\n"
        f"| jobs posted, stored, lost, refused | {sent}, {len(stored)}, {len(lost)}, {driven.refused} |\n"
        f"| different pictures stored | {inputs} |\n"
        f"| waiting at the end | {list(stored.values()).count(JobStatus.QUEUED)} |\n"
        f"| rate kept in the last {driven.took_s:.0f} s | {rate:.1f} per second |\n"
        f"| answer time, median / p95 / p99 | {1000 * percentile(times, 0.5):.0f} / {1000 * percentile(times, 0.95):.0f} / "
        f"{1000 * percentile(times, 0.99):.0f} ms |\n"
        f"| rate while filling, four at once | {driven.fill_rate:.0f} per second |\n"
        f"| drafts finished meanwhile, one more rendering at the end | {driven.drafts.count('finished')}, "
        f"{'yes' if 'running' in driven.drafts else 'no'} |\n"
        f"| load average of the PC before the start, by other work | {load:.1f} |",
    )


def _jpeg(index: int) -> bytes:
    """A picture of 2 megapixels and about `SIZE`: a scene with the grain that real photographs have."""
    scene = np.asarray(street(1632, 1224).image, np.int16)
    grain = np.random.default_rng(index).normal(0, 6, scene.shape).astype(np.int16)
    picture = Image.fromarray((scene + grain).clip(0, 255).astype(np.uint8))
    low, high = 10, 95
    while high - low > 1:  # the size grows with the quality
        quality = (low + high) // 2
        low, high = (quality, high) if len(_encoded(picture, quality)) < SIZE else (low, quality)
    return _encoded(picture, high)


def _encoded(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _another(picture: bytes, number: int) -> bytes:
    """The picture with the last two steps of its first quantization table changed: other pixels, without encoding it anew.

    Raises:
        ValueError: more numbers than two bytes of 1 to 255 can tell apart, or no 8-bit table (ITU T.81, B.2.4.1).
    """
    table = picture.index(b"\xff\xdb")
    first, second = divmod(number, 255)
    if first >= 255 or picture[table + 4] >> 4:
        raise ValueError(number)
    last = table + 4 + 64
    return picture[: last - 1] + bytes((first + 1, second + 1)) + picture[last + 1 :]


async def _drive(address: str, token: str, pictures: list[bytes]) -> Driven:
    driven = Driven()
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"{address}/api/v1", headers=headers, timeout=60) as http:

        async def post(number: int, settings: dict[str, object]) -> None:
            picture = _another(pictures[number % PICTURES], number)
            answer = await http.post(
                "/jobs", files={"image": ("p.jpg", picture)}, data={"settings": json.dumps(settings)}
            )
            if answer.status_code == 201:
                driven.taken.append(answer.json()["id"])
            else:
                driven.refused += 1

        # Drafts enough to keep the card rendering through it all; the others ask for a graphics card and wait.
        long = {"preset": "draft", "width": 1920, "height": 1080, "frames": 240, "steps": 1}
        for index in range(DRAFTS):
            await post(QUEUE + index, long)
        drafts = list(driven.taken)
        lanes = asyncio.Semaphore(4)

        async def fill(number: int) -> None:
            async with lanes:
                await post(number, {"preset": "standard", "prompt": f"walk {number}"})

        began = time.perf_counter()
        await asyncio.gather(*(fill(number) for number in range(FILLED)))
        driven.fill_rate = FILLED / (time.perf_counter() - began)

        async def timed(number: int) -> None:
            start = time.perf_counter()
            await post(number, {"preset": "standard", "prompt": f"run {number}"})
            driven.answers_s.append(time.perf_counter() - start)

        began = time.perf_counter()
        posts = []
        for index in range(QUEUE - FILLED):
            await asyncio.sleep(max(0.0, began + index / RATE - time.perf_counter()))
            posts.append(asyncio.create_task(timed(FILLED + index)))
        await asyncio.gather(*posts)
        driven.took_s = time.perf_counter() - began
        driven.drafts = [(await http.get(f"/jobs/{job_id}")).json()["status"] for job_id in drafts]
    return driven
