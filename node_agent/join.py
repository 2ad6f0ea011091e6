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

from farm import daemons, ports, supervise
from farm.auth import new_token
from farm.build import build
from farm.daemons import RayPorts
from farm.errors import ConfigurationError, SignInError
from farm.reach import why_unreachable
from farm.secret_files import ensure_private_directory, write_secret
from farm.supervise import Backoff, Bell, Child, Program
from farm.tls import CA_FILE
from farm.wire import JoinTicket
from node_agent import trust
from node_agent.doorbells import Doorbells
from node_agent.head_line import HeadLine, HeadSilentError, head_url
from node_agent.identity import Identity, default_name, has_identity, load_identity, save_identity
from node_agent.owner import OwnerRules

HELLO_EVERY_S = 10.0
"""A head that is there is asked so often whether its Ray is still the same: of 200 PCs that takes it 2 % of a core."""
SILENT_EVERY_S = 5.0
"""One that is silent may be starting anew, and is asked sooner."""
RAY_START_LIMIT_S = 60.0
"""How long Ray has to join before it counts as hung. Each time that it did not, it has twice as long the next time: an old PC that is busy
may take some minutes, and killed in the midst of it again and again it would never join."""
RAY_START_MOST_S = 480.0
_LOOK_EVERY_S = 0.25

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """What `farm join` was asked for. `token` is a single-use code, `name` what people see, `first_port` where to look for Ray's ports.

    `rules` are the owner's; None leaves those that the node's home holds. `enroll` only makes the PC a member, for a service to go on.
    `ca` is the certificate of a farm's authority where the head has TLS, `pin` its fingerprint where the head itself shall send it.
    """

    head: str
    home: Path
    token: str = ""
    name: str | None = None
    first_port: int = 6380
    object_store_mib: int = 400
    rules: OwnerRules | None = None
    enroll: bool = False
    ca: Path | None = None
    pin: str = ""


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


