"""How long one pass of a network takes while part of its weights crosses the bus. Pure.

Units compute one after the other. Copies run beside them, one at a time and in the same order; a copy may begin when the ring has
room for it, that is when the units before it have computed far enough. What a unit has to wait for its copy is lost.
"""

from collections.abc import Collection

from farm.catalogue.networks import Network

MIB = 1024**2


def pass_seconds(
    network: Network,
    stay: Collection[str],
    *,
    work: float,
    scale: float,
    ring_mib: float,
    bus_gb_s: float,
    passes: int = 1,
) -> float:
    """Seconds of one of a step's `passes` in the steady state, at `scale` times the measured card's seconds.

    `work` as `Network.timed` counts it; weights stream at `bus_gb_s` GB/s through `ring_mib` MiB.
    """
    per_mib = MIB / (bus_gb_s * 1e9)
    total = network.step_seconds(work, scale, passes)
    compute = [total * unit.share for unit in network.units]
    streamed = [0.0 if unit.name in stay else unit.mib for unit in network.units]
    if not any(streamed):
        return total
    return max(_steady(compute, streamed, ring_mib, per_mib), total)


def _steady(compute: list[float], streamed: list[float], ring_mib: float, per_mib: float) -> float:
    """The second of two passes, from the end of the first: by then the next units' copies run ahead as they will for ever."""
    now = 0.0  # when the unit before has computed
    copied = 0.0  # when the bus is free
    held: list[
        tuple[float, float]
    ] = []  # (MiB, when it may be overwritten) of what is in the ring, oldest first
    first = 0
    filled = 0.0
    ends = []
    for _ in range(2):
        for seconds, mib in zip(compute, streamed, strict=True):
            if mib:
                begin = copied
                while filled + mib > ring_mib and first < len(held):
                    filled -= held[first][0]
                    begin = max(begin, held[first][1])
                    first += 1
                copied = begin + mib * per_mib
                now = max(now, copied) + seconds
                held.append((mib, now))
                filled += mib
            else:
                now += seconds
        ends.append(now)
    return ends[1] - ends[0]
