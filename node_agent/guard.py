"""Guards the owner's first right to a PC's cards: looks at them, keeps a card for its owner, and gets the farm's worker off it in time.

A thread of the node's agent, so that it works without the head. It never changes a card's settings. When the owner comes, the card's worker
is asked to leave; what has not left after `GRACE_S` is killed by its own process id, since the checkpoint is what counts.
"""

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

import psutil

from farm.clock import Clock
from farm.errors import ConfigurationError
from farm.events import Yielded
from farm.vitals import Vitals
from node_agent.apart import end_children
from node_agent.ladder import TOLERANCE_GIB
from node_agent.owner import Kept, OwnerRules, Signs, kept_by_rule, kept_while_in_use
from node_agent.pause import pause_reason
from node_agent.presence import LOOK_EVERY_S
from node_agent.readings import CardReading
from node_agent.spool import Spool

log = logging.getLogger(__name__)

GRACE_S = 1.5
"""How long a worker has to leave a card; then it is killed. With the pace below and the end of a process that is under 2 s."""
WATCHFUL_S = 0.25
"""Pause between two looks at cards whose worker must leave when their owner comes."""
CALM_S = 2.0
"""Pause between two looks otherwise: what is free is told to the head every two seconds."""
QUIET_S = 30.0
"""How long the owner must be away before the farm has the card again: a game that loads its next level is not over."""
STEP_GIB = 0.25
"""What other programs hold is rounded up to this: every change makes the head judge all jobs anew."""
_DEATH_S = 2.0


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A card's worker as far as it is known: its process, None while it starts, and what it holds of the card as in `WorkerWord`."""

    pid: int | None = None
    held_gib: float | None = None


class Hands(Protocol):
    """What the guard can do to a card's worker."""

    def worker(self, card_id: str) -> WorkerSeen | None:
        """The card's worker; None if there is none."""
        ...

    def ask_way(self, card_id: str, told: str) -> None:
        """Asks the worker to leave the card; `told` goes into its attempt's history. Does not wait."""
        ...

    def gone(self, card_id: str) -> None:
        """The worker's process has ended, or must end now if nobody knows which it is."""
        ...


@dataclass(slots=True)
class Senses:
    """How the guard sees: the cards through NVML, keyboard and mouse, other programs' share of the cores, whose a process is.

    `readings(whole)` without the whole tells of programs and memory alone, at a third of the cost.
    """

    readings: Callable[[bool], Mapping[str, CardReading]]
    at_keyboard: Callable[[], bool | None]
    cpu_share: Callable[[], float | None]
    is_ours: Callable[[int], bool]


@dataclass(slots=True)
class _Ward:
    """One card: why it is kept, since when its worker was asked to leave, and when its owner was last seen there."""

    kept: Kept | None = None
    hot: bool = False
    in_use: Kept | None = None
    seen_at: float = 0.0
    asked_at: float | None = None
    others_gib: float | None = None
    leaving: int | None = None


@dataclass(slots=True)
class _Presence:
    at: float = field(default=float("-inf"))
    at_keyboard: bool | None = None
    cpu_share: float | None = None


