"""A node's supervisor: joins a farm, keeps Ray's daemons running, and joins again whenever the head's Ray is another one.

A head that comes back with its Ray's state finds the node as it was, renders and all. When that state is lost, the node would be refused
for ever: its Ray waits for a cluster that is gone. The head therefore names its state by an epoch, and the node asks for it every few
seconds.
"""

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from farm import daemons, ports, supervise
from farm.daemons import RayPorts
from farm.errors import ConfigurationError, FarmError, SignInError
from farm.secret_files import ensure_private_directory, write_secret
from farm.supervise import Backoff, Bell, Child, Program
from farm.wire import JoinTicket, ticket_from_dict
from node_agent.identity import Identity, default_name, has_identity, load_identity, save_identity
from node_agent.owner import OwnerRules

HELLO_EVERY_S = 5.0
RAY_START_LIMIT_S = 60.0
CALL_LIMIT_S = 5.0
_LOOK_EVERY_S = 0.25

Say = Callable[[str], None]


class HeadSilentError(FarmError):
    """The head did not answer, or not yet with a ticket; asking again is the remedy."""


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What `farm join` was asked for. `token` is a single-use code, `name` what people see, `first_port` where to look for Ray's ports.

    `rules` are the owner's; None leaves those that the node's home holds.
    """

    head: str
    home: Path
    token: str = ""
    name: str | None = None
    first_port: int = 6380
    object_store_mib: int = 400
    rules: OwnerRules | None = None


@dataclass(frozen=True, slots=True)
class Membership:
    """What lies in the node home about the farm: its head, this PC's credential there, and the farm's id (empty in files of old)."""

    head: str
    node_token: str
    farm_id: str = ""

    @classmethod
    def load(cls, home: Path) -> "Membership | None":
        """The membership, None where this PC never joined (or its file is broken, which a new code mends)."""
        try:
            data = json.loads((home / "farm.json").read_text())
            return cls(str(data["head"]), str(data["node_token"]), str(data.get("farm_id", "")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, home: Path) -> None:
        """Writes it, readable by its owner only."""
        write_secret(home / "farm.json", json.dumps(asdict(self)) + "\n")


class HeadLine:
    """Speaks to the head's web server."""

    def __init__(self, head: str) -> None:
        self.head = head
        # No proxy from the environment: a head on the LAN is not behind one.
        self._http = httpx.Client(base_url=head, timeout=CALL_LIMIT_S, trust_env=False)

    def redeem(self, code: str, name: str, node_id: str | None) -> JoinTicket:
        """A ticket for a single-use code.

        Raises:
            HeadSilentError: no answer, or not ready.
            SignInError: the code is wrong, used or expired.
            ConfigurationError: this PC's versions are refused.
        """
        return self._ticket("/join/redeem", {"code": code, "node_id": node_id, **_about(name)}, {})

    def hello(self, node_token: str, name: str) -> JoinTicket:
        """A fresh ticket for a node. Raises as `redeem` does."""
        return self._ticket("/api/v1/nodes/hello", _about(name), {"Authorization": f"Bearer {node_token}"})

    def bye(self, node_token: str) -> None:
        """Tells the head that this PC leaves the farm, which ends its credential.

        Raises:
            HeadSilentError: no answer, or not the one that was expected.
        """
        try:
            answer = self._http.post("/api/v1/nodes/bye", headers={"Authorization": f"Bearer {node_token}"})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HeadSilentError(f"The head at {self.head} does not answer.") from error
        if answer.is_error and answer.status_code not in (
            httpx.codes.UNAUTHORIZED,
            httpx.codes.FORBIDDEN,
        ):  # those mean that it has ended the credential already
            raise HeadSilentError(f"The head at {self.head} is not ready: {_problem(answer)[0]}")

    def close(self) -> None:
        """Ends the connection."""
        self._http.close()

    def _ticket(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> JoinTicket:
        try:
            answer = self._http.post(path, json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise HeadSilentError(f"The head at {self.head} does not answer ({reason}).") from error
        if answer.status_code == httpx.codes.OK:
            try:
                return ticket_from_dict(answer.json())
            except (ValueError, ValidationError) as error:
                raise _no_farm(self.head) from error
        message, remedy = _problem(answer)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise SignInError(message, remedy)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise _no_farm(self.head)
        if answer.is_client_error and answer.status_code not in (
            httpx.codes.REQUEST_TIMEOUT,
            httpx.codes.TOO_MANY_REQUESTS,
        ):
            raise ConfigurationError(message, remedy)
        raise HeadSilentError(f"The head at {self.head} is not ready: {message}")


def _no_farm(head: str) -> ConfigurationError:
    return ConfigurationError(
        f"What answers at {head} is not a farm's head.",
        "Check the address: `farm up` prints it on the head PC.",
    )


def _about(name: str) -> dict[str, str]:
    return {
        "name": name,
        "ray_version": metadata.version("ray"),
        "python_version": platform.python_version(),
    }


def _problem(answer: httpx.Response) -> tuple[str, str]:
    try:
        body = answer.json()
        items = body.get("errors") or []
        detail = str(body.get("detail") or answer.reason_phrase)
        if items:
            detail += " " + "; ".join(f"{item['field']}: {item['message']}" for item in items)
        return detail, str(body.get("remedy", ""))
    except (ValueError, AttributeError, KeyError, TypeError):
        return f"HTTP {answer.status_code} {answer.reason_phrase}", ""


def head_url(text: str) -> str:
    """The head's address as people write it, "192.168.1.5", "head:8000" or a URL, as a URL without a path.

    Raises:
        ConfigurationError: it is no address.
    """
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 8000)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise ConfigurationError(
            f"{text!r} is not the address of a head.",
            "Give it as `farm up` prints it, for example http://192.168.1.5:8000.",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"


class Node:
    """Keeps this PC in the farm until the bell rings."""

    def __init__(self, options: NodeOptions, environment: Mapping[str, str], say: Say) -> None:
        self.options = replace(options, head=head_url(options.head))
        self._environment = environment
        self._say = say
        self._line = HeadLine(self.options.head)
        self._temp_dir = daemons.temp_dir_for(options.home)
        self._ray_token = options.home / "ray-token"
        self._traces = options.home / "pids.json"
        self._said = ""

    def run(self, bell: Bell) -> None:
        """Joins, and stays joined.

        Raises:
            SignInError: the head refuses the code or this PC's credential.
            ConfigurationError: the head refuses this PC's versions, or there is no code and no credential.
        """
        ensure_private_directory(self.options.home)
        rules = self.options.rules
        if rules is not None:
            rules.save(self.options.home)
            if rules != OwnerRules():
                self._say(f"Its owner's rules: {rules}.")
        if supervise.end_leftovers(self._traces):
            self._say("Ended what a former run had left.")
        pauses = Backoff(calm_s=10.0)
        try:
            self._member = self._become_member(bell, pauses)
            while not bell.stopping:
                began = time.monotonic()
                why = self._once(bell)
                if bell.stopping:
                    break
                pause = pauses.after_run(time.monotonic() - began)
                self._tell(f"{why}; joining again, first in {pause:.0f} s.", about=why)
                bell.wait(pause)
        finally:
            self._line.close()

    def _become_member(self, bell: Bell, pauses: Backoff) -> Membership:
        """The stored membership if the head still knows it, else one for the code, which is used up by this."""
        home, head = self.options.home, self.options.head
        stored = Membership.load(home)
        if stored is not None and (stored.head != head or not has_identity(home)):
            stored = None
        if stored is None and not self.options.token:
            raise ConfigurationError(
                f"This PC is not yet a node of {head}.",
                "Get a code there with `farm token new --kind join` and give it with --token.",
            )
        name = self._name()
        while not bell.stopping:
            try:
                if stored is not None:
                    try:
                        ticket = self._line.hello(stored.node_token, name)
                    except SignInError:
                        if not self.options.token:
                            raise
                        stored = None
                        continue
                    save_identity(home, Identity(ticket.node_id, name))
                    return stored
                known = load_identity(home).node_id if has_identity(home) else None
                ticket = self._line.redeem(self.options.token, name, known)
                # The code is used up now: the credential must be on the disk before anything else can fail.
                member = Membership(head, ticket.node_token)
                member.save(home)
                save_identity(home, Identity(ticket.node_id, name))
                self._say(f"Joined the farm at {head} as {name}.")
                return member
            except HeadSilentError as error:
                pause = pauses.after_run(0.0)
                self._tell(f"{error.message} Trying again until it does.", about=error.message)
                bell.wait(pause)
        return stored or Membership(head, "")

    def _name(self) -> str:
        if self.options.name:
            return self.options.name
        return load_identity(self.options.home).name if has_identity(self.options.home) else default_name()

    def _once(self, bell: Bell) -> str:
        """One life of Ray's daemons on this PC, from a fresh ticket to their end; returns why it ended."""
        try:
            ticket = self._line.hello(self._member.node_token, self._name())
        except HeadSilentError as error:
            return error.message.rstrip(".")
        self._check_versions(ticket)
        try:
            address = self._own_address(ticket)
        except OSError as error:
            return f"There is no way to the head's Ray at {ticket.ray_address} ({error.strerror})"
        write_secret(self._ray_token, ticket.ray_token)
        daemons.prepare_temp_dir(self._temp_dir)
        block = self._free_block()
        child = Child(self._program(ticket, address, block))
        supervise.write_traces(self._traces, [child.trace])
        try:
            why = self._wait_joined(child, bell)
            if why is not None or bell.stopping:
                return why or ""
            self._tell(
                f"Connected: this PC's cards are the farm's now. Ray uses ports {block.base} to {block.last}; "
                "a firewall here must let the head reach them.",
                about="connected",
            )
            return self._stay(child, ticket, address, bell)
        finally:
            child.end(grace_s=0.5 if bell.hurry else None)
            self._traces.unlink(missing_ok=True)

    def _wait_joined(self, child: Child, bell: Bell) -> str | None:
        while not bell.wait(_LOOK_EVERY_S):
            said = child.said()
            if any(daemons.READY_MARK in line for line in said):
                return None
            if child.exit_code is not None:
                return f"Ray did not join: {daemons.why_it_failed(said)} (log: {child.program.log})"
            if child.age_s > RAY_START_LIMIT_S:
                return f"Ray did not join within {RAY_START_LIMIT_S:.0f} s (log: {child.program.log})"
        return ""

    def _stay(self, child: Child, ticket: JoinTicket, address: str, bell: Bell) -> str:
        """Watches until Ray ends here or the head's is another; an unreachable head alone is waited for."""
        next_hello = time.monotonic() + HELLO_EVERY_S
        silent = False
        while not bell.wait(_LOOK_EVERY_S):
            if child.exit_code is not None:
                return f"Ray ended on this PC: {daemons.why_it_failed(child.said())}"
            if time.monotonic() < next_hello:
                continue
            try:
                now = self._line.hello(self._member.node_token, self._name())
            except HeadSilentError as error:
                if not silent:
                    self._say(f"{error.message} What runs here goes on.")
                silent = True
            else:
                if (now.epoch, now.ray_address) != (ticket.epoch, ticket.ray_address):
                    return "The head's Ray is another one now"
                if silent:
                    self._say("The head answers again.")
                silent = False
                if self._own_address(ticket, otherwise=address) != address:
                    return "This PC's address has changed"
            next_hello = time.monotonic() + HELLO_EVERY_S
        return ""

    def _program(self, ticket: JoinTicket, address: str, block: RayPorts) -> Program:
        home = self.options.home
        command = daemons.node_command(
            head=ticket.ray_address,
            address=address,
            ports=block,
            temp_dir=self._temp_dir,
            object_store_mib=self.options.object_store_mib,
            node_id=ticket.node_id,
        )
        environment = daemons.ray_environment(self._environment, token=self._ray_token, node_home=home)
        return Program("ray", command, environment, home / "logs" / "ray.log", grace_s=daemons.RAY_GRACE_S)

    def _own_address(self, ticket: JoinTicket, otherwise: str | None = None) -> str:
        host, _, port = ticket.ray_address.rpartition(":")
        if daemons.is_loopback(host):
            return daemons.SECOND_LOOPBACK_NODE
        try:
            return daemons.own_address_towards(host, int(port))
        except OSError:
            if otherwise is None:
                raise
            return otherwise

    def _free_block(self) -> RayPorts:
        """The first block of ports that nothing listens on; a head or another node on this PC has the first."""
        for base in range(self.options.first_port, 65536 - RayPorts.SIZE, RayPorts.SIZE):
            block = RayPorts(base)
            if all(ports.is_free(port) for port in block.listened()):
                return block
        raise ConfigurationError("No ports are free for Ray.", "Choose where to look with --ray-port.")

    def _check_versions(self, ticket: JoinTicket) -> None:
        """Ray would refuse too, but after half a minute and without a remedy."""
        ours = metadata.version("ray")
        if ours != ticket.ray_version:
            raise ConfigurationError(
                f"This PC has Ray {ours}, the head has {ticket.ray_version}; they must be the same.",
                f'Run `pip install "ray=={ticket.ray_version}"` in the farm\'s environment here, then join again.',
            )
        python = ".".join(ticket.python_version.split(".")[:2])
        if platform.python_version_tuple()[:2] != tuple(python.split(".")):
            raise ConfigurationError(
                f"This PC has Python {platform.python_version()}, the head has {ticket.python_version}.",
                f"Make the farm's environment here with Python {python}, then join again.",
            )

    def _tell(self, line: str, *, about: str) -> None:
        """Says it unless the last thing said was about the same: a head that is off for a night fills no log."""
        if about != self._said:
            self._said = about
            self._say(line)
