"""What can be chosen, and how cards did: presets, models and the evaluation."""

from typing import Annotated

from fastapi import APIRouter, Depends

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from dashboard.views import preset_view, show_models
from farm.answers.catalogue import ModelView, PresetView
from farm.answers.figures import BenchView
from farm.bench_results import kept_results, published_results

router = APIRouter(tags=["catalogue"], responses=documented(401))

Farm = Annotated[Parts, Depends(parts)]


@router.get("/presets", summary="List presets")
def presets(farm: Farm) -> list[PresetView]:
    """Named sets of settings, in the order a person should see them."""
    return [preset_view(preset, farm.models[preset.model]) for preset in farm.presets.values()]


@router.get("/models", summary="List models")
def models(farm: Farm) -> list[ModelView]:
    """The models and what each accepts."""
    return show_models(farm)


@router.get("/benchmarks", summary="List the evaluation's results")
def benchmarks(farm: Farm) -> list[BenchView]:
    """What `farm bench` last measured of each card, model and setting, then the article's published rows (`published`)."""
    return [*kept_results(farm.benches.newest()), *published_results()]
