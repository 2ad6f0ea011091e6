"""Fair shares between users: who got less so far goes first. Pure.

Each user has an account of the seconds of work that were given to them, counted as on the fastest card that could have done it. Someone
who comes anew, or again, starts level with those who wait: neither is past thrift a claim, nor past use a debt.
"""

from collections import Counter
from dataclasses import dataclass, field

from farm.model import Tier


@dataclass(slots=True)
class Shares:
    """Accounts by user. Tiers are told apart only for whom one competes with."""

    accounts: dict[str, float] = field(default_factory=dict)
    _waiting: dict[Tier, Counter[str]] = field(default_factory=dict)
    _turn: dict[Tier, float] = field(default_factory=dict)

    def enter(self, user: str, tier: Tier) -> None:
        """One more job of the user waits."""
        waiting = self._waiting.setdefault(tier, Counter())
        if not waiting[user]:
            others = [self.accounts.get(other, 0.0) for other, count in waiting.items() if count]
            level = min(others) if others else self._turn.get(tier, 0.0)
            self.accounts[user] = max(self.accounts.get(user, 0.0), level)
        waiting[user] += 1

    def leave(self, user: str, tier: Tier) -> None:
        """One job of the user waits no longer."""
        waiting = self._waiting[tier]
        waiting[user] -= 1
        if not waiting[user]:
            del waiting[user]

    def charge(self, user: str, tier: Tier, seconds: float) -> None:
        """The user was given so much work."""
        self._turn[tier] = self.accounts.get(user, 0.0)
        self.accounts[user] = self._turn[tier] + seconds

    def of(self, user: str) -> float:
        """What the user has had, seconds of work."""
        return self.accounts.get(user, 0.0)
