"""The files that `farm simulate` reads: a fleet of cards, and the jobs that come to it. YAML, checked entry by entry."""

import random
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from farm.catalogue.models import ModelRow
from farm.catalogue.presets import presets
from farm.catalogue.rules import bus_gb_s
from farm.errors import BadInputError, BadSettingsError
from farm.hours import Hours, parse_hours
from farm.model import Card, CardKind, Job, JobStatus, Tier
from farm.planning.eligibility import TiersMode
from farm.planning.foresee import imagined_card
from farm.planning.tiers import tier_of
from farm.submit import parse_settings

File = TypeVar("File", bound=BaseModel)

MOST_CARDS = 5_000
MOST_JOBS = 500_000
"""More than that is a slip of the pen, and takes hours."""
MIXED = (("preview", 0.7), ("standard", 0.2), ("quality", 0.1))
"""What comes with `--poisson`: presets and their shares."""


@dataclass(frozen=True, slots=True)
class SimulatedCard:
    """A card with what only a simulation must be told: its hours, how often it fails, and its speed over the catalogue's."""

    card: Card
    hours: Hours | None = None
    mtbf_s: float | None = None
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A job, when it comes (`job.created_at`, seconds from the start), and the class by which waits are told: its preset, or its model."""

    job: Job
    kind: str
    batch: str | None = None


@dataclass(frozen=True, slots=True)
class Fleet:
    """The cards of a fleet file, and its rule of tiers where it names one."""

    cards: tuple[SimulatedCard, ...]
    tiers: TiersMode | None = None


def _hours(text: str | None) -> str | None:
    if text is not None:
        parse_hours(text)
    return text


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class CardEntry(_Entry):
    """A row of `cards`: `model` of the catalogue, or "cpu"; `vram_gb` where the name alone is not clear."""

    model: str
    vram_gb: float | None = Field(None, gt=0)
    count: int = Field(1, ge=1, le=MOST_CARDS)
    node: str | None = None
    ram_gib: float | None = Field(None, gt=0)
    pcie: str | None = Field(None, pattern=r"^[1-6]x(1|2|4|8|16)$")
    hours: Annotated[str | None, AfterValidator(_hours)] = None
    mtbf_h: float | None = Field(None, gt=0)
    speed: float = Field(1.0, gt=0, le=1000)


class FleetFile(_Entry):
    """A fleet file."""

    cards: list[CardEntry] = Field(min_length=1)
    tiers: TiersMode | None = None


class JobEntry(_Entry):
    """A row of `jobs`: a preset or settings of one's own, how many, from when on, how far apart, by whom, how urgent, of which batch."""

    preset: str | None = None
    model: str | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    steps: int | None = None
    guidance: float | None = None
    count: int = Field(1, ge=1, le=MOST_JOBS)
    at_s: float = Field(0.0, ge=0)
    every_s: float = Field(0.0, ge=0)
    user: str = ""
    priority: int = Field(0, ge=-1000, le=1000)
    batch: str | None = None
    anywhere: bool = False


class JobsFile(_Entry):
    """A jobs file."""

    jobs: list[JobEntry] = Field(min_length=1)


def read_fleet(path: Path, models: Mapping[str, ModelRow]) -> Fleet:
    """The fleet of a file.

    Raises:
        BadInputError: no such file, not YAML, an entry that cannot be used, a card that the catalogue does not have.
    """
    file = _checked(path, FleetFile, "fleet", 'cards: [{model: "RTX 3060", count: 4}]')
    if sum(entry.count for entry in file.cards) > MOST_CARDS:
        raise BadInputError("fleet", f"{path} has more than {MOST_CARDS} cards.", "Simulate fewer.")
    cards: list[SimulatedCard] = []
    for number, entry in enumerate(file.cards):
        try:
            base = _card(entry, models)
        except BadInputError as error:
            raise BadInputError(
                "fleet", f"{path}: cards.{number}.model: {error.message}", error.remedy
            ) from error
        for _ in range(entry.count):
            index = len(cards)
            card = replace(base, id=f"{base.name} #{index}", node_id=entry.node or f"pc{index}")
            hours = parse_hours(entry.hours) if entry.hours else None
            mtbf_s = entry.mtbf_h * 3600 if entry.mtbf_h else None
            cards.append(SimulatedCard(card, hours, mtbf_s, entry.speed))
    on = Counter(one.card.node_id for one in cards)
    shared = (replace(one, card=_sharing(one.card, on[one.card.node_id])) for one in cards)
    return Fleet(tuple(shared), file.tiers)


