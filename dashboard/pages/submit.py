"""The form of a new clip, also filled in from a job that is there: again with other settings, or a preview made in quality."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from dashboard.frame import Farm, page
from dashboard.parts import Parts
from dashboard.views import default_preset, model_view
from farm.catalogue.presets import Preset
from farm.model import Card, Job, JobStatus, RenderSettings
from farm.motion import MAX_STRENGTH, MOTIONS
from farm.planning.eligibility import FarmView, bands_of, unplaceable
from farm.planning.tiers import tier_of
from farm.stages import stages_of
from farm.submit import MAX_FPS, MAX_GUIDANCE, MAX_PRIORITY, MAX_PROMPT, MAX_SEED

_OWN = ("width", "height", "frames", "steps", "guidance", "fps")
"""What a preset gives, and a person may say otherwise."""

router = APIRouter(include_in_schema=False)


@router.get("/submit")
def submit_page(
    request: Request,
    farm: Farm,
    again: Annotated[str, Query(max_length=64)] = "",
    preset: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The form; `again` is a job whose picture, prompt and seed it begins with, `preset` what to make of them in place of its own."""
    job = farm.reader.job(again) if again else None
    chosen = farm.presets.get(preset)
    filled = {} if job is None else filled_from(job, farm, chosen)
    usual = filled.get("preset") or (chosen.name if chosen else usual_preset(farm))
    context = {
        "job": job,
        "has_picture": None if job is None else has_picture(job, farm),
        "filled": filled,
        "unfold": any(
            filled[name] not in ("", None) for name in filled.keys() - {"preset", "prompt", "seed"}
        ),
        "usual": usual,
        "presets": list(farm.presets.values()),
        "drafts": {name for name, model in farm.models.items() if model.draft},
        "models": [(row, model_view(row)) for row in farm.models.values()],
        "motions": MOTIONS,
        "limits": {
            "strength": MAX_STRENGTH,
            "prompt": MAX_PROMPT,
            "guidance": MAX_GUIDANCE,
            "fps": MAX_FPS,
            "seed": MAX_SEED,
            "priority": MAX_PRIORITY,
            "upload_mib": farm.in_force().max_upload_mib,
        },
    }
    return page(request, "submit.html", context)


def has_picture(job: Job, farm: Parts) -> str | None:
    """The id of a job that still has the picture of `job`: its own, or after its removal another's; None where it is gone."""
    if job.removed_at is None:
        return job.id
    if not farm.artifacts.path(job.input_sha256).exists():  # asked first: it spares a look through all jobs
        return None
    kept = farm.reader.input_kept(job.input_sha256)
    return None if kept is None else kept[0]


def filled_from(job: Job, farm: Parts, chosen: Preset | None) -> dict[str, Any]:
    """What the form's fields begin with to make `job` again: with its own settings, or with those of `chosen`. Absent is empty."""
    settings = job.settings
    base = chosen or farm.presets.get(job.preset or "")
    if base is None:
        base = farm.presets[default_preset(farm)]
    kept: dict[str, Any] = {
        "preset": base.name,
        "prompt": settings.prompt,
        "negative_prompt": settings.negative_prompt,
        "seed": settings.seed,
    }
    if chosen is None:
        kept |= {
            name: getattr(settings, name) for name in _OWN if getattr(settings, name) != getattr(base, name)
        }
        kept |= {"smooth": settings.smooth or 0} if settings.smooth != base.smooth else {}
        kept |= {"model": settings.model} if settings.model != base.model else {}
        kept |= {"motion": settings.motion} if settings.motion != "auto" else {}
        kept |= {"strength": settings.strength} if settings.strength != 1.0 else {}
        kept |= {"anywhere": True} if job.anywhere else {}
    return kept


def usual_preset(farm: Parts) -> str:
    """The preset the form begins with: the farm's default, or the first that some card here can run."""
    cards = farm.reader.cards()
    view = FarmView(models=farm.models, tiers=farm.in_force().tiers, bands=bands_of(cards))
    default = default_preset(farm)
    for name in (default, *farm.presets):
        if name in farm.presets and _can_run(farm.presets[name], cards, view):
            return name
    return default


def _can_run(preset: Preset, cards: Sequence[Card], view: FarmView) -> bool:
    settings = RenderSettings(
        model=preset.model,
        width=preset.width,
        height=preset.height,
        frames=preset.frames,
        steps=preset.steps,
        guidance=preset.guidance,
        fps=preset.fps,
        seed=0,
        smooth=preset.smooth,
    )
    imagined = Job("", JobStatus.QUEUED, settings, tier_of(settings), input_sha256="", created_at=0.0)
    return not any(unplaceable(replace(imagined, stage=stage), cards, view) for stage in stages_of(settings))
