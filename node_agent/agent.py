"""The node agent: a detached Ray actor, one per PC. Says what the PC has, keeps one card worker per card, and replays the spool."""

import logging
import os
import platform
import threading
import time
from dataclasses import replace
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from farm.build import build
from farm.catalogue.models import ModelRow, load_models
from farm.clock import SystemClock
from farm.events import to_dict
from farm.model import CardKind
from farm.own_bench import BenchResult
from farm.settings import DataDirectory, FarmSettings
from farm.tls import CA_FILE
from farm.weights import Shelf
from farm.wire import CardReport, NodeReport, worker_name
from node_agent import probe
from node_agent.benched import Benched
from node_agent.card_process import card_environment
from node_agent.fetcher import Fetcher, allowed_pace
from node_agent.guard import Guard, Senses, WorkerSeen
from node_agent.head_shelf import HeadShelf
from node_agent.identity import load_identity
from node_agent.join import Membership
from node_agent.look import readings
from node_agent.nvml import Held
from node_agent.presence import CpuShare, FarmProcesses, at_keyboard, processor_times
from node_agent.rest import Rests
from node_agent.spool import Spool
from node_agent.standing import Standing, WorkerWord, with_coming
from node_agent.telling import Telling
from node_agent.wanted import wanted_models
from node_agent.worker import CardWorkerActor, node_home, spool_root

_ray: Any = ray  # some of its functions have no types
log = logging.getLogger(__name__)

CONCURRENCY = {"io": 4, "telling": 2}
"""Threads of the agent, by what they do. A question that a killed head has left waits in one while its successor asks in the other."""
PROBE_EVERY_S = 10.0
"""Reading the cards takes milliseconds and files of weights may come and go; more often would only warm the PC."""
WAY_S = 5.0
"""How long a question about a worker that is driven off its card waits for that to end; it takes less than 2 s."""
WAKE_S = 20.0
"""How long a worker that was woken has to answer: it takes a second or two, and an old PC that is busy far longer."""
STATE_TIMEOUT_S = 3.0
"""How long a worker that starts or loads may keep its state to itself; the head's lease judges whether it is stuck."""


