"""What it means that the head cannot dial a PC, and what helps. Pure."""

from farm.daemons import RayPorts, is_loopback
from farm.wire import Reach


def why_unreachable(
    reach: Reach, address: str, head: str, block: RayPorts, pc: str = "this PC"
) -> str | None:
    """What to tell people, with the remedy; None if the head reached every port.

    `address` is what the PC takes for its own, `head` the host of the head's Ray, `pc` what it is called where this is read.
    """
    if not reach.failed:
        return None
    ports = ", ".join(f"{port} ({why})" for port, why in sorted(reach.failed.items()))
    said = f"The head cannot connect to {pc} at {address}, port {ports}"
    if reach.seen_as and reach.seen_as != address and not is_loopback(reach.seen_as):
        return (
            f"{said}. It sees {pc} as {reach.seen_as}: a router, a virtual machine or WSL without mirrored networking translates "
            "addresses (NAT) between them. Put both into one network or VPN; for WSL see docs/windows.md"
        )
    return (
        f"{said}. A firewall is in the way, most likely on {pc}: "
        f"`sudo ufw allow proto tcp from {head} to any port {block.base}:{block.last}`"
    )
