"""The head's models for the nodes: what there is, what each is made of, and its files. Only a node's own credential is good here."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import FileResponse, Response

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from farm.errors import ConflictError, NotFoundError, WeightsTransferError
from farm.weights import Manifest, Shelf, manifest_to_json
from farm.wire import OfferedModel, WeightsOffer

router = APIRouter(tags=["nodes"])

Farm = Annotated[Parts, Depends(parts)]
FOR_NODES = re.compile(r"/api/v1/(nodes/weights|models/[^/]+/(manifest|files/.+))")
"""The paths of this module."""


@router.get("/nodes/weights", summary="Which models the head has", responses=documented(401))
def offer(farm: Farm) -> WeightsOffer:
    """What a node may fetch, and what it shall remove because a person removed it from the farm."""
    shelf = Shelf(farm.data.models)
    models = [OfferedModel(one.name, one.digest, one.bytes) for one in shelf.manifests()]
    return WeightsOffer(tuple(models), tuple(shelf.removed()))


@router.get(
    "/models/{name}/manifest",
    summary="A model's files, with lengths and hashes",
    response_model=Manifest,
    responses=documented(401, 404),
)
def manifest(farm: Farm, name: str) -> Response:
    """As it lies on the head's disk."""
    return Response(manifest_to_json(_manifest(farm, name)), media_type="application/json")


@router.get(
    "/models/{name}/files/{path:path}",
    summary="A file of a model",
    response_class=FileResponse,
    responses=documented(401, 404, 409, 416, 422, 503, s206="The asked range of bytes"),
)
def file(
    farm: Farm,
    name: str,
    path: str,
    sha256: Annotated[str, Query(description="as the manifest has it: another version is refused")],
) -> FileResponse:
    """One file, whole or by Range. Only what the manifest names is there."""
    for one in _manifest(farm, name).files:
        if one.path == path:
            if one.sha256 != sha256:
                raise ConflictError(
                    f"The head has another version of {name} by now.", "Ask for its manifest."
                )
            place = farm.data.models / name / path
            if not place.is_file():
                raise WeightsTransferError(
                    f"The head's own file {path} of {name} is missing.",
                    f"Run `farm models pull {name}` on the head.",
                )
            return FileResponse(
                place,
                media_type="application/octet-stream",
                headers={"etag": f'"{sha256}"'},
            )
    raise NotFoundError(
        f"{name[:80]} has no file {path[:200]!r}.", "Its manifest names those that there are."
    )


def _manifest(farm: Parts, name: str) -> Manifest:
    found = Shelf(farm.data.models).manifest(name)
    if found is None:
        raise NotFoundError(f"The head has no weights of {name[:80]}.", "Run `farm models pull` on the head.")
    return found
