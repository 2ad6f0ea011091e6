"""The parts that every request handler may need, made once per process and kept on `app.state.parts`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from anyio import CapacityLimiter
from starlette.requests import HTTPConnection

from dashboard.animations import Animations
from dashboard.calibrated import Calibrated
from dashboard.greetings import Greetings
from dashboard.reasons import Reasons
from dashboard.stills import Stills
from dashboard.stream import Live
from dashboard.tries import Tries
from farm.artifacts import ArtifactStore
from farm.auth import Credential
from farm.catalogue.models import ModelRow, load_models
from farm.catalogue.presets import Preset, presets
from farm.clock import Clock, SystemClock
from farm.ids import new_id
from farm.knobs import in_force
from farm.settings import DataDirectory, FarmSettings
from farm.store.benches import Benches
from farm.store.engine import open_engine
from farm.store.knobs import KnobStore
from farm.store.reader import Reader
from farm.store.registry import Registry
from farm.store.requests import Requests
from farm.store.retention import RetentionReader
from farm.store.throughput import ThroughputReader
from farm.store.users import Users

INTAKE_THREADS = 3
"""Uploads that are decoded and stored at once. Pillow and fsync release the GIL; a third one fills the waits for the disk."""

HASHING_THREADS = 2
"""Passwords that are looked at at once: each takes 64 MiB, and a core for 50 ms."""


@dataclass(frozen=True)
class Parts:
    """What the web process is made of. `users` reads accounts, `accounts` writes them; so do `knobs` and `knob_writer` with settings.

    `settings` are those that the process was started with; `in_force` has those that an admin changed since.

    `intake` bounds the threads that decode and store uploads, `hashing` those that look at passwords. `greeted` knows what each PC
    said when it last greeted.
    """

    data: DataDirectory
    settings: FarmSettings
    reader: Reader
    calibrated: Calibrated
    throughput: ThroughputReader
    requests: Requests
    knobs: KnobStore
    knob_writer: KnobStore
    registry: Registry
    users: Users
    accounts: Users
    tries: Tries
    retention: RetentionReader
    benches: Benches
    artifacts: ArtifactStore
    animations: Animations
    stills: Stills
    models: Mapping[str, ModelRow]
    presets: Mapping[str, Preset]
    clock: Clock
    live: Live
    reasons: Reasons
    intake: CapacityLimiter
    hashing: CapacityLimiter
    greeted: Greetings = field(default_factory=Greetings)

    @cached_property
    def farm_id(self) -> str:
        """The farm's own id, made when it is first asked for."""
        return self.registry.fact("farm_id", new_id())

    def now(self) -> float:
        """Wall time in seconds."""
        return self.clock.now()

    def in_force(self) -> FarmSettings:
        """The settings that hold now."""
        return in_force(self.settings, self.knobs.newest())


def make_parts(data: DataDirectory, settings: FarmSettings, clock: Clock | None = None) -> Parts:
    """Opens everything in a data directory whose database is already migrated."""
    writing = open_engine(data.database_url, writes=True)
    reading = open_engine(data.database_url, writes=False)
    clock = clock or SystemClock()
    artifacts = ArtifactStore(data.artifacts)
    models = load_models(settings.models_file)
    reader, live, knobs = Reader(reading), Live(data.feed_socket), KnobStore(reading)
    return Parts(
        data=data,
        settings=settings,
        reader=reader,
        calibrated=Calibrated(reader),
        throughput=ThroughputReader(reading),
        requests=Requests(writing),
        knobs=knobs,
        knob_writer=KnobStore(writing),
        registry=Registry(writing),
        users=Users(reading),
        accounts=Users(writing),
        tries=Tries(clock),
        retention=RetentionReader(reading, artifacts),
        benches=Benches(reading),
        artifacts=artifacts,
        animations=Animations(data.animations),
        stills=Stills(data.stills),
        models=models,
        presets={name: preset for name, preset in presets().items() if preset.model in models},
        clock=clock,
        live=live,
        reasons=Reasons(reader, live, models, lambda: in_force(settings, knobs.newest()).tiers, clock),
        intake=CapacityLimiter(INTAKE_THREADS),
        hashing=CapacityLimiter(HASHING_THREADS),
    )


def parts_of(request: HTTPConnection) -> Parts:
    """The parts of the app that serves a request."""
    found: Parts = request.app.state.parts
    return found


# FastAPI would give plain functions a thread each time, which takes longer than they do.
async def parts(request: HTTPConnection) -> Parts:
    """FastAPI dependency: the parts of this app."""
    return parts_of(request)


async def who(request: HTTPConnection) -> Credential:
    """FastAPI dependency: whose request this is. `dashboard.signin` has judged the token before any handler runs."""
    found: Credential = request.state.credential
    return found
