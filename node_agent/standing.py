"""How a card stands: what NVML says of it, joined with what its worker says. Pure; the agent carries words between the two."""

from dataclasses import dataclass, replace
from typing import Any

from farm.model import CardKind
from farm.wire import CardReport

RETEST_S = 300.0
"""How long a card in trouble is left alone before a fresh worker tests it again: its owner may have mended it."""


@dataclass(frozen=True, slots=True)
class WorkerWord:
    """What a card's worker says of itself: its process, its attempt, whether it tested the card, and what it found."""

    pid: int
    attempt_id: str | None = None
    tested: bool = False
    trouble: str | None = None

    @classmethod
    def of(cls, said: dict[str, Any]) -> "WorkerWord":
        """From the answer of `CardWorker.state`."""
        return cls(said["pid"], said["attempt_id"], said["tested"], said["trouble"])


@dataclass(slots=True)
class Standing:
    """One card as its agent knows it."""

    word: WorkerWord | None = None
    trouble_since: float | None = None

    def hear(self, word: WorkerWord | None, now: float) -> None:
        """The worker answered, or (None) its process ended. `now` is monotonic, seconds."""
        if word is not None and word.tested:
            if word.trouble is None:
                self.trouble_since = None
            elif self.trouble_since is None:
                self.trouble_since = now
        self.word = word

    def shall_retest(self, now: float) -> bool:
        """Whether the card was in trouble for long enough to be tried anew, by a fresh process: CUDA reads its files but once."""
        return (
            self.word is not None
            and self.word.trouble is not None
            and self.trouble_since is not None
            and now - self.trouble_since >= RETEST_S
        )

    def renew(self) -> None:
        """A fresh worker takes over; the next word about trouble is a new one."""
        self.word = None
        self.trouble_since = None

    def of(self, probed: CardReport) -> CardReport:
        """The card's report: a GPU counts as tested only once its worker says so."""
        if probed.kind is CardKind.CPU:
            return replace(probed, tested=True)
        word = self.word
        if word is None or not word.tested:
            return replace(probed, tested=False)
        return replace(probed, tested=True, trouble=word.trouble or probed.trouble)
