"""May this job run on this card, and if not, why: a chain of small filters, each with a sentence. Pure.

A filter takes the job, the card and a view of the farm and gives None or a reason. A job may run where no
filter objects. What is judged is the stage that the job is at: only the first one needs the model. Whether
a card is free, and which of several takes the job, is the scheduler's to say.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from farm.catalogue.interpolators import interpolator
from farm.catalogue.models import ModelRow
from farm.model import Card, CardKind, Coming, Job, MemoryPlan, StageKind, Tier
from farm.planning.estimate import room_of, steps_and_rest
from farm.planning.interpolation import interpolation_seconds
from farm.planning.learned import UNLEARNED, Learned, learned_for
from farm.planning.memory import CONTEXT_GIB, Room, peak_gib
from farm.planning.plans import best_plan, smallest_peak_gib
from farm.planning.rules import precision_for
from farm.planning.tiers import tier_now

TiersMode = Literal["soft", "strict", "off"]


@dataclass(frozen=True, slots=True)
class FarmView:
    """What the filters must know beside the job and the card.

    `models` is the catalogue; `tiers` the farm's setting; `bands` those that have an enabled card (`bands_of`); `failed`
    the cards on which each job (by id) has failed and is not to be tried again; `learned` what attempts have
    taught about a card (by id) and a model. `resting` says of cards and PCs (by id) that take no work for now why: "is drained", "is paused
    by its owner", "works from 22:00 to 08:00".
    """

    models: Mapping[str, ModelRow]
    tiers: TiersMode = "soft"
    bands: frozenset[Tier] = frozenset()
    failed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    learned: Mapping[tuple[str, str], Learned] = field(default_factory=dict)
    resting: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be said of a job on a card.

    `plan` is the fastest memory plan that fits, also where something else speaks against the card; `seconds`
    is the prediction with that plan, or with the fastest plan where none fits: the catalogue's, and what was
    learned of the card. `peak_gib` is that of `plan`, None without one or where no GPU memory is needed. `able`: nothing lasting speaks
    against it, only what passes, such as a drained PC.
    """

    eligible: bool
    reasons: tuple[str, ...]
    plan: MemoryPlan | None
    seconds: float
    peak_gib: float | None = None
    able: bool = False


Filter = Callable[[Job, Card, FarmView], str | None]


def bands_of(cards: Iterable[Card]) -> frozenset[Tier]:
    """The bands that these cards make up, but for those in trouble, for which no work needs to wait.

    A CPU is a card for post work as any other; it runs drafts in every band.
    """
    return frozenset(card.band for card in cards if card.trouble is None)


def model_known(job: Job, _card: Card, view: FarmView) -> str | None:
    """The catalogue has the job's model."""
    model = job.settings.model
    return None if model in view.models else f"the farm knows no model called {model}"


def model_on_node(job: Job, card: Card, _view: FarmView) -> str | None:
    """The weights (or for `animatic` the code) are on the card's PC, or on their way there."""
    model = job.settings.model
    coming = _coming(job, card)
    if model in card.models or (coming is not None and coming.trouble is None):
        return None
    if coming is not None and coming.trouble is not None:
        which = "used on" if coming.damaged else "fetched to"
        return f"{model} cannot be {which} the PC of {card.name}: {coming.trouble.rstrip('.')}"
    return f"{model} is not installed on the PC of {card.name}"


def model_has_come(job: Job, card: Card, _view: FarmView) -> str | None:
    """The weights are not still on their way to the card's PC."""
    model, coming = job.settings.model, _coming(job, card)
    if model in card.models or coming is None or coming.trouble is not None:
        return None
    return f"{card.name} is still without {model}: it is being fetched to its PC ({coming.percent} %)"


def _coming(job: Job, card: Card) -> Coming | None:
    return next((one for one in card.coming if one.model == job.settings.model), None)


def device_allowed(job: Job, card: Card, view: FarmView) -> str | None:
    """The model runs on this kind of card."""
    row = view.models.get(job.settings.model)
    if row is None or card.kind.value in row.devices:
        return None
    return (
        f"{row.name} needs a GPU, {card.name} is a CPU"
        if card.kind is CardKind.CPU
        else f"{row.name} needs a CPU"
    )


