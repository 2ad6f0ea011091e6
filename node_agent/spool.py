"""The worker's disk: events and results wait here until the head has them, so that neither a crash nor a cut loses a render.

One directory per attempt: `order.json`, `events.jsonl` and the files of the result. An attempt's last event is on the disk (fsync) before
anyone hears of it; but for one that a full disk has no room for, which is told from memory while the process lives.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farm.errors import DiskFullError
from farm.events import FINAL_KINDS, Event, from_dict, to_dict
from farm.wire import Order, order_to_dict
from node_agent.faults import disk_full, is_full

_EVENTS = "events.jsonl"
_PID = "pid"


class Spool:
    """All attempts under one directory. Used by the worker that fills it and by the agent that replays it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._changed = threading.Condition()
        self._unwritten: Event | None = None
        root.mkdir(parents=True, exist_ok=True)

    def open(self, order: Order) -> None:
        """Makes room for an attempt.

        Raises:
            DiskFullError: there is none; nothing is left of it.
        """
        directory = self.directory(order.attempt_id)
        try:
            with _named(self.root):
                directory.mkdir(exist_ok=True)
                (directory / _PID).write_text(str(os.getpid()))
                (directory / "order.json").write_text(json.dumps(order_to_dict(order)))
        except DiskFullError:
            self.forget(order.attempt_id)
            raise

    def directory(self, attempt_id: str) -> Path:
        """Where an attempt's files lie.

        Raises:
            ValueError: not an attempt id, but a way out of the spool.
        """
        if not attempt_id.isalnum():
            raise ValueError(f"{attempt_id!r} is not an attempt id")
        return self.root / attempt_id

    def append(self, event: Event) -> None:
        """Writes an event down, whole or not at all, and wakes those who follow.

        Raises:
            FileNotFoundError: the attempt was forgotten.
            DiskFullError: the disk is full.
        """
        data = to_dict(event)
        line = json.dumps(data).encode() + b"\n"
        with _named(self.root), (self.directory(event.attempt_id) / _EVENTS).open("ab", buffering=0) as file:
            before = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
            except OSError:
                file.truncate(before)  # what is said after it would be part of its half line
                raise
            if data["kind"] in FINAL_KINDS:
                os.fsync(file.fileno())
        self._wake()

    def keep(self, event: Event) -> None:
        """Keeps the last word of an attempt that cannot be written down, in memory: of one attempt, since a card makes one at a time."""
        self._unwritten = event
        self._wake()

    def put(self, attempt_id: str, name: str, data: bytes) -> None:
        """Writes a file of an attempt, whole or not at all.

        Raises:
            FileNotFoundError: the attempt was forgotten.
            DiskFullError: the disk is full.
        """
        target = self.directory(attempt_id) / name
        half = target.with_suffix(".half")
        with _named(self.root):
            try:
                half.write_bytes(data)
                half.replace(target)
            except OSError:
                half.unlink(missing_ok=True)  # it takes the room of what is still to be written
                raise

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def end(self, attempt_id: str, make: Callable[[int], Event]) -> None:
        """Writes the last word of an attempt whose process is gone; `make` gets its number. Half a line that was left gives way to it.

        Raises:
            FileNotFoundError: the attempt was forgotten.
        """
        path = self.directory(attempt_id) / _EVENTS
        if path.exists():
            os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
        said = self.events(attempt_id, 0)
        self.append(make(said[-1].seq + 1 if said else 1))

    def attempts(self) -> tuple[str, ...]:
        """The attempts that have a directory here, also those that were killed before their first event."""
        return tuple(
            sorted(entry.name for entry in self.root.iterdir() if entry.name.isalnum() and entry.is_dir())
        )

    def left_by(self, pid: int) -> tuple[str, ...]:
        """The attempts that a process began and, now that it is gone, will not end."""
        return tuple(
            attempt_id
            for attempt_id in self.attempts()
            if self._begun_by(attempt_id) == pid and not self.ended(attempt_id)
        )

    def _begun_by(self, attempt_id: str) -> int | None:
        try:
            return int((self.directory(attempt_id) / _PID).read_text())
        except (OSError, ValueError):  # forgotten meanwhile, or spooled by an older farm
            return None

    def events(self, attempt_id: str, after: int) -> list[Event]:
        """Events with a number above `after`. A half-written last line (power cut) is left out."""
        found = self._written(attempt_id, after)
        last = self._unwritten
        if last is not None and last.attempt_id == attempt_id and last.seq > after:
            found.append(last)
        return found

    def _written(self, attempt_id: str, after: int) -> list[Event]:
        path = self.directory(attempt_id) / _EVENTS
        if not path.exists():
            return []
        found: list[Event] = []
        for line in path.read_bytes().splitlines():
            try:
                data: dict[str, Any] = json.loads(line)
            except ValueError:  # half a line, or the zeros that some file systems leave in its place
                break
            if data["seq"] > after:
                found.append(from_dict(data))
        return found

    def ended(self, attempt_id: str) -> bool:
        """Whether the attempt's last event is on the disk."""
        found = self.events(attempt_id, 0)
        return bool(found) and found[-1].kind in FINAL_KINDS

    def follow(self, attempt_id: str, after: int, wait_s: float) -> list[Event]:
        """Events above `after`; waits up to `wait_s` for the first."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self.events(attempt_id, after)), timeout=wait_s)
        return self.events(attempt_id, after)

    def read(self, attempt_id: str, name: str) -> bytes:
        """A file of an attempt.

        Raises:
            FileNotFoundError: there is none of this name.
        """
        if not name or "/" in name or name.startswith("."):
            raise FileNotFoundError(name)
        return (self.directory(attempt_id) / name).read_bytes()

    def forget(self, attempt_id: str) -> None:
        """Removes an attempt whose result the head has, or no longer wants."""
        shutil.rmtree(self.directory(attempt_id), ignore_errors=True)


@contextmanager
def _named(root: Path) -> Iterator[None]:
    """A full disk is told with its directory, which the system's own error leaves out."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise disk_full(error, root) from error
        raise