def _sharing(card: Card, number: int) -> Card:
    """The card with its share of the memory of a PC that has `number` of them, as a node reports it."""
    return card if card.ram_gib is None else replace(card, ram_gib=card.ram_gib / number)


def _card(entry: CardEntry, models: Mapping[str, ModelRow]) -> Card:
    if entry.model.strip().lower() == "cpu":
        here = frozenset(name for name, row in models.items() if "cpu" in row.devices)
        return Card("", "", CardKind.CPU, "CPU", band=Tier.POST, models=here, ram_gib=entry.ram_gib)
    card = imagined_card(entry.model, entry.vram_gb, models)
    link = re.fullmatch(r"(\d)x(\d+)", entry.pcie or "")
    bus = bus_gb_s(int(link[1]), int(link[2])) if link else card.bus_gb_s
    return replace(card, ram_gib=entry.ram_gib, bus_gb_s=bus)


def read_jobs(path: Path, models: Mapping[str, ModelRow]) -> list[Arrival]:
    """The jobs of a file, in the order in which they come.

    Raises:
        BadInputError: no such file, not YAML, an entry that cannot be used, settings that the farm would refuse.
    """
    file = _checked(path, JobsFile, "jobs", "jobs: [{preset: preview, count: 500, every_s: 2}]")
    if sum(entry.count for entry in file.jobs) > MOST_JOBS:
        raise BadInputError("jobs", f"{path} has more than {MOST_JOBS} jobs.", "Simulate fewer.")
    found: list[Arrival] = []
    for number, entry in enumerate(file.jobs):
        try:
            found += _arrivals(entry, models)
        except BadSettingsError as error:
            raise BadInputError(
                "jobs", f"{path}: jobs.{number}: {error.message}", error.errors[0].remedy
            ) from error
    return in_order(found)


def _arrivals(entry: JobEntry, models: Mapping[str, ModelRow]) -> list[Arrival]:
    names = ("preset", "model", "width", "height", "frames", "steps", "guidance")
    given = {name: value for name in names if (value := getattr(entry, name)) is not None}
    submission = parse_settings(
        {**given, "prompt": "simulated"},
        models=models,
        presets={name: one for name, one in presets().items() if one.model in models},
        default_preset="preview",
        random_seed=0,
        to_render=False,
    )
    settings = submission.settings
    base = Job(
        "",
        JobStatus.QUEUED,
        settings,
        tier_of(settings),
        "",
        0.0,
        preset=entry.preset,
        priority=entry.priority,
        anywhere=entry.anywhere,
        submitted_by=entry.user,
        draft=models[settings.model].draft,
    )
    kind = entry.preset or entry.model or "preview"
    return [
        Arrival(replace(base, created_at=entry.at_s + index * entry.every_s), kind, entry.batch)
        for index in range(entry.count)
    ]


def in_order(arrivals: list[Arrival]) -> list[Arrival]:
    """By time, those of one moment as they stand, each under an id of its own."""
    ordered = sorted(arrivals, key=lambda one: one.job.created_at)
    return [replace(one, job=replace(one.job, id=f"J{index:06d}")) for index, one in enumerate(ordered)]


def poisson(per_hour: float, count: int, seed: int, models: Mapping[str, ModelRow]) -> list[Arrival]:
    """So many jobs that come by chance, so many an hour on average: `MIXED` presets, each by itself.

    Raises:
        BadInputError: a rate or a count that is not above zero.
    """
    if not 0 < per_hour < 1e7:
        raise BadInputError(
            "poisson", "--poisson is jobs per hour, and above 0.", "For example --poisson 60."
        )
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    kinds = {name: _arrivals(JobEntry(preset=name), models)[0] for name, _ in MIXED}
    at, found = 0.0, []
    for _ in range(count):
        at += chance.expovariate(per_hour / 3600)
        name = chance.choices([name for name, _ in MIXED], [share for _, share in MIXED])[0]
        one = kinds[name]
        found.append(replace(one, job=replace(one.job, created_at=at)))
    return in_order(found)


def _checked(path: Path, shape: type[File], field: str, example: str) -> File:
    remedy = f"A file looks like this: {example}"
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInputError(
            field, f"Cannot read {path}: {error.strerror}.", "Name a file that is there."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise BadInputError(field, f"{path} is not YAML: {what}.", remedy) from error
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise BadInputError(field, f"{path}: {where}: {first['msg']}{more}.", remedy) from error
    except BadInputError as error:  # hours, which say themselves what is wrong
        raise BadInputError(field, f"{path}: {error.message}", error.remedy) from error
