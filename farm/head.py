"""The head's supervisor: Ray's daemons, scheduler and dashboard as children, from ready to down.

One thread and one loop. The dashboard and Ray start at once; the scheduler follows Ray, since it is Ray's driver, and is started anew
after every restart of Ray. What nodes must know of Ray (address, epoch) is in `ray.json` only while Ray runs; the epoch changes only when
Ray's state was lost, and then every node joins again.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from farm import daemons, ports, supervise
from farm.daemons import RayPorts
from farm.errors import ConfigurationError, FarmError
from farm.ray_storage import Epoch, RayStorage
from farm.settings import QUIET_ENVIRONMENT, DataDirectory
from farm.supervise import Backoff, Bell, Child, Program
from farm.tls import TlsFiles, trust

RAY_START_LIMIT_S = 90.0
"""Ray starts in 3 s on two idle cores; an old PC that is busy may take far longer. After each start that did not end in time the next has
twice as long: killed in the midst of it again and again, it would never start."""
RAY_START_MOST_S = 360.0
FIRST_START_TRIES = 3
"""A part that ended so often before the farm was ever ready will not do better: `farm up` gives up and says why. Enough for Ray to fail
once with a broken state, and to start without."""
_LOOK_EVERY_S = 0.25

Say = Callable[[str], None]


class HeadStartError(FarmError):
    """A part of the head does not start; the remedy names its log."""


@dataclass(frozen=True, slots=True)
class HeadOptions:
    """What `farm up` was asked for. `node_id` is this PC's own node, None for a head that renders nothing.

    With `tls` the files of `farm.certificates.prepare_head` must be there when it runs.
    """

    data: DataDirectory
    host: str
    port: int
    ray_ports: RayPorts
    object_store_mib: int
    node_id: str | None
    tls: bool = False

    @property
    def url(self) -> str:
        """The dashboard's address in links that people click."""
        return f"{'https' if self.tls else 'http'}://{self.visible_host}:{self.port}"

    @property
    def tls_files(self) -> TlsFiles | None:
        """The head's certificate, where the farm has TLS."""
        return TlsFiles.in_folder(self.data.tls) if self.tls else None

    @property
    def ray_host(self) -> str:
        """Ray's address: a farm that only this PC sees stays on loopback, "all interfaces" become the one towards the world.

        Raises:
            ConfigurationError: the host is no IPv4 address or name of one.
        """
        if daemons.is_loopback(self.host):
            return daemons.LOOPBACK_NODE
        if self.host in ("0.0.0.0", "::"):  # noqa: S104 - a comparison
            try:
                return daemons.own_address_towards(
                    "192.0.2.1", 9
                )  # an address for documentation: any way out
            except OSError:
                return daemons.LOOPBACK_NODE
        try:
            return socket.gethostbyname(self.host)
        except OSError as error:
            raise ConfigurationError(
                f"The farm cannot listen on {self.host!r}: {error.strerror}.",
                "Give one of this PC's IPv4 addresses with --host, or 0.0.0.0 for all of them.",
            ) from error

    @property
    def visible_host(self) -> str:
        """The host in links that people click."""
        if self.host in ("0.0.0.0", "::"):  # noqa: S104 - a comparison
            return "127.0.0.1" if self.ray_host == daemons.LOOPBACK_NODE else self.ray_host
        return self.host


