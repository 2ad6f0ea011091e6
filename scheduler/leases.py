"""Who was heard from, and when: leases of attempts and silence of nodes. Pure; times are monotonic seconds that the caller passes in."""

from dataclasses import dataclass, field

SILENT_AFTER_S = 8.0
"""A node unheard for this long is shown as "not answering": with the second until the next look that is within ten. One that answers is
heard every 7.1 s at the least: it may hold its answer for 6 s, and workers that are slow to say how they are may make that 7.1 s."""


@dataclass(slots=True)
class Leases:
    """When each attempt and node was last heard from. An attempt's lease runs `lease_s` from then."""

    lease_s: float
    _attempts: dict[str, float] = field(default_factory=dict)
    _nodes: dict[str, float] = field(default_factory=dict)

    def hold(self, attempt_id: str, now: float) -> None:
        """The attempt was heard from, or has just been given its lease."""
        self._attempts[attempt_id] = now

    def end(self, attempt_id: str) -> None:
        """The attempt ended."""
        self._attempts.pop(attempt_id, None)

    def expired(self, now: float) -> list[str]:
        """Attempts whose lease ran out."""
        return [attempt_id for attempt_id, heard in self._attempts.items() if now - heard > self.lease_s]

    def left(self, attempt_id: str, now: float) -> float:
        """Seconds until the attempt's lease runs out, 0 if it has."""
        heard = self._attempts.get(attempt_id)
        return 0.0 if heard is None else max(0.0, heard + self.lease_s - now)

    def heard(self, node_id: str, now: float) -> None:
        """The node answered."""
        self._nodes[node_id] = now

    def silence(self, node_id: str, now: float) -> float | None:
        """Seconds since the node answered; None if it never did since this process began."""
        heard = self._nodes.get(node_id)
        return None if heard is None else now - heard

    def answering(self, node_id: str, now: float) -> bool:
        """Whether the node was heard from recently."""
        silence = self.silence(node_id, now)
        return silence is not None and silence <= SILENT_AFTER_S
