"""Whether the head can dial this PC, asked before Ray starts here: Ray's head must, and where it cannot a node hangs and says nothing."""

import socket
from contextlib import ExitStack, suppress

from farm.daemons import RayPorts, is_loopback
from farm.wire import Reach


class Doorbells:
    """Listens on some of the ports that Ray is about to use, while the head dials them; the kernel answers, nothing is accepted."""

    def __init__(self, block: RayPorts) -> None:
        named = block.named()
        self.ports = [named[name] for name in ("node-manager-port", "object-manager-port", "min-worker-port")]
        self._stack = ExitStack()

    def __enter__(self) -> "Doorbells":
        """Starts to listen. A port that something took just now is left to that: it answers as well."""
        for port in self.ports:
            bell = self._stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            bell.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                bell.bind(("0.0.0.0", port))  # noqa: S104 - as Ray will, a second later
                bell.listen()
        return self

    def __exit__(self, *_error: object) -> None:
        """Ends listening: the ports are Ray's."""
        self._stack.close()


def why_unreachable(reach: Reach, address: str, head: str, block: RayPorts) -> str | None:
    """What to tell the person at this PC, with the remedy; None if the head reached every port.

    `address` is what this PC takes for its own, `head` the host of the head's Ray.
    """
    if not reach.failed:
        return None
    ports = ", ".join(f"{port} ({why})" for port, why in sorted(reach.failed.items()))
    said = f"The head cannot connect to this PC at {address}, port {ports}"
    if reach.seen_as and reach.seen_as != address and not is_loopback(reach.seen_as):
        return (
            f"{said}. It sees this PC as {reach.seen_as}: a router, a virtual machine or WSL without mirrored networking translates "
            "addresses (NAT) between them. Put both into one network or VPN; for WSL see docs/windows.md"
        )
    return (
        f"{said}. A firewall is in the way, most likely on this PC: "
        f"`sudo ufw allow proto tcp from {head} to any port {block.base}:{block.last}`"
    )