class Node:
    """Keeps this PC in the farm until the bell rings."""

    def __init__(self, options: NodeOptions, environment: Mapping[str, str], say: Say) -> None:
        self.options = replace(options, head=head_url(options.head))
        self._environment = environment
        self._say = say
        self._line = HeadLine(self.options.head, options.home / CA_FILE)
        self._temp_dir = daemons.temp_dir_for(options.home)
        self._ray_token = options.home / "ray-token"
        self._traces = options.home / "pids.json"
        self._said = ""
        self._patience_s = RAY_START_LIMIT_S

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
            self._know_head(bell, pauses)
            self._member = self._become_member(bell, pauses)
            while not self.options.enroll and not bell.stopping:
                began = time.monotonic()
                why = self._once(bell)
                if bell.stopping:
                    break
                pause = pauses.after_run(time.monotonic() - began)
                self._tell(f"{why}; joining again, first in {pause:.0f} s.", about=why)
                bell.wait(pause)
        finally:
            self._line.close()

    def _know_head(self, bell: Bell, pauses: Backoff) -> None:
        """Learns the farm's authority where the owner named it, before the head is told anything."""
        options = self.options
        if not options.head.startswith("https:"):
            return
        while not bell.stopping:
            try:
                ca = trust.learn_ca(options.home, options.head, given=options.ca, pin=options.pin)
            except HeadSilentError as error:
                self._wait_for_head(error, bell, pauses)
                continue
            self._line.close()
            self._line = HeadLine(options.head, ca)
            return

    def _wait_for_head(self, error: HeadSilentError, bell: Bell, pauses: Backoff) -> None:
        pause = pauses.after_run(0.0)
        self._tell(f"{error.message} Trying again until it does.", about=error.message)
        bell.wait(pause)

    def _become_member(self, bell: Bell, pauses: Backoff) -> Membership:
        """The stored membership if the head still knows it, else one for the code, which is used up by this."""
        home, head = self.options.home, self.options.head
        stored = Membership.load(home) if has_identity(home) else None
        if stored is not None and stored.head != head and not stored.farm_id:
            stored = None
        if stored is None and not self.options.token:
            raise ConfigurationError(
                f"This PC is not yet a node of {head}.",
                "Get a code there with `farm token new --kind join` and give it with --token.",
            )
        name = self._name()
        # One for all tries: the head may have used the code up for one whose answer came too late.
        credential = new_token()
        while not bell.stopping:
            try:
                if stored is not None:
                    self._same_farm(stored)
                    try:
                        ticket = self._line.hello(stored.node_token, name)
                    except SignInError:
                        if not self.options.token:
                            raise
                        stored = None
                        continue
                    member = Membership(head, stored.node_token, ticket.farm_id)
                else:
                    known = load_identity(home).node_id if has_identity(home) else None
                    ticket = self._line.redeem(self.options.token, name, known, credential)
                    member = Membership(head, ticket.node_token, ticket.farm_id)
                    self._say(f"Joined the farm at {head} as {name}.")
                # The code may be used up now: the credential must be on the disk before anything else can fail.
                if member != stored:
                    member.save(home)
                save_identity(home, Identity(ticket.node_id, name))
                return member
            except HeadSilentError as error:
                self._wait_for_head(error, bell, pauses)
        return stored or Membership(head, "")

    def _same_farm(self, stored: Membership) -> None:
        """A head at another address may be the same farm's; another farm's gets neither this PC nor to see its credential."""
        if stored.head == self.options.head or self._line.farm_id() == stored.farm_id:
            return
        raise ConfigurationError(
            f"This PC is a node of another farm, the one at {stored.head}; it can be in one at a time.",
            "Leave that one with `farm leave`, then join again.",
        )

    def _name(self) -> str:
        if self.options.name:
            return self.options.name
        return load_identity(self.options.home).name if has_identity(self.options.home) else default_name()

    def _once(self, bell: Bell) -> str:
        """One life of Ray's daemons on this PC, from a fresh ticket to their end; returns why it ended."""
        try:
            ticket = self._line.hello(self._member.node_token, self._name(), self._request())
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
        try:
            why = self._unreachable(ticket, address, block)
        except HeadSilentError as error:
            why = error.message.rstrip(".")
        if why is not None:
            return why
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

    def _request(self) -> str | None:
        """For a certificate, which a head with TLS answers; another one behind somebody's TLS does not."""
        is_tls = self.options.head.startswith("https:")
        return trust.request_for(self.options.home, self._name()) if is_tls else None

    def _unreachable(self, ticket: JoinTicket, address: str, block: RayPorts) -> str | None:
        """Why the head could not dial this PC, None if it can: Ray would hang and not say."""
        with Doorbells(block) as bells:
            reach = self._line.reach(self._member.node_token, address, bells.ports, block.base)
        return why_unreachable(reach, address, ticket.ray_address.rpartition(":")[0], block)

    def _wait_joined(self, child: Child, bell: Bell) -> str | None:
        while not bell.wait(_LOOK_EVERY_S):
            said = child.said()
            if any(daemons.READY_MARK in line for line in said):
                return None
            if child.exit_code is not None:
                return f"Ray did not join: {daemons.why_it_failed(said)} (log: {child.program.log})"
            if child.age_s > self._patience_s:
                why = f"Ray did not join within {self._patience_s:.0f} s (log: {child.program.log})"
                self._patience_s = min(2 * self._patience_s, RAY_START_MOST_S)
                return why
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
                if _ray_of(now) != _ray_of(ticket):
                    return "The head's Ray is another one now"
                if silent:
                    self._say("The head answers again.")
                silent = False
                if self._own_address(ticket, otherwise=address) != address:
                    return "This PC's address has changed"
            next_hello = time.monotonic() + (SILENT_EVERY_S if silent else HELLO_EVERY_S)
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
        tls = trust.keep_certificate(home, ticket.certificate) if ticket.certificate else None
        environment = daemons.ray_environment(
            self._environment, token=self._ray_token, node_home=home, tls=tls
        )
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
        """The head has judged them already; one that is older than this rule has not. Ray would refuse too, after half a minute."""
        if build() != ticket.farm_version:
            raise ConfigurationError(
                f"This PC has the farm {build()}, the head has {ticket.farm_version or 'an older one'}; they must be the same.",
                "Bring the head up to this version, or paste the line of its page Cards here; then join again.",
            )
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


def _ray_of(ticket: JoinTicket) -> tuple[str, str, str]:
    """What must be as it was for Ray's daemons here to go on."""
    return ticket.epoch, ticket.ray_address, ticket.ray_token
