"""Tiers of work and bands of cards: big cards are kept for big jobs. The numbers are a promise to users."""

from farm.model import CardKind, Job, RenderSettings, StageKind, Tier

PREVIEW_PIXELS = 512 * 512
PREVIEW_FRAMES = 16
PREVIEW_STEPS = 50
"""The most that preview work may have of each; more of any one makes it quality work."""

PREVIEW_BAND_GB = 8
QUALITY_BAND_GB = 12
"""Nominal GB from which a card takes preview and quality work."""


def tier_of(settings: RenderSettings) -> Tier:
    """The tier of a job that generates a clip; interpolation and encoding are `post` by their stage."""
    large = (
        settings.width * settings.height > PREVIEW_PIXELS
        or settings.frames > PREVIEW_FRAMES
        or settings.steps > PREVIEW_STEPS
    )
    return Tier.QUALITY if large else Tier.PREVIEW


def tier_now(job: Job) -> Tier:
    """The tier of the work that a job waits with: that of the stage it is at."""
    return job.tier if job.stage is StageKind.GENERATE else Tier.POST


def band_of(vram_gib: float | None, kind: CardKind) -> Tier:
    """The band of a card, unless its owner pins another.

    `vram_gib` is what the driver reports in all. Some drivers keep a little for themselves (8188 MiB on an 8
    GB card, 15360 on a T4 of 16 GB), so it is rounded to whole GB. A CPU, and a card whose memory is not
    known, is `post`.
    """
    if kind is CardKind.CPU or vram_gib is None:
        return Tier.POST
    nominal = round(vram_gib)
    if nominal < PREVIEW_BAND_GB:
        return Tier.POST
    return Tier.PREVIEW if nominal < QUALITY_BAND_GB else Tier.QUALITY