class Part:
    """One child of the head, kept running."""

    def __init__(self, program: Program, say: Say) -> None:
        self.program = program
        self.child: Child | None = None
        self.failures = 0
        self._say = say
        self._backoff = Backoff()
        self._not_before = 0.0

    @property
    def running(self) -> bool:
        """Whether it was started and has not been found dead."""
        return self.child is not None

    @property
    def due(self) -> bool:
        """Whether it does not run and its time has come."""
        return self.child is None and time.monotonic() >= self._not_before

    def keep(self) -> bool:
        """Starts it where that is due; True if it was started now."""
        if not self.due:
            return False
        self.child = Child(self.program)
        return True

    def fallen(self) -> bool:
        """Whether it ended by itself since the last look; if so, says so and sets the time of its restart."""
        if self.child is None or self.child.exit_code is None:
            return False
        how = self.child.end()
        self.fell(f"ended with signal {-how}" if how < 0 else f"ended with exit code {how}")
        return True

    def fell(self, how: str) -> None:
        """Notes that it is down through no wish of ours."""
        lasted = self.child.age_s if self.child is not None else 0.0
        self.child = None
        self.failures += 1
        pause = self._backoff.after_run(lasted)
        self._not_before = time.monotonic() + pause
        self._say(f"{self.program.name} {how}; starting it again in {pause:.0f} s (log: {self.program.log})")

    def end(self, *, hurry: bool = False) -> None:
        """Takes it down and lets it be started again at once."""
        if self.child is not None:
            self.child.end(grace_s=0.5 if hurry else None)
        self.child = None
        self._not_before = 0.0