def memory_fits(job: Job, card: Card, view: FarmView) -> str | None:
    """Some memory plan fits into what the card has for us when its owner is away, if its PC can hold the rest."""
    card = without_its_owner(card)
    row = view.models.get(job.settings.model)
    if row is None or _plan(job, replace(card, ram_gib=None), row, view) is not None:
        return None
    precision = precision_for(card)
    least = smallest_peak_gib(row, job.settings, precision) * _learned(job, card, view).peak
    need = f"needs {least:.1f} GiB{' in single precision' if precision == 'fp32' else ''}"
    if card.usable_gib is None:
        return f"{need}, and the memory of {card.name} is not known yet"
    return f"{need}, {card.name} has {card.usable_gib:.1f} usable"


def host_memory_fits(job: Job, card: Card, view: FarmView) -> str | None:
    """The PC's memory holds the weights that the card cannot: they stream from there."""
    card = without_its_owner(card)
    row = view.models.get(job.settings.model)
    if row is None or card.ram_gib is None or _plan(job, card, row, view) is not None:
        return None
    if memory_fits(job, card, view) is not None:
        return None
    spare = room_of(row, card, 0.0).ram_gib or 0.0
    return (
        f"its PC has {spare:.1f} GiB of memory to spare for it (of {card.ram_gib:.1f}), too little for the weights that {card.name} "
        "cannot hold"
    )


def band_fits(job: Job, card: Card, view: FarmView) -> str | None:
    """The farm keeps this card for work of this tier.

    Drafts cost no card anything worth keeping, and run in every band. `soft` lets preview work onto quality
    cards (when, is the scheduler's to say) and lets all cards take a job for whose band there is none.
    """
    row = view.models.get(job.settings.model)
    tier = tier_now(job)
    if view.tiers == "off" or job.anywhere or (row is not None and row.draft) or card.band is tier:
        return None
    if view.tiers == "soft":
        if tier is Tier.PREVIEW and card.band is Tier.QUALITY:
            return None
        if tier not in view.bands:
            return None
    return f"it is {tier} work, {card.name} is kept for {card.band} work"


def tags_match(job: Job, card: Card, _view: FarmView) -> str | None:
    """The card's PC has the tags that the job asks for."""
    missing = [tag for tag in job.needs if tag not in card.tags]
    if not missing:
        return None
    return f"it needs a PC with the tag{'s' if len(missing) > 1 else ''} {', '.join(missing)}, that of {card.name} has not"


def not_failed_here(job: Job, card: Card, view: FarmView) -> str | None:
    """The job has not failed on this card before."""
    return f"it failed on {card.name} before" if card.id in view.failed.get(job.id, frozenset()) else None


def not_resting(_job: Job, card: Card, view: FarmView) -> str | None:
    """Neither the card nor its PC was drained or paused, and its owner's hours are on."""
    why = view.resting.get(card.id) or view.resting.get(card.node_id)
    return f"{card.name} {why}" if why else None


def not_kept(_job: Job, card: Card, _view: FarmView) -> str | None:
    """Its owner does not want it just now."""
    return f"{card.name} is kept for its owner: {card.kept}" if card.kept is not None else None


def memory_is_left(job: Job, card: Card, view: FarmView) -> str | None:
    """Other programs leave enough of the card's memory for some plan."""
    row = view.models.get(job.settings.model)
    if row is None or not card.others_gib or job.stage is not StageKind.GENERATE:
        return None
    if _plan(job, card, row, view) is not None or memory_fits(job, card, view) is not None:
        return None
    return f"{card.name} has {card.usable_gib or 0.0:.1f} GiB usable while other programs hold {card.others_gib:.1f}"


LASTING: tuple[Filter, ...] = (
    model_known,
    device_allowed,
    model_on_node,
    memory_fits,
    host_memory_fits,
    band_fits,
    tags_match,
    not_failed_here,
)
"""What does not change by waiting, in the order in which a person should read it."""
PASSING: tuple[Filter, ...] = (not_resting, not_kept, model_has_come, memory_is_left)
"""What ends by itself, or when a person ends it: a job may wait for that."""
FILTERS: tuple[Filter, ...] = LASTING + PASSING