class Guard:
    """The guard of one node. `look` is one look, `watch` a thread that looks for ever."""

    def __init__(self, home: Path, spool: Spool, senses: Senses, hands: Hands, clock: Clock) -> None:
        self._home = home
        self._spool = spool
        self._senses = senses
        self._hands = hands
        self._clock = clock
        self._wards: dict[str, _Ward] = {}
        self._readings: dict[str, CardReading] = {}
        self._read_at = self._whole_at = float("-inf")
        self._presence = _Presence()
        self._broken_rules: str | None = None
        self._looking = threading.Lock()
        try:
            self.rules = OwnerRules.load(home)
        except ConfigurationError as error:
            log.error("%s", error)
            self.rules, self._broken_rules = OwnerRules(), str(error)

    def guard(self, card_ids: Sequence[str]) -> None:
        """These are the node's cards. A new one is judged before this returns, so that no worker starts on an owner's card."""
        known = set(self._wards)
        if known == set(card_ids):
            return
        with self._looking:
            self._wards = {card_id: self._wards.get(card_id) or _Ward() for card_id in card_ids}
        self.look()

    def kept(self, card_id: str) -> Kept | None:
        """Why a card is kept for its owner; None if the farm may have it."""
        ward = self._wards.get(card_id)
        return None if ward is None else ward.kept

    def others_gib(self, card_id: str) -> float | None:
        """What other programs hold of a card, GiB, rounded up to `STEP_GIB`; 0 if it is too little to matter, None if not known."""
        ward = self._wards.get(card_id)
        return None if ward is None else ward.others_gib

    def vitals(self, card_id: str) -> Vitals | None:
        """How a card was at the last look."""
        reading = self._readings.get(card_id)
        return None if reading is None else reading.vitals

    def way_is_made(self, wait_s: float) -> None:
        """Waits until no worker is being driven off, so that what it left in the spool has its end."""
        end = time.monotonic() + wait_s
        while any(ward.asked_at is not None for ward in self._wards.values()) and time.monotonic() < end:
            time.sleep(0.02)

    def watch(self) -> None:
        """Looks for ever, in a thread of its own that ends with the process."""
        threading.Thread(target=self._watch, name="guard", daemon=True).start()

    def _watch(self) -> None:
        while True:
            try:
                self.look()
            except Exception:  # a surprise at one look must not end the guard
                log.exception("a look at the owner's signs failed")
            time.sleep(WATCHFUL_S)

    def look(self) -> None:
        """One look: judges each card, and goes on with getting workers off those that are kept."""
        with self._looking:  # the agent's report may ask for a look beside the guard's own thread
            self._look(self._clock.monotonic())

    def _look(self, now: float) -> None:
        paused = pause_reason(self._home)
        if now - self._read_at >= self._pause():
            self._read(now)
        self._look_for_people(now)
        for card_id, ward in list(self._wards.items()):
            self._judge(card_id, ward, paused, now)
            self._clear(card_id, ward, now)

    def _read(self, now: float) -> None:
        whole = now - self._whole_at >= CALM_S
        found = self._senses.readings(whole)
        if whole:
            self._whole_at = now
        else:
            found = {card_id: self._with_vitals(reading) for card_id, reading in found.items()}
        self._readings, self._read_at = dict(found), now

    def _with_vitals(self, reading: CardReading) -> CardReading:
        """A quick reading, with the rest as it was at the last whole one."""
        before = self._readings.get(reading.id)
        if before is None:
            return reading
        used = reading.vitals.memory_used_gib
        return replace(reading, vitals=replace(before.vitals, memory_used_gib=used))

    def _pause(self) -> float:
        watchful = self.rules.only_idle and any(self._hands.worker(card_id) for card_id in self._wards)
        return WATCHFUL_S if watchful else CALM_S

    def _look_for_people(self, now: float) -> None:
        if self.rules.only_idle and now - self._presence.at >= LOOK_EVERY_S:
            self._presence = _Presence(now, self._senses.at_keyboard(), self._senses.cpu_share())

    def _judge(self, card_id: str, ward: _Ward, paused: str | None, now: float) -> None:
        signs = self._signs(card_id, ward, paused)
        rule = kept_by_rule(self.rules, signs, was_hot=ward.hot)
        ward.hot = rule is not None and not rule.at_once
        use = kept_while_in_use(self.rules, signs)
        if use is not None:
            ward.in_use, ward.seen_at = use, now
        elif ward.in_use is not None and now - ward.seen_at >= QUIET_S:
            ward.in_use = None
        if self._broken_rules is not None:
            rule = Kept(self._broken_rules)
        before = ward.kept
        ward.kept = rule if rule is not None and rule.at_once else ward.in_use or rule
        if (before is None) != (ward.kept is None):
            log.info(
                "card %s %s", card_id, f"is kept: {ward.kept.why}" if ward.kept else "is the farm's again"
            )

    def _signs(self, card_id: str, ward: _Ward, paused: str | None) -> Signs:
        reading = self._readings.get(card_id)
        local = datetime.fromtimestamp(self._clock.now())
        people = self._presence
        if reading is None:  # a CPU, or a card that does not answer
            ward.others_gib = None
            return Signs(
                local, paused, programs=(), at_keyboard=people.at_keyboard, cpu_share=people.cpu_share
            )
        worker = self._hands.worker(card_id)
        held = worker.held_gib if worker is not None else None
        others = reading.others_gib(self._senses.is_ours, held)
        ward.others_gib = _in_steps(others)
        return Signs(
            local,
            paused,
            programs=reading.others(self._senses.is_ours, held),
            others_gib=others,
            at_keyboard=people.at_keyboard,
            cpu_share=people.cpu_share,
            temperature_c=reading.vitals.temperature_c,
        )

    def _clear(self, card_id: str, ward: _Ward, now: float) -> None:
        """Gets the worker off a card that is kept at once, step by step from look to look."""
        worker = self._hands.worker(card_id)
        if ward.asked_at is None:
            if worker is None or ward.kept is None or not ward.kept.at_once:
                return
            ward.asked_at = now
            log.info("the worker of %s is asked to leave: %s", card_id, ward.kept.why)
            self._hands.ask_way(card_id, _told(ward.kept.why))
        why = ward.kept.why if ward.kept is not None else "its owner wanted it"
        pid = ward.leaving = (worker.pid if worker is not None else None) or ward.leaving
        if pid is not None and _runs(pid):
            if now - ward.asked_at < GRACE_S:
                return
            log.warning("the worker of %s (process %d) has not left in time: killing it", card_id, pid)
            _kill(pid)
        elif pid is None and worker is not None and now - ward.asked_at < GRACE_S:
            return
        self._hands.gone(card_id)
        if pid is not None:
            self._close(pid, _told(why))
        ward.asked_at = ward.leaving = None
        self._read_at = float("-inf")  # what the card has free now is seen at the next look

    def _close(self, pid: int, told: str) -> None:
        """Says the last word of what the process left unended."""
        for attempt_id in self._spool.left_by(pid):
            with suppress(FileNotFoundError):  # the head forgot it meanwhile
                self._spool.end(attempt_id, partial(self._yielded, attempt_id, told))

    def _yielded(self, attempt_id: str, told: str, seq: int) -> Yielded:
        return Yielded(attempt_id, seq, self._clock.now(), told)


def _told(why: str) -> str:
    """What the attempt's history says."""
    return f"The card is kept for its owner: {why}."


def _in_steps(others_gib: float | None) -> float | None:
    if others_gib is None:
        return None
    return math.ceil(others_gib / STEP_GIB) * STEP_GIB if others_gib > TOLERANCE_GIB else 0.0


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _kill(pid: int) -> None:
    """Ends a process of ours with all that it started, and waits until it has: its memory is free then."""
    end_children(pid)
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    end = time.monotonic() + _DEATH_S
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.01)
