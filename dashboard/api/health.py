"""For whoever watches the process: is it alive, and can it work?"""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from farm.errors import FarmError

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """The farm takes jobs; `scheduler` says whether they are worked on too."""

    database: bool
    scheduler: bool


@router.get("/healthz", summary="Is the web process alive?")
async def healthz() -> Health:
    """Answers without a token, and without touching anything else."""
    return Health()


@router.get("/readyz", summary="Can the farm take jobs?", responses=documented(401, 503))
def readyz(farm: Annotated[Parts, Depends(parts)]) -> Readiness:
    """503 when the database cannot be read. Jobs are taken while the scheduler is down, so that alone is no 503."""
    try:
        farm.reader.counts()
    except SQLAlchemyError as error:
        raise FarmError(
            "The farm's database cannot be read.", "Look at the dashboard's log and at the disk."
        ) from error
    return Readiness(database=True, scheduler=farm.live.connected)
