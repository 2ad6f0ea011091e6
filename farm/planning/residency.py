"""Which of a network's weights stay on the card when not all can. Pure; the head predicts with it, the node follows it.

Streaming is free where a unit computes for longer than its bytes take over the bus. Deep in the network units are heavy and compute
little; those stay first. So what is left to stream is spread over where there is time for it.
"""

from functools import lru_cache

from farm.catalogue.networks import Network, UnitRow

SMALL_MIB = 1.0
"""Units up to this size always stay; see `node_agent.engine.units`."""


@lru_cache(maxsize=64)
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


@lru_cache(maxsize=16)
def smallest_ring_mib(network: Network) -> int:
    """The ring under which units would wait for each other: twice the largest unit, whole MiB."""
    return int(2 * max(unit.mib for unit in network.units)) + 1
