"""Watches the nodes: asks each for its report, keeps the store's and the policy's picture of cards true, says who is silent."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from farm.clock import Clock
from farm.feed import CardState, LiveCard
from farm.model import Attempt, Card, Node
from farm.planning.tiers import band_of
from farm.standing import DRAINED
from farm.store.registry import Registry
from farm.vitals import Vitals
from farm.weights import coming_text
from farm.wire import CardReport, NodeReport
from scheduler.board import Board
from scheduler.cluster import Cluster, NodeGoneError, WorkerGoneError
from scheduler.doubts import PROBED, Doubt, Doubts, Remedy
from scheduler.leases import Leases
from scheduler.nodebook import NodeBook
from scheduler.pauses import Pauses
from scheduler.policy import Policy

log = logging.getLogger(__name__)

EVERY_S = 2.0
"""From one round to the next, and the longest that a round waits: a node that takes longer is heard when it answers."""
HOLD_S = 6.0
"""How long a node without work and news may hold its answer. With workers that are slow to say how they are it takes 7.1 s at the most
(`node_agent.telling`), less than `scheduler.leases.SILENT_AFTER_S`."""
LOOK_EVERY_S = 1.0
GONE_AFTER_S = 7 * 86400.0
"""A PC that is on only at weekends is heard from within a week; nobody waits for one that was not."""
NO_LONGER_THERE = "its PC no longer has it"


class Work(NamedTuple):
    """What a card is at: when that is expected to be over (wall seconds; None where nobody knows), and the model that it runs, if any."""

    ends_at: float | None
    model: str | None


class Watch:
    """One per scheduler.

    `holder(card_id)` is the job that holds a card, `work(card_id)` what its attempt is at; `attended()` are the attempts that are seen
    through; `spooled(report)` hears what a node keeps.
    """

    def __init__(
        self,
        cluster: Cluster,
        registry: Registry,
        policy: Policy,
        board: Board,
        leases: Leases,
        clock: Clock,
        *,
        holder: Callable[[str], str | None],
        work: Callable[[str], Work | None],
        attended: Callable[[], frozenset[str]],
        spooled: Callable[[NodeReport], None],
        changed: Callable[[], None],
    ) -> None:
        self._cluster = cluster
        self._registry = registry
        self._policy = policy
        self._board = board
        self._leases = leases
        self._clock = clock
        self._holder = holder
        self._work = work
        self._attended = attended
        self._spooled = spooled
        self._changed = changed
        self._cards: dict[str, Card] = {}
        self._vitals: dict[str, Vitals | None] = {}
        self._reported: dict[str, frozenset[str]] = {}
        self._node_names: dict[str, str] = {}
        self._book = NodeBook(registry)
        self._doubts = Doubts(lambda: leases.lease_s)
        self._pauses = Pauses()
        self._drained: set[str] = set()
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, set[str]] = {}
        """The attempts that have begun on each node since it was asked for the report that it owes."""
        self._nodes: set[str] = set()
        self._calm: set[str] = set()
        """The cards of nodes that answered when the card was last looked at."""
        self._stands: dict[str, object] = {}
        """How each card stands, as policy was last told."""

    def know(self, nodes: list[Node], cards: list[Card]) -> None:
        """What the store remembers from earlier: these cards exist, though nobody has heard from them yet."""
        self._node_names = {node.id: node.name for node in nodes}
        self._drained = {node.id for node in nodes if node.drained_at is not None}
        for card in cards:
            self._cards[card.id] = card
            if card.paused is not None:
                self._pauses.pause(card.id, card.paused, self._clock.monotonic())
            self.refresh(card.id)

    def drain(self, node_id: str) -> None:
        """The node ends what it is at and gets nothing new, until `resume`."""
        self._drained.add(node_id)
        self._refresh_node(node_id)

    def resume(self, node_id: str) -> None:
        """The node gets work again, and so do its cards that the farm had paused: a person knows better."""
        self._drained.discard(node_id)
        for card in self._cards_of(node_id):
            self._end_pause(card.id)
        self._refresh_node(node_id)

    def forget(self, node_id: str) -> None:
        """The node is struck from the lists; its cards count for nothing any more."""
        self._drained.discard(node_id)
        self._node_names.pop(node_id, None)
        self._book.forget(node_id)
        self._reported.pop(node_id, None)
        for card in self._cards_of(node_id):
            del self._cards[card.id]
            self._vitals.pop(card.id, None)
            self._stands.pop(card.id, None)
            self._calm.discard(card.id)
            self._pauses.end(card.id)
            self._policy.remove_card(card.id)
            self._board.remove_card(card.id)

    def begin(self, attempt: Attempt) -> None:
        """An attempt holds its card from now on."""
        if attempt.node_id in self._begun:
            self._begun[attempt.node_id].add(attempt.id)
        self.refresh(attempt.card_id)

    def pause(self, card_id: str, why: str) -> None:
        """The card gets no work until it has passed a test. Outlives this process."""
        if self._pauses.about(card_id) is None and card_id in self._cards:
            log.warning("card %s is paused: %s", card_id, why)
            self._registry.pause_card(card_id, why, self._clock.now())
            self._pauses.pause(card_id, why, self._clock.monotonic())
            self.refresh(card_id)

    def gone(self, card: Card) -> bool:
        """Whether nobody should wait for the card: its PC has it no longer, or was not heard from for a week."""
        if card.trouble == NO_LONGER_THERE:
            return True
        silence = self._leases.silence(card.node_id, self._clock.monotonic())
        if silence is None and card.last_seen is not None:
            silence = self._clock.now() - card.last_seen
        return silence is not None and silence > GONE_AFTER_S

    def _cards_of(self, node_id: str) -> list[Card]:
        return [card for card in self._cards.values() if card.node_id == node_id]

    def _refresh_node(self, node_id: str) -> None:
        for card in self._cards_of(node_id):
            self.refresh(card.id)

    def _end_pause(self, card_id: str) -> None:
        if self._pauses.about(card_id) is not None:
            self._registry.clear_card(card_id, self._clock.now())
            self._pauses.end(card_id)

    async def run(self) -> None:
        """Watches until cancelled."""
        looking = asyncio.create_task(self._look_for_silence())
        try:
            while True:
                began = self._clock.monotonic()
                try:
                    await self.round()
                except Exception:  # the watch must outlive any surprise of a node
                    log.exception("a round of watching the nodes failed")
                await asyncio.sleep(max(0.0, began + EVERY_S - self._clock.monotonic()))
        finally:
            for task in (looking, *self._asking.values()):
                task.cancel()

    async def _look_for_silence(self) -> None:
        """Beside the rounds, which may take seconds: a node that vanished is shown in time, whatever the others do."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._look()

    def _look(self) -> None:
        """Looks at the cards that may stand otherwise although nothing was heard: of silent nodes, and at work, whose end is foreseen."""
        now = self._clock.monotonic()
        for card in list(self._cards.values()):
            calm = card.id in self._calm and self._leases.answering(card.node_id, now)
            if not calm or self._holder(card.id) is not None:
                self.refresh(card.id)

    async def round(self) -> None:
        """Asks every connected node that does not still owe an answer. One that hangs keeps none of the others waiting."""
        self._nodes = await self._cluster.nodes()
        for node_id in sorted(self._nodes):
            if node_id not in self._asking:
                self._asking[node_id] = asyncio.create_task(self._follow(node_id))
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=EVERY_S)
        self._look()
        self._book.write(self._clock.now())
        self._changed()

    async def _follow(self, node_id: str) -> None:
        """Asks, and again at once for as long as the node holds its answers.

        One that does not is asked in the next round; so is a silent one, since a round finds out whether it has come back as another.
        """
        try:
            held = True
            while held and node_id in self._nodes:
                began = self._clock.monotonic()
                answered = await self._ask(node_id, HOLD_S if self._may_hold(node_id) else 0.0)
                held = answered and self._clock.monotonic() - began > EVERY_S / 2
        finally:
            del self._asking[node_id]

    def _may_hold(self, node_id: str) -> bool:
        """A node with a doubted card may not: what its report says of the worker is waited for."""
        cards = (self._cards.get(card_id) for card_id in self._doubts.standing())
        return all(card is None or card.node_id != node_id for card in cards)

    async def _ask(self, node_id: str, hold_s: float) -> bool:
        """Asks once; whether there was an answer."""
        standing, attended = self._doubts.standing(), self._attended()
        begun = self._begun[node_id] = set()
        try:
            report = await self._cluster.report(node_id, hold_s)
            self._leases.heard(node_id, self._clock.monotonic())
            self._take(report)
            remedies = self._hear_workers(report, standing, attended | begun)
            remedies += self._hear_paused(report)
            self._spooled(report)
            stands = [self._refresh(said.id) for said in report.cards]
            if any(stands):  # the round may have ended without waiting for this node
                self._changed()
            for remedy in remedies:
                await self._apply(node_id, remedy)
            return True
        except NodeGoneError:
            log.info("node %s did not answer", node_id)
        except Exception:  # one node's surprise, such as another version's report, must not stop the others
            log.exception("the report of node %s cannot be used", node_id)
        finally:
            del self._begun[node_id]
        return False

    def _hear_workers(
        self, report: NodeReport, standing: dict[str, Doubt], attended: frozenset[str]
    ) -> list[Remedy]:
        now, attended = self._clock.monotonic(), attended | self._attended()
        heard = (
            self._doubts.hear(
                said,
                standing=standing,
                attended=attended,
                held=self._holder(said.id) is not None,
                now=now,
            )
            for said in report.cards
        )
        return [remedy for remedy in heard if remedy is not None]

    def _hear_paused(self, report: NodeReport) -> list[Remedy]:
        remedies = []
        for said in report.cards:
            held, doubted = self._holder(said.id) is not None, self._doubts.about(said.id) is not None
            what = self._pauses.hear(said, held=held, doubted=doubted, now=self._clock.monotonic())
            if what == "probe":
                self._doubts.add(said.id, PROBED)
                remedies.append(Remedy(said.id, "replace"))
            elif what == "back":
                log.info("card %s has passed its test and takes work again", said.id)
                self._end_pause(said.id)
        return remedies

    async def _apply(self, node_id: str, remedy: Remedy) -> None:
        with suppress(WorkerGoneError):
            if remedy.what == "stop":
                await self._cluster.cancel(node_id, remedy.card_id, remedy.stray)
            else:
                log.warning("replacing the worker of card %s", remedy.card_id)
                await self._cluster.replace_worker(node_id, remedy.card_id)

    def _take(self, report: NodeReport) -> None:
        now = self._clock.now()
        cards = [_card(report.node_id, said) for said in report.cards]
        self._node_names[report.node_id] = report.name
        self._book.take(report, cards, now)
        for card in cards:
            self._cards[card.id] = card
        self._vitals |= {said.id: said.vitals for said in report.cards}
        reported = frozenset(card.id for card in cards)
        if self._reported.get(report.node_id) != reported:
            self._reported[report.node_id] = reported
            for card in self._cards_of(report.node_id):
                if card.id not in reported:
                    self._cards[card.id] = replace(card, trouble=NO_LONGER_THERE)
                    self.refresh(card.id)

    def doubt(self, card_id: str, why: str) -> None:
        """The card's worker may be gone or busy: no work for it until its node has reported that it is idle."""
        self._doubts.add(card_id, why)

    def kept(self, card_id: str) -> str | None:
        """Why a card is kept for its owner, as its node last said; None if it is not."""
        card = self._cards.get(card_id)
        return None if card is None else card.kept

    def refresh(self, card_id: str) -> None:
        """Tells policy and board how a card stands now."""
        self._refresh(card_id)

    def _refresh(self, card_id: str) -> bool:
        """As `refresh`; whether the card stands otherwise than it stood."""
        card = self._cards.get(card_id)
        if card is None:
            return False
        now = self._clock.monotonic()
        answering = self._leases.answering(card.node_id, now)
        silence = self._leases.silence(card.node_id, now)
        job_id = self._holder(card_id)
        doubt = self._doubts.about(card_id)
        paused, drained = self._pauses.about(card_id), card.node_id in self._drained
        kept_from_work = card.trouble is not None or card.kept is not None or paused is not None or drained
        free = answering and doubt is None and job_id is None and not kept_from_work
        work = self._work(card_id) if answering and not kept_from_work else None
        (self._calm.add if answering else self._calm.discard)(card_id)
        self._policy.set_card(
            card,
            free=free,
            busy_until=work.ends_at if work is not None else None,
            model=work.model if work is not None else None,
        )
        before, self._stands[card_id] = self._stands.get(card_id), (card, free, work)
        state: CardState = "idle"
        why = None
        if not answering:
            state = "not answering"
            why = (
                "has not answered since the scheduler was started"
                if silence is None
                else "its PC does not answer"
            )
        elif card.trouble is not None:
            state, why = "trouble", card.trouble
        elif card.kept is not None:
            state, why = "kept", f"kept for its owner: {card.kept}"
        elif job_id is not None:
            state, why = "busy", DRAINED if drained else paused
        elif paused is not None:
            state, why = "paused", paused
        elif drained:
            state, why = "drained", DRAINED
        elif doubt is not None:
            state, why = "starting", doubt.why
        name = self._node_names.get(card.node_id, card.node_id)
        silent_s = None if answering else silence
        fetching = tuple(coming_text(one) for one in card.coming)
        live = LiveCard(
            card.id, card.node_id, name, card.name, state, job_id, silent_s, why, fetching=fetching
        )
        if answering and card.trouble != NO_LONGER_THERE:
            live = replace(live, vitals=self._vitals.get(card.id), others_gib=card.others_gib)
        self._board.card(live)
        return before != self._stands[card_id]


def _card(node_id: str, said: CardReport) -> Card:
    return Card(
        id=said.id,
        node_id=node_id,
        kind=said.kind,
        name=said.name,
        vram_gib=said.vram_gib,
        usable_gib=said.usable_gib,
        band=said.pinned or band_of(said.vram_gib, said.kind),
        compute_capability=said.compute_capability,
        models=frozenset(said.models),
        trouble=said.trouble,
        driver=said.driver,
        pcie=said.pcie,
        bus_gb_s=said.bus_gb_s,
        ram_gib=said.ram_gib,
        notice=said.notice,
        kept=said.kept,
        others_gib=said.others_gib,
        facts=said.facts,
        coming=said.coming,
        tags=frozenset(said.tags),
    )
