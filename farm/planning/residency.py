"""Which of a network's weights stay on the card when not all can. Pure; the head predicts with it, the node follows it.

Streaming is free where a unit computes for longer than its bytes take over the bus. Deep in the network units are heavy and compute
little; those stay first. So what is left to stream is spread over where there is time for it.
"""

from functools import lru_cache
from math import ceil
from typing import Final

from farm.catalogue.networks import Network, UnitRow
from farm.planning.ring import smallest_ring

MIB: Final = 1024**2

SMALL_MIB = 1.0
"""Units up to this size always stay; see `node_agent.engine.units`."""


@lru_cache(maxsize=512)
def staying(network: Network, share: float) -> frozenset[str]:
    """The units that stay when `share` (0 to 1) of the weights does, small ones included; never more MiB than that, save the small ones."""
    room = share * network.mib + 1e-6
    chosen = {unit.name for unit in network.units if unit.mib <= SMALL_MIB}
    room -= sum(unit.mib for unit in network.units if unit.mib <= SMALL_MIB)
    for unit in _heaviest_first(network):
        if unit.mib <= room:
            chosen.add(unit.name)
            room -= unit.mib
    return frozenset(chosen)


@lru_cache(maxsize=16)
def _heaviest_first(network: Network) -> tuple[UnitRow, ...]:
    large = [unit for unit in network.units if unit.mib > SMALL_MIB]
    return tuple(sorted(large, key=lambda unit: unit.mib / (unit.share + 1e-9), reverse=True))


@lru_cache(maxsize=512)
def ring_mib(network: Network, share: float) -> int:
    """The smallest ring, whole MiB, in which copies run beside the computation when `share` of the weights stays; 0 if all does."""
    stay = staying(network, share)
    sizes = [int(unit.mib * MIB) for unit in network.units if unit.name not in stay]
    return ceil(smallest_ring(sizes) / MIB)
