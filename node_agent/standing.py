"""How a card stands: what NVML says of it, joined with what its worker says. Pure; the agent carries words between the two."""

from dataclasses import dataclass, replace
from typing import Any

from farm.model import CardKind, Coming
from farm.wire import CardReport
from node_agent.spill import margin_gib

RETEST_S = 300.0
"""How long a card in trouble is left alone before a fresh worker tests it again: its owner may have mended it."""


@dataclass(frozen=True, slots=True)
class WorkerWord:
    """What a card's worker says of itself: its process and attempt, whether it tested the card, what it found, how many renders spilled.

    `pid` is None once that process is gone. `held_gib` is what its allocator holds, None while it has no context on the card.
    """

    pid: int | None
    attempt_id: str | None = None
    tested: bool = False
    trouble: str | None = None
    spills: int = 0
    held_gib: float | None = None

    @classmethod
    def of(cls, said: dict[str, Any]) -> "WorkerWord":
        """From the answer of `CardWorker.state`."""
        return cls(
            said["pid"], said["attempt_id"], said["tested"], said["trouble"], said["spills"], said["held_gib"]
        )


@dataclass(slots=True)
class Standing:
    """One card as its agent knows it. `spills` counts those of workers that have ended."""

    word: WorkerWord | None = None
    trouble_since: float | None = None
    spills: int = 0

    def hear(self, word: WorkerWord | None, now: float) -> None:
        """The worker answered, or (None) its process ended. `now` is monotonic, seconds."""
        if word is not None and word.tested:
            if word.trouble is None:
                self.trouble_since = None
            elif self.trouble_since is None:
                self.trouble_since = now
        if word is None:
            self._close_book()
        self.word = word

    def _close_book(self) -> None:
        self.spills += self.word.spills if self.word is not None else 0

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
        self._close_book()
        self.word = None
        self.trouble_since = None

    def rest(self) -> None:
        """The worker ends for want of work; what it said of the card holds on."""
        self._close_book()
        if self.word is not None:
            # Its number may be another program's by the time that a successor starts, which the guard would kill in its place.
            self.word = replace(self.word, pid=None, spills=0, held_gib=None)

    def of(self, probed: CardReport) -> CardReport:
        """The card's report: a GPU counts as tested only once its worker says so; a CPU unless its worker is at a test."""
        word = self.word
        if probed.kind is CardKind.CPU:
            if word is None:
                return replace(probed, tested=True)
            return replace(probed, tested=word.tested, trouble=word.trouble or probed.trouble)
        card = self._with_margin(probed)
        if word is None or not word.tested:
            return replace(card, tested=False)
        return replace(card, tested=True, trouble=word.trouble or card.trouble)

    def _with_margin(self, card: CardReport) -> CardReport:
        margin = margin_gib(self.spills + (self.word.spills if self.word is not None else 0))
        if not margin or card.usable_gib is None:
            return card
        return replace(
            card,
            usable_gib=round(max(0.0, card.usable_gib - margin), 2),
            notice=f"{margin:g} GiB less of its memory is used: Windows moved some of it to the PC's RAM during a render.",
        )


def with_coming(card: CardReport, coming: tuple[Coming, ...]) -> CardReport:
    """The report with what is on its way to the PC, and of what lies there damaged that which does not come anew."""
    known = {one.model for one in coming}
    return replace(card, coming=(*coming, *(one for one in card.coming if one.model not in known)))
