"""What the PCs' wall clocks say, told by the head's. Pure; times are wall seconds that the caller passes in.

Nobody sets the clock of a spare PC. Nothing of the farm compares clocks of two PCs: what a node says the time is, is translated where it
comes in, and durations are measured by clocks that never jump.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class NodeClocks:
    """How far each node's clock is ahead of the head's, as its last report showed."""

    _ahead_s: dict[str, float] = field(default_factory=dict)

    def hear(self, node_id: str, at: float, now: float) -> None:
        """The node's clock said `at` just before `now`; a report is under way for milliseconds."""
        self._ahead_s[node_id] = at - now

    def ours(self, node_id: str, at: float, now: float) -> float:
        """When that was by the head's clock: never later than `now`, and `now` where the node's clock is not known."""
        ahead_s = self._ahead_s.get(node_id)
        return now if ahead_s is None else min(at - ahead_s, now)