class Head:
    """Runs the head until the bell rings."""

    def __init__(self, options: HeadOptions, environment: Mapping[str, str], say: Say) -> None:
        self.options = options
        self._say = say
        data = options.data
        self._temp_dir = daemons.temp_dir_for(data.root)
        self._storage = RayStorage(data.root / "ray", f"{options.ray_host}:{options.ray_ports.base}")
        quiet = dict(environment) | QUIET_ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}
        with_ray = daemons.ray_environment(
            environment, token=data.ray_token, node_home=data.node_home, tls=options.tls_files
        )
        # -P: a directory called `farm` where the user stands is not ours.
        python = (sys.executable, "-P", "-m")
        where = ("--data", str(data.root))
        # This PC's own node reads the head's models where they lie.
        ray_head = with_ray | self._storage.environment | {"FARM_MODEL_STORE": str(data.models)}
        self.ray = self._part("ray", self._ray_command(), ray_head, grace_s=daemons.RAY_GRACE_S)
        self.scheduler = self._part("scheduler", (*python, "scheduler", *where), with_ray)
        web: tuple[str, ...] = (
            *python,
            "dashboard",
            *where,
            "--host",
            options.host,
            "--port",
            str(options.port),
        )
        if options.tls:
            web += ("--tls",)
        self.dashboard = self._part("dashboard", web, quiet, grace_s=3.0)
        self._epoch = Epoch("", inherited=False)  # of the Ray that is starting or running
        self._published = False
        self._patience_s = RAY_START_LIMIT_S
        self.ready = False

    def _part(
        self, name: str, command: tuple[str, ...], environment: dict[str, str], grace_s: float = 5.0
    ) -> Part:
        log = self.options.data.logs / f"{name}.log"
        return Part(Program(name, command, environment, log, grace_s), self._say)

    def _ray_command(self) -> tuple[str, ...]:
        options = self.options
        return tuple(
            daemons.head_command(
                address=options.ray_host,
                ports=options.ray_ports,
                temp_dir=self._temp_dir,
                object_store_mib=options.object_store_mib,
                node_id=options.node_id,
            )
        )

    def check_ports(self) -> None:
        """Passes if all that the head listens on is free.

        Raises:
            ConfigurationError: a port is taken; names it, its holder and the option.
        """
        options = self.options
        ports.check(
            [
                ports.Wanted(options.host, options.port, "the dashboard", "--port"),
                *(
                    ports.Wanted("0.0.0.0", port, "Ray", "--ray-port")  # noqa: S104 - Ray listens everywhere
                    for port in options.ray_ports.listened()
                ),
            ]
        )

    def clean_up(self) -> None:
        """Ends what a killed supervisor left of itself."""
        self.options.data.run.mkdir(parents=True, exist_ok=True)
        self.options.data.ray_facts.unlink(missing_ok=True)
        left = supervise.end_leftovers(self._traces)
        if left:
            self._say(f"Ended what a former run had left: {', '.join(left)}.")

    def run(self, bell: Bell, on_ready: Callable[[], None]) -> None:
        """Starts everything, calls `on_ready` once, and keeps it running until the bell says stop; then takes it down.

        Raises:
            HeadStartError: a part does not start.
        """
        try:
            while not bell.stopping:
                self._look()
                if not self.ready:
                    self._give_up_if_hopeless()
                    if self._all_answer():
                        self.ready = True
                        on_ready()
                bell.wait(_LOOK_EVERY_S)
        finally:
            self._down(bell)

    def _look(self) -> None:
        changed = self.dashboard.fallen() | self.scheduler.fallen()
        if self.ray.fallen() or self._ray_stuck():
            self._without_ray()
            changed = True
        if self.ray.due:
            daemons.prepare_temp_dir(self._temp_dir)
            self._epoch = self._storage.open()
        changed |= self.ray.keep()
        changed |= self.dashboard.keep()
        if not self._published and self._ray_started():
            self._publish_ray(self._epoch)
        if self._published:
            changed |= self.scheduler.keep()
        if changed:
            self._write_traces()

    def _ray_started(self) -> bool:
        child = self.ray.child
        return child is not None and any(daemons.READY_MARK in line for line in child.said())

    def _ray_stuck(self) -> bool:
        child = self.ray.child
        if child is None or self._published:
            return False
        if child.has_dead("gcs_server"):
            how = "did not start: its GCS ended at once"  # `ray start` itself waits another 40 s for it
        elif child.age_s >= self._patience_s:
            how = f"was not ready after {self._patience_s:.0f} s"
            self._patience_s = min(2 * self._patience_s, RAY_START_MOST_S)
        else:
            return False
        child.end(grace_s=0.5)
        self.ray.fell(how)
        return True

    def _publish_ray(self, epoch: Epoch) -> None:
        facts = self.options.data.ray_facts
        beside = facts.with_suffix(".new")
        address = f"{self.options.ray_host}:{self.options.ray_ports.base}"
        beside.write_text(json.dumps({"address": address, "epoch": epoch.id}))
        beside.replace(facts)
        self._published = True

    def _without_ray(self) -> None:
        if not self._published and self._epoch.inherited:
            aside = self._storage.set_aside()
            self._say(
                f"Ray did not start from its old state, so it begins anew; all nodes join again. Kept: {aside}"
            )
        self._published = False
        self.options.data.ray_facts.unlink(missing_ok=True)
        self.scheduler.end()

    def _all_answer(self) -> bool:
        if not self._published or not self.scheduler.running or not self.dashboard.running:
            return False
        files, url = self.options.tls_files, self.options.url
        known_by = trust(url, files.ca if files is not None else None)
        try:
            answer = httpx.get(f"{url}/healthz", timeout=1.0, trust_env=False, verify=known_by)
            return answer.status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _give_up_if_hopeless(self) -> None:
        for part in (self.ray, self.scheduler, self.dashboard):
            if part.failures >= FIRST_START_TRIES:
                raise HeadStartError(
                    f"The farm did not start: {part.program.name} ended {part.failures} times; last it said: "
                    f"{self._last_words(part)}",
                    f"Its log is {part.program.log}.",
                )

    def _last_words(self, part: Part) -> str:
        lines = [line.strip() for line in _tail(part.program.log) if line.strip()]
        if part is self.ray:
            return daemons.why_it_failed(lines)
        return lines[-1][:300] if lines else "nothing."

    def _down(self, bell: Bell) -> None:
        """The web first, so that nobody sees half a farm; all are asked before any is waited for, save Ray, which the scheduler needs."""
        for part in (self.dashboard, self.scheduler):
            if part.child is not None:
                part.child.ask_to_end()
        self.dashboard.end(hurry=bell.hurry)
        self.scheduler.end(hurry=bell.hurry)
        self.options.data.ray_facts.unlink(missing_ok=True)
        self.ray.end(hurry=bell.hurry)
        self._traces.unlink(missing_ok=True)

    @property
    def _traces(self) -> Path:
        return self.options.data.run / "pids.json"

    def _write_traces(self) -> None:
        children = [part.child for part in (self.ray, self.scheduler, self.dashboard)]
        supervise.write_traces(self._traces, [child.trace for child in children if child is not None])


def _tail(log: Path, size: int = 8192) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
