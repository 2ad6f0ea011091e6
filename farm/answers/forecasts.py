"""What a render would come to before it runs, and how often that proved true."""

from farm.answers.base import Answer
from farm.model import Basis, MemoryPlan, Tier


class CardForecast(Answer):
    """What a render would come to on a card, before it runs.

    `fits` speaks of memory alone; `eligible` says that the card would take the job, else `reasons` say why not and `advice` what helps.
    `able`: nothing lasting speaks against it, only what passes, so that the job may wait for the card. `state` is that of `CardView`, None
    for a card that is not of the farm.
    `how_it_fits`: where a card cannot hold everything, what that would need, and what the plan costs in time.
    `tier` is the job's. `peak_gib` is what the caching allocator will reserve, without the CUDA context, as history records it; 0 where no
    GPU memory is needed. Where nothing fits, plan and peak are those that take the least, and no seconds are told. `usable_gib` is what the
    allocator may take, after the CUDA context. `seconds_low` to `seconds_high` hold the truth in four of five cases. `basis`: "measured"
    if attempts of this card with this model taught the prediction, "calibrated" if its own bench did, else "catalogue". `card_id` is None
    for a card that is not of the farm.
    """

    card: str
    card_id: str | None = None
    node_name: str | None = None
    vram_gib: float | None = None
    usable_gib: float | None = None
    fits: bool
    eligible: bool
    able: bool = False
    state: str | None = None
    tier: Tier
    reasons: list[str] = []
    advice: str = ""
    how_it_fits: str = ""
    memory_plan: MemoryPlan
    peak_gib: float
    peak_low_gib: float
    peak_high_gib: float
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    basis: Basis


class CalibrationView(Answer):
    """How often renders took as long as was foretold: shares of 0 to 1 of the last `renders` finished ones.

    `aim` is what `within` should be. `by_basis` has the same for what the predictions rested on. None where there is nothing to tell.
    """

    aim: float
    renders: int
    within: float | None = None
    quicker: float | None = None
    slower: float | None = None
    median_error: float | None = None
    by_basis: dict[Basis, "CalibrationView"] = {}
