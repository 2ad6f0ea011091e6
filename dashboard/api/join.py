"""How a spare PC becomes a node: a single-use code for a ticket, and the ticket again after every restart of the head."""

import json
import logging
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from dashboard.api.install import mending_line, ray_version, script
from dashboard.greetings import Said
from dashboard.joining.address import head_address
from dashboard.joining.lines import linux_line, windows_line, windows_script
from dashboard.parts import Parts, parts, who
from dashboard.problems import documented
from farm.answers.keeping import TokenView
from farm.auth import Credential, TokenKind, judge, new_token
from farm.build import build
from farm.certificates import sign_request
from farm.errors import ConflictError, FarmError, SignInError
from farm.ids import new_id
from farm.model import Node
from farm.store.registry import Heard
from farm.wire import JoinTicket, ticket_to_dict

log = logging.getLogger(__name__)
router = APIRouter(tags=["joining"])
open_router = APIRouter(tags=["joining"])

Farm = Annotated[Parts, Depends(parts)]
NOTE_EVERY_S = 15.0
"""How often the greetings of PCs that say what they said before are written down, all at once: a write is synced to the disk."""
_JOINS = frozenset({TokenKind.JOIN})
OURS = build()
"""What runs here, not what may lie in its place later."""
_NEW_CODE = "Make a new one on the dashboard's Cards page or with `farm token new --kind join`."


class Versions(BaseModel):
    """What a PC runs; the farm's (`farm.build`) and Ray's must equal the head's, Python's to the minor version."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
    ray_version: Annotated[str, Field(min_length=1, max_length=40)]
    python_version: Annotated[str, Field(pattern=r"^\d+\.\d+(\.\w+)?$", max_length=40)]
    farm_version: Annotated[
        str, Field(max_length=60, description="empty from a PC whose farm is older than this rule")
    ] = ""


class Redeem(Versions):
    """A code for a ticket. `node_id` is what the PC would like to be called; one that is taken gives another.

    `node_token` is a secret that the PC made up for its credential. Asked again with it, the head answers again: its first answer may have
    come too late for the PC.
    """

    code: Annotated[str, Field(max_length=200)]
    node_id: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = None
    node_token: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_-]{43,64}$")] = None


class Hello(Versions):
    """What a PC says that comes back. `csr` (PEM) asks for a certificate, which a head with TLS gives for the address it comes from."""

    csr: Annotated[str | None, Field(max_length=4000)] = None


class TokenWish(BaseModel):
    """A code for one PC, good for so many minutes."""

    kind: Literal["join"] = "join"
    minutes: Annotated[int, Field(ge=1, le=7 * 24 * 60)] = 60


@dataclass(frozen=True, slots=True)
class RayFacts:
    """Where the head's Ray is."""

    address: str
    epoch: str
    token: str


@dataclass(frozen=True, slots=True)
class Repeatable:
    """What a greeting's answer depended on, for `dashboard.repeats`: `said` is the very object that `Parts.greeted` has of the PC."""

    node_id: str
    said: Said
    ray: RayFacts


@open_router.post(
    "/join/redeem",
    summary="Join with a code",
    response_model=JoinTicket,
    responses=documented(401, 409, 422, 503),
)
def redeem(farm: Farm, request: Request, wish: Redeem) -> dict[str, Any]:
    """Makes the PC a node. The code is used up only when everything else is right."""
    try:
        return _let_in(farm, request, wish)
    except SignInError:
        node_id = _let_in_before(farm, wish)
        if node_id is None:
            raise
        return _ticket(farm, node_id, wish.node_token or "", ray_facts(farm))


def _let_in(farm: Parts, request: Request, wish: Redeem) -> dict[str, Any]:
    _judge_code(farm, wish.code)
    _same_versions(farm, request, wish)
    ray = ray_facts(farm)
    # A code lets a PC in; it is no proof of being a PC that is in already, whose name and token another could take that way.
    known = any(node.id == wish.node_id for node in farm.reader.nodes())
    node_id = new_id() if known or wish.node_id is None else wish.node_id
    token = wish.node_token or new_token()
    if farm.reader.token(token) is not None or not farm.registry.let_in(
        wish.code, _node(request, node_id, wish), token, farm.now()
    ):
        raise _used()
    return _ticket(farm, node_id, token, ray)


def _let_in_before(farm: Parts, wish: Redeem) -> str | None:
    """The node that this very PC was made already, as its secret proves."""
    found = farm.reader.token(wish.node_token) if wish.node_token is not None else None
    return found.node_id if found is not None and found.revoked_at is None else None


@router.post(
    "/nodes/hello",
    summary="Come back as a node",
    response_model=JoinTicket,
    responses=documented(401, 409, 422, 503),
)
def hello(
    farm: Farm, me: Annotated[Credential, Depends(who)], request: Request, wish: Hello
) -> dict[str, Any]:
    """A fresh ticket for a PC that is a node already (bearer: its own token). `node_token` is empty: it keeps its own."""
    if me.node_id is None:
        raise SignInError("This token belongs to no node.", f"Join again with a new code. {_NEW_CODE}")
    try:
        _same_versions(farm, request, wish)
    except ConflictError as error:
        why = f"{error.message} {error.remedy}".replace("This PC", wish.name).replace("this PC", wish.name)
        farm.registry.keep_out(me.node_id, why)
        farm.greeted.forget(me.node_id)
        raise
    ray = ray_facts(farm)
    said = (wish.model_dump(exclude={"csr"}), request.client.host if request.client else "")
    before = farm.greeted.said(me.node_id)
    if before == said:
        said = before
        if heard := due(farm, me.node_id):
            write_down(farm, heard)
    else:
        farm.registry.see_node(_node(request, me.node_id, wish), [], farm.now())
        farm.greeted.written(me.node_id, said)
    certificate = ""
    if wish.csr is not None and farm.settings.tls:
        certificate = sign_request(farm.data.tls, wish.csr, wish.name, said[1])
    if wish.csr is None:
        request.state.repeatable = Repeatable(me.node_id, said, ray)
    return _ticket(farm, me.node_id, "", ray, certificate)