OF_THE_MODEL = frozenset(
    {model_known, device_allowed, model_on_node, model_has_come, memory_fits, host_memory_fits}
)
"""Filters that ask whether the card can run the model: only a job's first stage does. The later ones need neither weights nor the
memory of a card."""


def alike(card: Card) -> Card:
    """The card without what no filter reads: cards that agree in the rest are judged alike, save for what was learned of each."""
    return replace(
        card,
        id="",
        node_id="",
        last_seen=None,
        driver=None,
        pcie=None,
        facts=None,
        notice=None,
        trouble=None,
        paused=None,
    )


def check(job: Job, card: Card, view: FarmView) -> Verdict:
    """Asks every filter, so that all reasons are known at once."""
    generates = job.stage is StageKind.GENERATE
    lasting = _asked([ask for ask in LASTING if generates or ask not in OF_THE_MODEL], job, card, view)
    passing = _asked([ask for ask in PASSING if generates or ask not in OF_THE_MODEL], job, card, view)
    reasons = lasting + passing
    if not generates:
        pace = learned_for(view.learned, job, card.id).seconds
        took = interpolation_seconds(interpolator(), job.settings) * pace
        return Verdict(not reasons, reasons, MemoryPlan(), took, able=not lasting)
    row = view.models.get(job.settings.model)
    if row is None:
        return Verdict(False, reasons, None, 0.0)
    plan, learned = _plan(job, card, row, view), _learned(job, card, view)
    return Verdict(
        not reasons,
        reasons,
        plan,
        learned.whole(*steps_and_rest(row, card, job.settings, plan or MemoryPlan())),
        _peak_gib(job, card, row, plan, learned),
        able=not lasting,
    )


def _asked(filters: Iterable[Filter], job: Job, card: Card, view: FarmView) -> tuple[str, ...]:
    return tuple(reason for ask in filters if (reason := ask(job, card, view)) is not None)


def _peak_gib(job: Job, card: Card, row: ModelRow, plan: MemoryPlan | None, learned: Learned) -> float | None:
    if plan is None or row.memory is None or card.kind is CardKind.CPU:
        return None
    return peak_gib(row, job.settings, plan) * learned.peak


def _learned(job: Job, card: Card, view: FarmView) -> Learned:
    return view.learned.get((card.id, job.settings.model), UNLEARNED)


def _usable_gib(job: Job, card: Card, view: FarmView) -> float | None:
    """What the catalogue's law may fill: less where renders were seen to take more than it says."""
    return None if card.usable_gib is None else card.usable_gib / _learned(job, card, view).peak


def room_for(job: Job, card: Card, view: FarmView) -> Room | None:
    """What a plan for the job may take on the card, as far as it is known; None where nothing is planned."""
    row = view.models.get(job.settings.model)
    usable = _usable_gib(job, card, view)
    if row is None or row.memory is None or usable is None or card.kind is CardKind.CPU:
        return None
    return room_of(row, card, usable)


def _plan(job: Job, card: Card, row: ModelRow, view: FarmView) -> MemoryPlan | None:
    # The coefficients speak of GPUs; a CPU's memory is the PC's own, and offloading to itself saves nothing.
    if card.kind is CardKind.CPU:
        return MemoryPlan()
    usable = _usable_gib(job, card, view)
    if row.memory is not None and usable is None:
        return None
    found = best_plan(row, job.settings, room_of(row, card, usable or 0.0))
    return None if found is None else found.plan


def nearest(found: Iterable[tuple[Card, Verdict]]) -> tuple[Card, Verdict]:
    """The card that the fewest reasons speak against; of several the largest."""
    return min(found, key=lambda pair: (len(pair[1].reasons), -(pair[0].usable_gib or 0.0)))


def _nobody(job: Job, found: Sequence[tuple[Card, Verdict]], view: FarmView) -> str:
    card, verdict = nearest(found)
    reasons = "; ".join(verdict.reasons)
    return (
        f"No card can run it. The nearest is {card.name}: {reasons}. {what_helps(job, card, view)}".rstrip()
    )


