"""What a render would come to on each card before any job runs: does it fit, which plan, how much memory, how long. Pure.

The verdict is `farm.planning.eligibility`'s, the very one by which the scheduler places jobs.

The interval of the peak: the law is within 3 % of what torch hands out, and the allocator was seen to reserve 1.03 to 1.28 times of it
besides the weights (`farm.planning.memory.peak_range_gib`). It never ends above what the card has usable: near that the
allocator gives back what it keeps before it fails. The interval of the seconds is `Learned.span`'s.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from farm.answers.forecasts import CardForecast
from farm.catalogue.cards import named_card
from farm.catalogue.models import ModelRow
from farm.model import Card, CardKind, Job, JobStatus, MemoryPlan, RenderSettings
from farm.planning.eligibility import FarmView, Verdict, check, what_helps
from farm.planning.estimate import room_of, steps_and_rest
from farm.planning.learned import UNLEARNED, Learned
from farm.planning.memory import BUS_GB_S, CONTEXT_GIB, peak_gib, peak_range_gib
from farm.planning.plans import best_plan, leanest
from farm.planning.rules import precision_for
from farm.planning.tiers import band_of, tier_of
from farm.planning.wording import how

SLOWED = 1.15
"""From so many times the seconds on that a slot without limit would make of it, the slot is named as a cause."""
IMAGINED = "imagined"
"""The id of a card that is in no farm."""


def imagined_card(name: str, vram_gb: float | None = None, models: Iterable[str] = ()) -> Card:
    """A card of the catalogue as it would join a farm: nominal GB less the CUDA context, a PCIe 3 x8 slot, memory enough in its PC.

    A bare name means the article's variant (RTX 2060 6 GB, 3050 8 GB, 3060 12 GB); `models` are those whose weights its PC has.

    Raises:
        BadInputError: field "card": the catalogue has none of this name or size.
    """
    row = named_card(name, vram_gb)
    size = float(row.vram_gb)
    return Card(
        id=IMAGINED,
        node_id="",
        kind=CardKind.CUDA,
        name=f"{row.title} {size:g} GB",
        vram_gib=size,
        usable_gib=round(max(0.0, size - CONTEXT_GIB), 2),
        band=band_of(size, CardKind.CUDA),
        compute_capability=row.compute_capability,
        models=frozenset(models),
        bus_gb_s=BUS_GB_S,
    )


def foresee(
    settings: RenderSettings,
    cards: Iterable[Card],
    view: FarmView,
    *,
    anywhere: bool = False,
    needs: tuple[str, ...] = (),
) -> list[CardForecast]:
    """A forecast for each card, the best first: those that take it, then those that it fits, each from the fastest on.

    `settings.model` must be one of `view.models`. A card in trouble is not eligible; whether a card is busy does not count.
    """
    job = Job(
        "",
        JobStatus.QUEUED,
        settings,
        tier_of(settings),
        input_sha256="",
        created_at=0.0,
        anywhere=anywhere,
        needs=needs,
    )
    forecasts = [_forecast(job, card, view) for card in cards]
    return sorted(
        forecasts,
        key=lambda one: (
            not one.eligible,
            not one.fits,
            one.seconds if one.seconds is not None else 0.0,
            -(one.usable_gib or 0.0),
            one.card,
        ),
    )


def _forecast(job: Job, card: Card, view: FarmView) -> CardForecast:
    row = view.models[job.settings.model]
    verdict = check(job, card, view)
    learned = view.learned.get((card.id, row.name), UNLEARNED)
    fits = row.memory is None or (card.kind is not CardKind.CPU and verdict.plan is not None)
    plan = verdict.plan if fits and verdict.plan is not None else leanest(row, precision_for(card))
    peak = peak_gib(row, job.settings, plan) * learned.peak
    low, high = (bound * learned.peak for bound in peak_range_gib(row, job.settings, plan))
    if fits and card.usable_gib is not None:
        high = max(peak, min(high, card.usable_gib))
    runs = fits and card.kind.value in row.devices
    span = learned.span(verdict.seconds)
    reasons = [*verdict.reasons, *([card.trouble] if card.trouble else [])]
    return CardForecast(
        card=card.name,
        card_id=None if card.id == IMAGINED else card.id,
        vram_gib=card.vram_gib,
        usable_gib=card.usable_gib,
        fits=fits,
        eligible=not reasons,
        able=verdict.able,
        tier=job.tier,
        reasons=reasons,
        advice=_advice(job, card, view, verdict),
        how_it_fits=_how_it_fits(job, card, row, verdict, learned) if fits else "",
        memory_plan=plan,
        peak_gib=round(peak, 3),
        peak_low_gib=round(low, 3),
        peak_high_gib=round(high, 3),
        seconds=round(verdict.seconds, 2) if runs else None,
        seconds_low=round(span.low, 2) if runs else None,
        seconds_high=round(span.high, 2) if runs else None,
        basis=learned.basis,
    )


def _advice(job: Job, card: Card, view: FarmView, verdict: Verdict) -> str:
    return "" if verdict.eligible else what_helps(job, card, view)


def _how_it_fits(job: Job, card: Card, row: ModelRow, verdict: Verdict, learned: Learned) -> str:
    """What it would need whole, where that is more than there is, and what fitting it costs; empty where everything fits."""
    plan = verdict.plan
    if row.memory is None or plan is None or card.usable_gib is None:
        return ""
    whole = MemoryPlan(precision=plan.precision)
    need = peak_gib(row, job.settings, whole) * learned.peak
    if need <= card.usable_gib:
        return ""
    dearer = verdict.seconds / learned.whole(*steps_and_rest(row, card, job.settings, whole))
    slot = (
        f": its slot carries {card.bus_gb_s:.1f} GB/s"
        if _slowed_by_slot(job, card, row, verdict, learned)
        else ""
    )
    return (
        f"needs {need:.1f} GiB whole, {card.name} has {card.usable_gib:.1f} usable; "
        f"fits so: {how(plan)}; {dearer:.2f} times the seconds{slot}"
    )


def _slowed_by_slot(job: Job, card: Card, row: ModelRow, verdict: Verdict, learned: Learned) -> bool:
    """Whether the card would be much quicker in a slot without limit, with the plan that it had there."""
    if card.bus_gb_s is None or card.usable_gib is None:
        return False
    wide = replace(card, bus_gb_s=math.inf)
    found = best_plan(row, job.settings, room_of(row, wide, card.usable_gib / learned.peak))
    if found is None:
        return False
    return verdict.seconds > SLOWED * learned.whole(*steps_and_rest(row, wide, job.settings, found.plan))
