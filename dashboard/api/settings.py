"""The farm's settings: what holds and where it comes from, and changing what may be changed while the farm runs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from dashboard.parts import Parts, parts, who
from dashboard.problems import documented
from farm import knobs
from farm.answers.keeping import RetentionView, SettingView
from farm.auth import Credential
from farm.errors import ConflictError
from farm.knobs import GB, Days, Knobs
from farm.retention import Limits

router = APIRouter(tags=["settings"], responses=documented(401))

Farm = Annotated[Parts, Depends(parts)]
Who = Annotated[Credential, Depends(who)]
Finite = Query(allow_inf_nan=False)


@router.get("/settings", summary="Say how the farm is set")
def settings(farm: Farm) -> list[SettingView]:
    """What can be changed while the farm runs: value, default, and who said so."""
    return show_settings(farm)


@router.patch("/settings", summary="Set the farm", responses=documented(401, 409, 422))
def change(farm: Farm, me: Who, wanted: Knobs) -> list[SettingView]:
    """Sets what is named; `null` is the default again. Holds at once and over restarts. What `farm up` has in its environment stays."""
    named = wanted.named()
    given = [name for name in named if knobs.is_given(farm.settings, name)]
    if given:
        variables = " and ".join(knobs.variable(name) for name in given)
        raise ConflictError(
            f"{' and '.join(given)} cannot be changed here: set by {variables} where `farm up` was started.",
            f"Start the head without {variables} to set it here.",
        )
    farm.knob_writer.change(named, me.owner or me.name, farm.now())
    farm.live.wake()
    return show_settings(farm)


@router.get(
    "/settings/retention",
    summary="Say what limits of storage would delete",
    responses=documented(401, 422),
)
def retention(
    farm: Farm,
    keep_days: Annotated[Days | None, Finite] = None,
    keep_gb: Annotated[GB | None, Finite] = None,
) -> RetentionView:
    """What these limits would delete now, before they are set. Looks through all jobs: of 100,000 for some seconds."""
    going = farm.retention.going(Limits(keep_days, keep_gb), farm.now())
    return RetentionView(jobs=len(going.job_ids), bytes=going.size)


def show_settings(farm: Parts) -> list[SettingView]:
    """Every setting that can be changed, with where its value comes from."""
    changes = farm.knobs.newest()
    holding = knobs.in_force(farm.settings, changes)
    found = []
    for name in knobs.NAMES:
        change = changes.get(name)
        given = knobs.is_given(farm.settings, name)
        by_page = not given and change is not None and change.value is not None
        found.append(
            SettingView(
                name=name,
                value=getattr(holding, name),
                default=knobs.default(name),
                source="environment" if given else "page" if by_page else "default",
                variable=knobs.variable(name),
                changed_at=change.at if change else None,
                changed_by=change.by if change else None,
            )
        )
    return found