def due(farm: Parts, node_id: str) -> Mapping[str, float]:
    """A PC has said what it said before; returns what is to be written down now."""
    return farm.greeted.hear(node_id, farm.now(), NOTE_EVERY_S)


def write_down(farm: Parts, heard: Mapping[str, float]) -> None:
    """Notes when PCs were heard."""
    farm.registry.hear_nodes([Heard(node_id, at) for node_id, at in heard.items()])


@router.post("/nodes/bye", status_code=204, summary="Leave the farm", responses=documented(401))
def bye(farm: Farm, me: Annotated[Credential, Depends(who)]) -> None:
    """Ends the credential of a PC that leaves (bearer: its own token). What it rendered stays in the history."""
    if me.node_id is None:
        raise SignInError("This token belongs to no node.", "Only `farm leave` on a node calls this.")
    farm.registry.revoke(TokenKind.NODE, farm.now(), node_id=me.node_id)
    farm.greeted.forget(me.node_id)


@router.post("/tokens", status_code=201, summary="Make a join code", responses=documented(401, 422))
def make_token(
    farm: Farm, me: Annotated[Credential, Depends(who)], request: Request, wish: TokenWish
) -> TokenView:
    """A code that makes one PC a node, once. It is shown now and never again."""
    code, now = new_token(), farm.now()
    expires_at = now + wish.minutes * 60
    farm.registry.add_token(code, TokenKind.JOIN, f"made by {me.owner}", now, expires_at=expires_at)
    linux, windows = _lines(farm, request, code)
    return TokenView(token=code, kind=wish.kind, expires_at=expires_at, linux=linux, windows=windows)


def _lines(farm: Parts, request: Request, code: str) -> tuple[str, str]:
    """The lines for the other PC, empty where this head has no package to give; the code is good with `farm join` all the same."""
    head, _ = head_address(request, farm.settings)
    try:
        linux = script(farm)
    except FarmError as error:
        log.warning("no line for joining: %s", error)
        return "", ""
    return linux_line(linux, head, code), windows_line(windows_script(linux), head, code)


def _judge_code(farm: Parts, code: str) -> None:
    if not code:
        raise SignInError("A join code is needed.", _NEW_CODE)
    found = farm.reader.token(code)
    if found is None:
        raise SignInError("The join code is not one of this farm's.", _NEW_CODE)
    if found.kind == TokenKind.JOIN and found.used_at is not None:
        raise _used()
    if found.expires_at is not None and found.expires_at <= farm.now():
        raise SignInError("The join code has expired.", _NEW_CODE)
    judge(found, _JOINS, farm.now())


def _used() -> SignInError:
    return SignInError("The join code was used before; each is good for one PC.", _NEW_CODE)


def _same_versions(farm: Parts, request: Request, wish: Versions) -> None:
    """Ray refuses other versions of itself too, but only after half a minute and without saying what to do."""
    ours, ray = platform.python_version(), ray_version()
    if wish.python_version.split(".")[:2] != ours.split(".")[:2]:
        raise ConflictError(
            f"This PC has Python {wish.python_version}, the head has {ours}; they must agree to the second number.",
            _mend(farm, request, f"Make the farm's environment with Python {'.'.join(ours.split('.')[:2])}"),
        )
    if wish.ray_version != ray:
        raise ConflictError(
            f"This PC has Ray {wish.ray_version}, the head has {ray}; they must be the same.",
            _mend(farm, request, f'Run `pip install "ray=={ray}"` in the farm\'s environment on this PC'),
        )
    if wish.farm_version != OURS:
        raise ConflictError(
            f"This PC has the farm {wish.farm_version or 'of an older version'}, the head has {OURS}; they must be the same.",
            _mend(farm, request, "Bring the farm's program on this PC to the head's version"),
        )


def _mend(farm: Parts, request: Request, by_hand: str) -> str:
    """The remedy for other versions: the head's own line, or what to do by hand."""
    try:
        return f"{by_hand}, or let the head do it: `{mending_line(farm, request)}`. Then join again."
    except FarmError:
        return f"{by_hand}, and join again."


def ray_facts(farm: Parts) -> RayFacts:
    """Where the head's Ray is. Raises FarmError while it is not up."""
    try:
        facts = json.loads(farm.data.ray_facts.read_text())
        return RayFacts(str(facts["address"]), str(facts["epoch"]), farm.data.ray_token.read_text().strip())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FarmError(
            "The head's Ray is not running yet.", "Try again in a few seconds; `farm up` starts it."
        ) from error


def _node(request: Request, node_id: str, wish: Versions) -> Node:
    versions = {"farm": wish.farm_version, "ray": wish.ray_version, "python": wish.python_version}
    address = request.client.host if request.client else ""
    return Node(node_id, wish.name, address, versions=versions)


def _ticket(
    farm: Parts, node_id: str, node_token: str, ray: RayFacts, certificate: str = ""
) -> dict[str, Any]:
    return ticket_to_dict(
        JoinTicket(
            farm_id=farm.farm_id,
            node_id=node_id,
            node_token=node_token,
            ray_address=ray.address,
            ray_token=ray.token,
            epoch=ray.epoch,
            ray_version=ray_version(),
            python_version=platform.python_version(),
            farm_version=OURS,
            certificate=certificate,
        )
    )
