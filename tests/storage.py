"""A real store in a directory of the test's own, and jobs and cards to put into it."""

import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from farm.model import Artifact, Card, CardKind, Job, Node, RenderSettings, Tier
from farm.store.engine import migrate, open_engine
from farm.store.reader import Reader
from farm.store.registry import Registry
from farm.store.requests import NewJob, Requests
from farm.store.writer import Writer

SETTINGS = RenderSettings(
    model="animatic", width=128, height=96, frames=8, steps=1, guidance=1.0, fps=8, seed=7, prompt="pan left"
)
PICTURE = Artifact("ab" * 32, "image/png", 3)


@dataclass(frozen=True)
class Storage:
    """The store's parts on one SQLite file."""

    url: str
    writer: Writer
    reader: Reader
    requests: Requests
    registry: Registry

    def close(self) -> None:
        """Lets the file go."""
        for part in (self.writer, self.reader):
            part._engine.dispose()

    def reopened(self) -> "Storage":
        """The store as a process finds it that was started anew: no connection is left, and no part knows anything.

        The engines stay, and with them the SQL that they have put into words, which takes as long as all that these tests ask.
        """
        self.close()
        writes, reads = self.writer._engine, self.reader._engine
        return Storage(self.url, Writer(writes), Reader(reads), Requests(writes), Registry(writes))

    def submit(
        self, settings: RenderSettings = SETTINGS, picture: Artifact = PICTURE, now: float = 1.0
    ) -> Job:
        """A queued draft job."""
        new = NewJob(settings, Tier.PREVIEW, draft=settings.model == "animatic", picture=picture)
        return self.requests.submit(new, now)[0]

    def add_cards(self, number: int, node_id: str = "n1") -> list[Card]:
        """CPU cards of one node."""
        card = Card(
            id="", node_id=node_id, kind=CardKind.CPU, name="CPU (test)", models=frozenset({"animatic"})
        )
        cards = [replace(card, id=f"CPU-{node_id}-{index}") for index in range(number)]
        self.registry.see_node(Node(node_id, node_id, "127.0.0.1"), cards, 1.0)
        return cards


@cache
def _migrated() -> bytes:
    """A database of today's schema with nothing in it. Made once: all migrations take a tenth of a second or more each time."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "farm.sqlite3"
        migrate(f"sqlite:///{file}")
        return file.read_bytes()


def lay_database(file: Path) -> None:
    """What `migrate` makes of a file that is not there; one that is there stays as it is."""
    if not file.exists():
        file.write_bytes(_migrated())


def open_storage(directory: Path) -> Storage:
    """A migrated store in `directory`."""
    url = f"sqlite:///{directory / 'farm.sqlite3'}"
    lay_database(directory / "farm.sqlite3")
    writes = open_engine(url, writes=True)
    return Storage(
        url, Writer(writes), Reader(open_engine(url, writes=False)), Requests(writes), Registry(writes)
    )
