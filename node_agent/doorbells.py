"""Whether the head can dial this PC, asked before Ray starts here: Ray's head must, and where it cannot a node hangs and says nothing."""

import socket
from contextlib import ExitStack, suppress

from farm.daemons import RayPorts


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
