"""How good the farm's own predictions are."""

from typing import Annotated

from fastapi import APIRouter, Depends

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from dashboard.views import show_calibration
from farm.answers.forecasts import CalibrationView

router = APIRouter(tags=["planning"], responses=documented(401))

Farm = Annotated[Parts, Depends(parts)]


@router.get("/stats/calibration", summary="Say how often predictions held")
def calibration(farm: Farm) -> CalibrationView:
    """How often a render's seconds fell within the interval that was told when its card was chosen; four of five are meant to."""
    return show_calibration(farm)
