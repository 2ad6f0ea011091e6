"""Wiring of the scheduler process: `python -m scheduler --data DIR`. Started and restarted by `farm up`."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from farm.artifacts import ArtifactStore
from farm.catalogue.models import load_models
from farm.clock import SystemClock
from farm.knobs import in_force
from farm.retention import Limits
from farm.settings import DataDirectory, FarmSettings
from farm.store.benches import Benches
from farm.store.engine import open_engine
from farm.store.knobs import KnobStore
from farm.store.leftovers import Leftovers
from farm.store.reader import Reader
from farm.store.registry import Registry
from farm.store.requests import Requests
from farm.store.retention import RetentionReader
from farm.store.writer import Writer
from scheduler.benched import Benched
from scheduler.loop import Scheduler
from scheduler.ray_cluster import RayCluster
from scheduler.retention import Retention

log = logging.getLogger("scheduler")


async def work(data: DataDirectory, given: FarmSettings) -> None:
    """Runs the scheduler until SIGTERM or SIGINT. `given` are the environment's settings, which win over those set on the page."""
    # Ray adds a driver's working directory to the import path of all its actors, on every PC: one called like a package of
    # ours, say a folder `farm` where the user stood, would take its place there.
    os.chdir(data.run)
    cluster = RayCluster()
    cluster.connect(json.loads(data.ray_facts.read_text())["address"])
    engine = open_engine(data.database_url, writes=True)
    reading = open_engine(data.database_url, writes=False)
    knobs = KnobStore(reading)
    settings = in_force(given, knobs.newest())
    artifacts, clock, writer = ArtifactStore(data.artifacts), SystemClock(), Writer(engine)
    scheduler = Scheduler(
        cluster,
        writer,
        Reader(reading),
        Requests(engine),
        Registry(engine),
        artifacts,
        load_models(settings.models_file),
        clock,
        feed_socket=data.feed_socket,
        previews=data.previews,
        checkpoints=data.checkpoints,
        lease_s=settings.lease_s,
        tiers=settings.tiers,
        benched=Benched(Benches(engine), data.bench_results, clock),
        retention=Retention(
            RetentionReader(reading, artifacts),
            writer,
            Leftovers(engine),
            artifacts,
            Limits(settings.keep_days, settings.keep_gb),
            clock,
        ),
        settings=lambda: in_force(given, knobs.newest()),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, scheduler.stop)
    log.info("attached to Ray, scheduling")
    await scheduler.run()


def main() -> int:
    """Reads the arguments and works."""
    parser = argparse.ArgumentParser(prog="python -m scheduler", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the head's data directory")
    arguments = parser.parse_args()
    settings = FarmSettings()
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    asyncio.run(work(DataDirectory(arguments.data.absolute()), settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