def unplaceable(
    job: Job, cards: Iterable[Card], view: FarmView, judge: Callable[[Job, Card], Verdict] | None = None
) -> str | None:
    """Why no card could ever serve this job, or None if one could, or if there is no card yet.

    `cards` are all that the farm knows, also those that are away, busy, drained or kept for their owners: those may come back. `judge`
    is who remembers what `check` says with this view.
    """
    found: list[tuple[Card, Verdict]] = []
    for card in cards:
        verdict = judge(job, card) if judge is not None else check(job, card, view)
        if verdict.able:
            return None  # mostly one of the first: the others need not be asked
        found.append((card, verdict))
    return _nobody(job, found, view) if found else None


def without_its_owner(card: Card) -> Card:
    """The card as it is when its owner is away: the farm's, with all of its memory."""
    usable = card.usable_gib
    if usable is not None and card.others_gib:
        # Of a full card others may hold more than a render could ever have.
        whole = math.inf if usable or card.vram_gib is None else max(0.0, card.vram_gib - CONTEXT_GIB)
        usable = round(min(usable + card.others_gib, whole), 2)
    return replace(card, usable_gib=usable, others_gib=None, kept=None)


def what_helps(job: Job, card: Card, view: FarmView) -> str:
    """What to change so that the card would take the job; empty where nothing is known to help."""
    card = without_its_owner(card)
    if job.stage is not StageKind.GENERATE:
        return _what_helps_later(job, card, view)
    row = view.models.get(job.settings.model)
    if row is None:
        return "Add it to the farm's models file, or choose another model."
    advice = []
    if device_allowed(job, card, view):
        return "Choose the preset 'draft', or add a PC with an NVIDIA card."
    if model_on_node(job, card, view):
        coming, pull = _coming(job, card), f"run `farm models pull {row.name}` on the head"
        if coming is None:
            advice.append(pull)
        else:
            advice.append(
                f"mend that, or {pull}" if coming.damaged else "mend that, and the PC fetches it by itself"
            )
    usable = _usable_gib(job, card, view)
    if host_memory_fits(job, card, view):
        advice.append(
            f"give that PC more memory, or {_what_fits(job, row, room_of(row, card, usable or 0.0))}"
        )
    elif memory_fits(job, card, view) and usable is not None:
        advice.append(_what_fits(job, row, room_of(row, card, usable)))
    if band_fits(job, card, view):
        advice.append("submit it with `--anywhere`")
    if tags_match(job, card, view):
        advice.append(f"mark that PC with `farm join --tag {job.needs[0]}`")
    if not_failed_here(job, card, view):
        advice.append("look at the log of the failed attempt and retry the job")
    text = " and ".join(advice)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _what_helps_later(job: Job, card: Card, view: FarmView) -> str:
    """As `what_helps`, for a job whose clip is rendered and waits to be worked on."""
    if band_fits(job, card, view):
        return "Let a PC join that has a card under 8 GB or none: post work takes no more."
    if tags_match(job, card, view):
        return f"Mark a PC with `farm join --tag {job.needs[0]}`."
    if not_failed_here(job, card, view):
        return "Look at the log of the failed attempt and retry the job."
    return ""


def _what_fits(job: Job, row: ModelRow, room: Room) -> str:
    """What to ask for instead, so that it fits."""
    frames = _frames_that_fit(job, row, room)
    if frames > 1:  # one would be no clip
        return f"ask for {frames} frames at {job.settings.width} x {job.settings.height}"
    side = row.limits.min_side
    smallest = replace(job.settings, frames=1, width=side, height=side)
    if best_plan(row, smallest, room) is None:
        return f"choose a smaller model: no size of {row.name} fits"
    return "ask for a smaller size or a smaller model"


def _frames_that_fit(job: Job, row: ModelRow, room: Room) -> int:
    """The most frames that fit at the job's size, 0 if not even one does."""
    low, high = 0, job.settings.frames
    while low < high:
        middle = (low + high + 1) // 2
        if best_plan(row, replace(job.settings, frames=middle), room) is None:
            high = middle - 1
        else:
            low = middle
    return low