class NodeAgent:
    """What the head speaks to on each PC."""

    def __init__(self) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
        home = node_home()
        self._identity = load_identity(home)
        self._spool = Spool(spool_root(home))
        settings = FarmSettings()
        self._models = load_models(settings.models_file)
        self._workers: dict[str, ActorHandle[Any]] = {}
        self._standings: dict[str, Standing] = {}
        self._failed: set[str] = set()
        self._rests = Rests()
        self._resting: set[str] = set()
        self._asked_to_rest: dict[str, tuple[ActorHandle[Any], Any]] = {}
        """Workers that were asked whether they may rest, each with the answer that is awaited."""
        self._wake_s = WAKE_S
        self._cards: tuple[CardReport, ...] = ()
        self._probed = float("-inf")
        self._bench: tuple[BenchResult, ...] = ()
        self._nvml = Held()
        senses = Senses(
            readings, at_keyboard, CpuShare(processor_times, time.monotonic).of_others, FarmProcesses()
        )
        self._guard = Guard(home, self._spool, senses, self, SystemClock())
        self._guard.watch()
        self._looking = threading.Lock()
        self._telling = Telling(self._look, SystemClock())
        self._home = home
        # Where `farm bench` writes: the directory of who runs it, or the one that was named.
        self._benched = Benched(
            [DataDirectory(place).bench_results for place in (settings.data, home, home.parent)]
        )
        self._shelf = Shelf(settings.shelf)
        self._fetch_limit = settings.fetch_mib_s * 2**20 or None
        self._at_work = False
        self._fetcher = Fetcher(
            self._shelf, self._head_shelf, self._wanted, self._pace, self._look_again, self._models.keys()
        )
        self._fetcher.watch()

    @ray.method(concurrency_group="telling")
    def report(self, known: str, hold_s: float) -> dict[str, Any]:
        """What this PC has, as `farm.news.Told`; at once if the head knows something else by the mark `known` (`node_agent.telling`)."""
        return self._telling.answer(known, hold_s)

    def _look(self) -> NodeReport:
        """What this PC has now, with a worker started for each card that had none."""
        with self._looking:
            return self._seen()

    def _seen(self) -> NodeReport:
        # Before the probe: a model that has just come is told of as coming or as here, never as neither.
        coming = self._fetcher.coming
        if time.monotonic() - self._probed > PROBE_EVERY_S:
            self._probe()
            self._bench = self._benched.of(self._cards)
        self._guard.guard([card.id for card in self._cards])
        self._let_rest()
        cards = tuple(with_coming(card, coming) for card in self._ask_workers(self._cards))
        self._at_work = any(card.attempt_id is not None for card in cards)
        ram_gib, ram_free_gib = probe.ram()
        return NodeReport(
            node_id=self._identity.node_id,
            name=self._identity.name,
            address=str(_ray.util.get_node_ip_address()),
            at=time.time(),
            versions={
                "farm": build(),
                "ray": ray.__version__,
                "python": platform.python_version(),
            },
            cards=cards,
            spooled=self._spool.attempts(),
            ram_gib=ram_gib,
            ram_free_gib=ram_free_gib,
            bench=self._bench,
            owner_rules=str(self._guard.rules),
        )

    def _probe(self) -> None:
        self._probed = time.monotonic()  # from its beginning on: what comes meanwhile is seen by the next
        found = probe.cards(self._identity.node_id, self._models)
        if len(found) < len(self._cards) or any(card.kind == CardKind.CPU for card in found):
            self._nvml.again()  # a driver that came later, or a card that is back, is seen by a fresh start only
        allowed = self._guard.rules.cards
        self._cards = probe.sharing([card for card in found if not allowed or card.id in allowed])

    # --- what the fetcher asks, from its own thread ---
    def _head_shelf(self) -> HeadShelf | None:
        """The head's models; None on the head's own PC, which is no member and reads them where they lie."""
        member = Membership.load(self._home)
        return None if member is None else HeadShelf(member.head, member.node_token, self._home / CA_FILE)

    def _wanted(self) -> dict[str, ModelRow]:
        return wanted_models(self._models, self._cards, self._shelf)

    def _look_again(self) -> None:
        self._probed = float("-inf")

    def _pace(self) -> float | None:
        kept = [self._guard.kept(card.id) is not None for card in self._cards]
        return allowed_pace(kept, at_work=self._at_work, limit=self._fetch_limit)

    def _ask_workers(self, cards: tuple[CardReport, ...]) -> tuple[CardReport, ...]:
        """The cards, with what their workers say. Asks all at once, so that several slow ones take no longer than one."""
        asked: dict[str, Any] = {}
        for card in cards:
            worker = self._worker_of(card)
            if worker is not None:
                asked[card.id] = worker.state.remote()
        if asked:
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=STATE_TIMEOUT_S)
        return tuple(self._beside_its_owner(card, asked.get(card.id)) for card in cards)

    def _worker_of(self, card: CardReport) -> ActorHandle[Any] | None:
        """The card's worker, a fresh one if there was none; None while its owner has the card."""
        if card.id not in self._workers and card.id not in self._resting and self._may_work(card.id):
            self._workers[card.id] = self._start_worker(card)
        return self._workers.get(card.id)

    def _may_work(self, card_id: str) -> bool:
        kept = self._guard.kept(card_id)
        return kept is None or not kept.at_once

    def _beside_its_owner(self, card: CardReport, answer: Any | None) -> CardReport:
        """The card's report, with what its owner leaves of it."""
        # A card without a worker waits for nothing of ours: it is tested by the worker that starts when its owner is gone.
        if answer is not None:
            heard = self._heard(card, answer)
        elif card.id in self._resting:
            heard = self._standings[card.id].of(card)
        else:
            heard = replace(card, tested=True)
        kept, others = self._guard.kept(card.id), self._guard.others_gib(card.id)
        usable = heard.usable_gib
        if usable is not None and others:
            usable = round(max(0.0, usable - others), 2)
        return replace(
            heard,
            usable_gib=usable,
            others_gib=others,
            kept=kept.why if kept is not None else None,
            vitals=self._guard.vitals(card.id) or card.vitals,
            tags=self._guard.rules.tags,
            pinned=self._guard.rules.tier,
        )

    def _heard(self, card: CardReport, answer: Any) -> CardReport:
        standing, now = self._standings.setdefault(card.id, Standing()), time.monotonic()
        try:
            word = WorkerWord.of(ray.get(answer, timeout=0))
        except GetTimeoutError:  # starting, or stuck: the head counts how long
            return replace(standing.of(card), answers=False)
        except RayActorError:
            standing.hear(None, now)
            self._workers.pop(card.id, None)
            if not self._may_work(card.id):
                return replace(card, tested=True)
            log.warning("the worker of %s died, starting another", card.name)
            self._workers[card.id] = self._start_worker(card)
            return replace(standing.of(card), answers=False)
        standing.hear(word, now)
        idle = word.attempt_id is None and word.tested and word.trouble is None
        self._rests.hear(card.id, now, idle=idle)
        if word.tested and word.trouble is None:
            self._failed.discard(card.id)
        report = replace(standing.of(card), attempt_id=word.attempt_id)
        if standing.shall_retest(now):
            log.info("testing %s again", card.name)
            self._failed.add(card.id)
            self._end_worker(card.id)  # the card stays in trouble until the fresh worker says otherwise
        return report

    def _let_rest(self) -> None:
        """Ends workers that have had nothing to do for a while, where there are many; see `node_agent.rest`."""
        now = time.monotonic()
        fresh: dict[str, tuple[ActorHandle[Any], Any]] = {}
        for card_id in self._rests.due(self._workers, now):
            if card_id not in self._asked_to_rest:
                asked: Any = self._workers[card_id]
                fresh[card_id] = asked, asked.rest.remote()
        if fresh:
            answers = [answer for _, answer in fresh.values()]
            ray.wait(answers, num_returns=len(answers), timeout=STATE_TIMEOUT_S)
        self._asked_to_rest |= fresh
        for card_id, (worker, answer) in list(self._asked_to_rest.items()):
            try:
                rests = ray.get(answer, timeout=0)
            except GetTimeoutError:
                # Asked no second time: once it says yes it takes no work, and only this answer tells.
                continue
            except RayActorError:  # the report finds out what it is
                rests = False
            del self._asked_to_rest[card_id]
            if self._workers.get(card_id) is not worker:
                continue
            if not rests:
                self._rests.stays(card_id, now)
                continue
            self._resting.add(card_id)
            self._workers.pop(card_id, None)
            ray.kill(worker, no_restart=True)
            self._standings[card_id].rest()
            self._rests.hear(card_id, now, idle=False)

    @ray.method(concurrency_group="io")
    def wake(self, card_id: str) -> bool:
        """Starts the worker of a card whose worker rests, and waits a while for it; False where none rests or the owner has the card.

        One that starts for longer, on a busy PC, is there all the same: who asks it something waits for it, and the report counts how long.
        """
        card = next((one for one in self._cards if one.id == card_id), None)
        if card is None or card_id not in self._resting or not self._may_work(card_id):
            return False
        end = time.monotonic() + WAKE_S
        while True:
            worker = self._start_worker(card)
            try:
                said: Any = worker.state.remote()
                word = WorkerWord.of(ray.get(said, timeout=self._wake_s))
                self._standings[card_id].hear(word, time.monotonic())
                break
            except RayActorError:  # for a moment Ray still finds the one that was ended
                if time.monotonic() > end:
                    return False
                time.sleep(0.1)
            except GetTimeoutError:
                break
        self._workers[card_id] = worker
        self._resting.discard(card_id)
        return True

    def replace_worker(self, card_id: str) -> None:
        """Ends a card's worker, whatever it is at. The next report starts another, which tests the card before it gets work."""
        with self._looking:  # a look that runs meanwhile would hear the worker that is being ended
            self._failed.add(card_id)
            log.warning("the worker of %s is replaced, as the head asked", card_id)
            self._end_worker(card_id)

    # --- what the guard does to workers, from its own thread ---
    def worker(self, card_id: str) -> WorkerSeen | None:
        """See `node_agent.guard.Hands`."""
        if card_id not in self._workers:
            return None
        standing = self._standings.get(card_id)
        word = standing.word if standing is not None else None
        return WorkerSeen() if word is None else WorkerSeen(word.pid, word.held_gib)

    def ask_way(self, card_id: str, told: str) -> None:
        """See `node_agent.guard.Hands`."""
        worker = self._workers.get(card_id)
        if worker is not None:
            worker.make_way.remote(told)

    def gone(self, card_id: str) -> None:
        """See `node_agent.guard.Hands`."""
        self._end_worker(card_id)

    def _end_worker(self, card_id: str) -> None:
        worker = self._workers.pop(card_id, None)
        if worker is not None:
            ray.kill(worker, no_restart=True)
        if worker is not None or card_id in self._resting:
            self._resting.discard(card_id)
            self._standings.setdefault(card_id, Standing()).renew()

    def _start_worker(self, card: CardReport) -> ActorHandle[Any]:
        environment = card_environment(card.id if card.kind == CardKind.CUDA else "")
        ray_node_id = ray.get_runtime_context().get_node_id()
        here = NodeAffinitySchedulingStrategy(ray_node_id, soft=False)
        worker: ActorHandle[Any] = CardWorkerActor.options(
            name=worker_name(card.id, ray_node_id),
            namespace="farm",
            lifetime="detached",
            get_if_exists=True,
            scheduling_strategy=here,
            runtime_env={"env_vars": environment},
        ).remote(
            card.id,
            card.kind,
            card.name,
            card.driver,
            card.compute_capability,
            again=card.id in self._failed,
            known=card.id in self._resting,
        )
        return worker

    @ray.method(concurrency_group="io")
    def replay(self, attempt_id: str, after: int) -> list[dict[str, Any]]:
        """Spooled events of an attempt above number `after`, for when its worker is gone."""
        self._guard.way_is_made(
            WAY_S
        )  # the worker may just be driven off its card: its attempt is about to get its last word
        return [to_dict(event) for event in self._spool.events(attempt_id, after)]

    @ray.method(concurrency_group="io")
    def read(self, attempt_id: str, name: str) -> bytes:
        """A file of an attempt's spool."""
        return self._spool.read(attempt_id, name)

    @ray.method(concurrency_group="io")
    def forget(self, attempt_ids: list[str]) -> None:
        """Removes attempts from the spool that the head is done with."""
        for attempt_id in attempt_ids:
            self._spool.forget(attempt_id)

    @ray.method(concurrency_group="io")
    def pid(self) -> int:
        """This process's id."""
        return os.getpid()


NodeAgentActor: Any = _ray.remote(
    num_cpus=0, max_restarts=0, max_task_retries=0, concurrency_groups=CONCURRENCY
)(NodeAgent)
