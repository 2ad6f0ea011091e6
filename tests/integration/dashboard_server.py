"""A real dashboard on a real port over a real SQLite file, and a scheduler's end of the feed, for tests.

with running_dashboard(tmp_path) as farm, FakeScheduler(farm.data) as scheduler:
    httpx.get(f"{farm.base_url}/api/v1/jobs", headers=farm.headers)
    scheduler.publish(JobChanged(LiveJob("...", "running", done=3, total=16)))
"""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from dashboard.app import create_app
from farm.auth import TokenKind, new_token
from farm.clock import Clock, SystemClock
from farm.feed import FeedMessage, Snapshot, to_line
from farm.settings import DataDirectory, FarmSettings
from farm.store.engine import open_engine
from farm.store.reader import Reader
from farm.store.registry import Registry
from farm.store.writer import Writer
from tests.storage import lay_database
from tests.waiting import wait_until


@dataclass
class RunningDashboard:
    """What a test needs of a running dashboard; `writer` moves jobs as the scheduler would."""

    base_url: str
    admin_token: str
    signin_token: str
    data: DataDirectory
    settings: FarmSettings
    registry: Registry
    reader: Reader
    writer: Writer
    server: uvicorn.Server

    @property
    def signin_url(self) -> str:
        """The link that `farm up` would print."""
        return f"{self.base_url}/signin?token={self.signin_token}"

    @property
    def headers(self) -> dict[str, str]:
        """What a program sends with each call."""
        return {"Authorization": f"Bearer {self.admin_token}"}

    @property
    def stored_files(self) -> list[Path]:
        """Every file in the artifact store, half-written ones too."""
        return [path for path in self.data.artifacts.rglob("*") if path.is_file()]


@contextmanager
def running_dashboard(
    tmp_path: Path,
    *,
    clock: Clock | None = None,
    max_upload_mib: float | None = None,
    port: int = 0,
    admin_token: str | None = None,
) -> Iterator[RunningDashboard]:
    """Serves the dashboard from a thread until the block ends; on a random port unless one is given.

    With the `port` and `admin_token` of an earlier one over the same folder it is that one, started again.
    """
    data = DataDirectory(tmp_path / "farm")
    for folder in (data.root, data.secrets, data.run, data.previews, data.logs):
        folder.mkdir(parents=True, exist_ok=True)
    lay_database(data.database)
    settings = FarmSettings(data=data.root)
    if max_upload_mib is not None:  # as the environment would say it
        settings = settings.model_copy(update={"max_upload_mib": max_upload_mib})
    engine = open_engine(data.database_url, writes=True)
    reading = open_engine(data.database_url, writes=False)
    registry = Registry(engine)
    now = (clock or SystemClock()).now()
    signin_token = new_token()
    if admin_token is None:
        admin_token = new_token()
        registry.add_token(admin_token, TokenKind.ADMIN, "admin", now)
    registry.add_token(signin_token, TokenKind.SIGN_IN, "admin", now)
    data.admin_token.write_text(admin_token)

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        create_app(data, settings, clock), log_level="warning", access_log=False, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the dashboard to start")
        yield RunningDashboard(
            base_url=f"http://127.0.0.1:{listening.getsockname()[1]}",
            admin_token=admin_token,
            signin_token=signin_token,
            data=data,
            settings=settings,
            registry=registry,
            reader=Reader(reading),
            writer=Writer(engine),
            server=server,
        )
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
        engine.dispose()
        reading.dispose()
        assert not thread.is_alive(), "the dashboard did not stop"


def ray_is_up(data: DataDirectory, address: str = "10.0.0.1:6380", epoch: str = "epoch-1") -> None:
    """Writes the facts that a running Ray head leaves."""
    data.ray_facts.write_text(json.dumps({"address": address, "epoch": epoch}))
    data.ray_token.write_text("ray-secret\n")


class FakeScheduler:
    """The scheduler's end of the feed: a real unix socket that speaks `farm.feed`. `wakes` counts what dashboards ask."""

    def __init__(self, data: DataDirectory, snapshot: Snapshot | None = None) -> None:
        self._path = data.feed_socket
        self._snapshot = snapshot or Snapshot()
        self._readers: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listening: socket.socket | None = None
        self.wakes = 0

    def __enter__(self) -> Self:
        """Starts to listen."""
        self._path.unlink(missing_ok=True)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._path))
        self._listening.listen()
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Dies as a killed scheduler does: the connections break, the socket's file stays."""
        with self._lock:
            for each in (*self._readers, self._listening):
                if each is not None:
                    with suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
                    each.close()
            self._readers.clear()
            self._listening = None

    @property
    def connected(self) -> bool:
        """Whether a dashboard listens."""
        with self._lock:
            return bool(self._readers)

    def publish(self, *messages: FeedMessage) -> None:
        """Sends messages to every dashboard, once one listens."""
        wait_until(lambda: self.connected, what="a dashboard to follow the feed")
        with self._lock:
            for reader in self._readers:
                reader.sendall(b"".join(to_line(message) for message in messages))

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                reader, _ = listening.accept()
            except OSError:
                return
            with self._lock:
                if self._listening is None:
                    reader.close()
                    return
                reader.sendall(to_line(self._snapshot))
                self._readers.append(reader)
            threading.Thread(target=self._read, args=(reader,), daemon=True).start()

    def _read(self, reader: socket.socket) -> None:
        with suppress(OSError):
            while got := reader.recv(4096):
                self.wakes += got.count(b"wake\n")
