"""How often the interval of a prediction holds: made-up histories of cards, through the farm's own learning."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.record import record
from farm.planning.calibration import Calibration, Foretold, calibration
from farm.planning.learned import LAST, Lesson, learn
from farm.planning.queue import Pace, Waiting, forecast

CARDS = 1500
RENDERS = 20
SEED = 4711
LEAST = 0.7
"""What the share within the 80 % interval must be at least, in each row that the law's assumptions hold for."""

FARMS = 400
POSITIONS = (1, 10, 50, 200)
QUEUES = (
    ("their data sheets", 8, 0.54, 0.2),
    ("some renders", 8, 0.08, 0.15),
    ("their data sheets", 1, 0.54, 0.2),
    ("some renders", 1, 0.08, 0.15),
)
"""What is known, how many cards, and the standard deviations of the logarithm of card and render."""


@dataclass(frozen=True, slots=True)
class World:
    """How cards behave: `off` is the scatter of the logarithm of card against catalogue, `noise` of one render against the next.

    `outliers` is the share of renders that take 1.5 to 4 times as long; `drift` the factor by which a card grows slower from first to last
    render.
    """

    name: str
    off: float = 0.45
    noise: float = 0.1
    outliers: float = 0.0
    drift: float = 1.0
    must: bool = True


WORLDS = (
    World("steady cards, 3 % from one render to the next", noise=0.03),
    World("10 %", noise=0.1),
    World("25 %: other programs, hot days", noise=0.25),
    World("10 %, and every twentieth render takes 1.5 to 4 times as long", outliers=0.05),
    World("10 %, growing 1.5 times slower over the 20 renders", drift=1.5),
    World("10 %, data sheets off by more than the catalogue's law was seen to be", off=0.8, must=False),
)


def run(_root: Path) -> None:
    """Every world's share, after no render, one, three, and ten and more."""
    rows = []
    for world in WORLDS:
        by_age = judge(world)
        every = calibration(one for ages in by_age.values() for one in ages)
        rows.append(_line(world, by_age, every))
        if world.must and every.within is not None:
            assert every.within >= LEAST, f"{world.name}: {every.within:.0%}"
    queues = [_queue_line(*row) for row in QUEUES]
    record("intervals", _text(rows, queues), where="*Computed from a fixed seed: the same on every PC.*")


def judge(world: World, seed: int = SEED) -> dict[int, list[Foretold]]:
    """What was foretold and what came, by how many renders the card had then."""
    rng = random.Random(seed)  # noqa: S311 - made-up histories
    found: dict[int, list[Foretold]] = {age: [] for age in range(RENDERS)}
    for _ in range(CARDS):
        for age, one in enumerate(_history(world, rng)):
            found[age].append(one)
    return found


def _history(world: World, rng: random.Random) -> list[Foretold]:
    catalogue_s = 100.0
    truth = math.exp(rng.gauss(0, world.off))
    lessons: list[Lesson] = []
    told = []
    for number in range(RENDERS):
        learned = learn(lessons[:LAST])
        ratio = truth * math.exp(rng.gauss(0, world.noise)) * world.drift ** (number / (RENDERS - 1))
        if rng.random() < world.outliers:
            ratio *= rng.uniform(1.5, 4.0)
        told.append(Foretold(learned.span(catalogue_s * learned.seconds), catalogue_s * ratio))
        lessons.insert(0, Lesson(seconds=ratio))
    return told


def _line(world: World, by_age: dict[int, list[Foretold]], every: Calibration) -> str:
    ages: tuple[Callable[[int], bool], ...] = (
        lambda age: age == 0,
        lambda age: age == 1,
        lambda age: age == 3,
        lambda age: age >= 10,
    )
    parts = [
        calibration(one for age, ones in by_age.items() if wanted(age) for one in ones) for wanted in ages
    ]
    shares = " | ".join(f"{part.within:.0%}" for part in parts)
    widths = f"{_width(by_age[0]):.0%}, {_width(by_age[RENDERS - 1]):.0%}"
    return f"| {world.name} | {shares} | **{every.within:.0%}** | {widths} | {every.median_error:.0%} |"


def _width(told: list[Foretold]) -> float:
    return median(one.span.high / one.span.likely - 1 for one in told)


def judge_queue(cards: int, of_card: float, of_render: float, seed: int = SEED) -> dict[int, list[Foretold]]:
    """What was foretold of each position of a full queue, and when it was done: cards of unlike speed take jobs as they become free.

    As the policy does, a job waits for the card that is foretold to have it done first, from when that card really is free.
    """
    rng = random.Random(seed)  # noqa: S311 - made-up farms
    found: dict[int, list[Foretold]] = {position: [] for position in POSITIONS}
    for _ in range(FARMS):
        pace = {f"card {n}": Pace(rng.uniform(60, 400), of_card, of_render) for n in range(cards)}
        truth = {card: math.exp(rng.gauss(0, of_card)) for card in pace}
        free = dict.fromkeys(pace, 0.0)
        queue = [Waiting(str(n), "clip") for n in range(POSITIONS[-1])]
        told = forecast(queue, dict.fromkeys(pace, Pace(0.0)), {"clip": pace}).places
        for place in told:
            card = min(free, key=lambda one: free[one] + pace[one].seconds)
            free[card] += pace[card].seconds * truth[card] * math.exp(rng.gauss(0, of_render))
            if place.position in found and place.done is not None:
                found[place.position].append(Foretold(place.done, free[card]))
    return found


def _queue_line(name: str, cards: int, of_card: float, of_render: float) -> str:
    by_position = judge_queue(cards, of_card, of_render)
    shares = [calibration(told) for told in by_position.values()]
    for one in shares:
        assert one.within is not None
        assert one.within >= LEAST, f"{name}: {one.within:.0%}"
    told = " | ".join(f"{one.within:.0%}" for one in shares)
    return f"| {name} | {cards} | {told} | {shares[-1].median_error:.0%} |"


def _text(rows: list[str], queues: list[str]) -> str:
    lines, waits = "\n".join(rows), "\n".join(queues)
    positions = " | ".join(f"position {position}" for position in POSITIONS)
    return f"""## How often the interval of a prediction holds

Seconds are told with an interval that should hold the truth in 80 % of the cases. Made-up histories of {CARDS} cards with {RENDERS}
renders each, log-normal about the catalogue, go through the farm's own learning (`benchmarks/intervals.py`). Must: at least
{LEAST:.0%} in every row but the last, whose cards are further off than the law assumes. A running farm measures the same of its
own renders: `GET /api/v1/stats/calibration`. Width: how far the interval reaches up from the likely seconds, in the middle case.

| cards | before the first render | after 1 | after 3 | after 10 and more | all | width before and after 10 | median error |
|---|---|---|---|---|---|---|---|
{lines}

The same of the time at which a waiting job is done, told when {POSITIONS[-1]} jobs wait for cards of 60 to 400 s each, in {FARMS} made-up
farms (`farm/planning/queue.py`). Must: at least {LEAST:.0%} everywhere.

| what is known of the cards | cards | {positions} | median error of the last |
|---|---|{"---|" * len(POSITIONS)}---|
{waits}"""
