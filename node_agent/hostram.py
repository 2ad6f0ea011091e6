"""How much of this PC's memory a render may still have. Without torch."""

from typing import Final

import psutil

from node_agent.cgroups import memory_limit

GIB: Final = 1024**3

LEAST_FREE_GIB: Final = 0.5
"""What stays free whatever streams: with less the kernel looks for a program to end."""
PINNED_LEAVES_GIB: Final = 1.0
"""What must stay free beside memory that is pinned: that cannot be moved to the disk when another program wants some. With less the weights
stream from ordinary memory."""


def ram_gib() -> tuple[float, float]:
    """This PC's memory, GiB: all of it, and what programs could have now without moving others to the disk. In a container, its own."""
    found = psutil.virtual_memory()
    limit, free = memory_limit() or (found.total, found.available)
    return min(found.total, limit) / GIB, min(found.available, free) / GIB


def free_ram_gib() -> float:
    """What programs could have now, GiB."""
    return ram_gib()[1]


def room_for_weights_gib() -> float:
    """What a render may take of it for weights that stream, pinned."""
    return max(0.0, free_ram_gib() - PINNED_LEAVES_GIB)
