"""What the line of "Add a PC" fetches: the scripts, the farm's own wheel and its lock files. Open, and nothing in it is secret."""

import platform
from functools import cache
from importlib import metadata
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from dashboard.joining.address import came_url
from dashboard.joining.lines import is_plain, linux_line, linux_script, windows_script
from dashboard.joining.package import package
from dashboard.parts import Parts, parts
from dashboard.problems import documented
from farm.build import build
from farm.errors import NotFoundError
from farm.tls import TlsFiles

router = APIRouter(tags=["joining"])
Farm = Annotated[Parts, Depends(parts)]
_TEXT = "text/plain; charset=utf-8"


class Zip(Response):
    """A wheel is one."""

    media_type = "application/zip"


class FarmFacts(BaseModel):
    """Which farm this is and what it runs; `line` brings a PC's versions to these."""

    farm_id: str
    farm_version: str
    ray_version: str
    python_version: str
    line: str


@cache
def ray_version() -> str:
    """The head's Ray; looking it up in the installed packages takes a millisecond, and every PC asks every few seconds."""
    return metadata.version("ray")


def ca_text(farm: Parts) -> str:
    """The certificate (PEM) of the farm's authority; empty where it has no TLS."""
    return TlsFiles.in_folder(farm.data.tls).ca.read_text() if farm.settings.tls else ""


def script(farm: Parts) -> bytes:
    """`install.sh` of this farm. Raises FarmError where this head has no package to give."""
    return linux_script(package(), farm.farm_id, ca_text(farm))


def mending_line(farm: Parts, request: Request) -> str:
    """The line that installs this head's versions on the PC that asked, without a code."""
    url = came_url(request)
    return linux_line(script(farm), url if is_plain(url) else "http://ADDRESS:8000")


@router.get("/join/farm", summary="Which farm this is", responses=documented(503))
def facts(farm: Farm, request: Request) -> FarmFacts:
    """What a PC asks before it joins, and `farm doctor` to compare."""
    return FarmFacts(
        farm_id=farm.farm_id,
        farm_version=build(),
        ray_version=ray_version(),
        python_version=platform.python_version(),
        line=mending_line(farm, request),
    )


@router.get(
    "/join/ca.pem",
    summary="The farm's authority",
    response_class=PlainTextResponse,
    responses=documented(404),
)
def ca_pem(farm: Farm) -> Response:
    """The certificate by which a head with TLS is known; a PC that fetches it here must hold it to a fingerprint from elsewhere."""
    found = ca_text(farm)
    if not found:
        raise NotFoundError("This farm has no TLS.", "Start the head with `farm up --tls`.")
    return Response(found, media_type=_TEXT)


@router.get(
    "/join/install.sh",
    summary="The script for Linux",
    response_class=PlainTextResponse,
    responses=documented(503),
)
def install_sh(farm: Farm) -> Response:
    """The script that the line for Linux runs. Its checksum is in the line."""
    return Response(script(farm), media_type=_TEXT)


@router.get(
    "/join/install.ps1",
    summary="The script for Windows",
    response_class=PlainTextResponse,
    responses=documented(503),
)
def install_ps1(farm: Farm) -> Response:
    """The script that the line for PowerShell runs."""
    return Response(windows_script(script(farm)), media_type=_TEXT)


@router.get("/join/wheel", summary="The farm's own package", response_class=Zip, responses=documented(503))
def wheel() -> Response:
    """What this head runs, as a wheel."""
    return Zip(package().wheel)


@router.get(
    "/join/lock/{name}",
    summary="A lock file",
    response_class=PlainTextResponse,
    responses=documented(404, 503),
)
def lock(name: str) -> Response:
    """The packages that a PC needs, each with its hashes: `head.txt` without torch, `gpu.txt` for a PC with an NVIDIA card."""
    found = package().locks.get(name)
    if found is None:
        raise NotFoundError(
            f"There is no lock file {name!r}.", f"There are: {', '.join(sorted(package().locks))}."
        )
    return Response(found, media_type=_TEXT)
