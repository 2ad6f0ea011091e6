"""Who may: bearer tokens for programs, a session cookie for browsers, and the sign-in page between the two.

A session comes from the link that `farm up` prints, which is an admin's, or from an account's name and password.

Everything is closed unless it is named in `OPEN`; a route cannot be left open by forgetting a dependency.
"""

from math import ceil
from typing import Annotated
from urllib.parse import quote, urlsplit

from anyio import to_thread
from fastapi import APIRouter, Form, Request
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard.access import demand, needed
from dashboard.api.weights import FOR_NODES
from dashboard.frame import templates
from dashboard.parts import Parts, parts_of
from dashboard.problems import documented, problem, refuse
from farm.auth import Credential, TokenKind, judge, new_token
from farm.auth import Scope as May
from farm.errors import FarmError, ForbiddenError, NotFoundError, SignInError, TooManyTriesError
from farm.passwords import is_password

COOKIE = "farm_session"
SESSION_S = 30 * 24 * 3600
OPEN = ("/healthz", "/favicon.ico", "/signin", "/join/")
"""Served without a token, with what lies under `/static/`."""
NODE_PATHS = ("/api/v1/nodes/hello", "/api/v1/nodes/bye", "/api/v1/nodes/reach")
"""With those of `dashboard.api.weights` the only place where a node's own token is good."""
_PEOPLE = frozenset({TokenKind.ADMIN, TokenKind.API, TokenKind.SESSION})
_NODES = frozenset({TokenKind.NODE})
_SIGNS_IN = frozenset({TokenKind.SIGN_IN, TokenKind.ADMIN})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

router = APIRouter(include_in_schema=False)


def check(farm: Parts, token: str, accepts: frozenset[TokenKind]) -> Credential:
    """The credential of a token that is good for this.

    Raises:
        SignInError: none was sent, or it is not good; the message says why.
    """
    if not token:
        raise SignInError(
            "A token is needed.",
            "Send `Authorization: Bearer TOKEN`, or sign in with the link that `farm up` prints.",
        )
    return judge(farm.reader.token(token), accepts, farm.now())


def sent_token(connection: HTTPConnection) -> str:
    """The token of a program, or else of the browser's session; empty where none was sent."""
    sent = bearer(connection.headers)
    return sent if sent is not None else connection.cookies.get(COOKIE, "")


def is_still_good(request: Request) -> bool:
    """Whether a request that was let in, and is still being answered, would be let in again to see things."""
    try:
        demand(check(parts_of(request), sent_token(request), _PEOPLE), May.READ)
    except FarmError:
        return False
    return True


class SignedIn:
    """ASGI middleware: judges every request before anything else reads it, and leaves `request.state.credential`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what may pass; answers 401, 403 or the way to the sign-in page otherwise."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        refused = await self._refused(scope)
        await (refused or self._app)(scope, receive, send)

    async def _refused(self, scope: Scope) -> Response | None:
        connection = HTTPConnection(scope)
        headers = connection.headers
        sent = bearer(headers)
        path = scope["path"]
        accepts = _NODES if path in NODE_PATHS or FOR_NODES.fullmatch(path) else _PEOPLE
        try:
            credential = await to_thread.run_sync(
                check, parts_of(connection), sent_token(connection), accepts
            )
            if credential.kind == TokenKind.SESSION and sent is not None:
                raise SignInError(
                    "A browser's session is not a bearer token.", "Make one with `farm token new`."
                )
        except SignInError as error:
            if sent is None and _navigates(scope, headers):
                where = scope["path"] + (
                    f"?{scope['query_string'].decode()}" if scope["query_string"] else ""
                )
                return RedirectResponse(f"/signin?next={quote(where, safe='')}", status_code=303)
            return problem(
                401,
                error.message,
                error.remedy,
                headers={"www-authenticate": 'Bearer realm="farm"', "connection": "close"},
            )
        if sent is None and scope["method"] not in _SAFE and not same_origin(headers):
            return problem(
                403,
                "The request comes from another site's page.",
                "Use the farm's own pages, or a bearer token from a program.",
                headers={"connection": "close"},
            )
        if accepts is not _NODES:
            try:
                demand(credential, needed(scope["method"], scope["path"]))
            except ForbiddenError as error:
                return refuse(Request(scope), error, {"connection": "close"})
        scope.setdefault("state", {})["credential"] = credential
        return None


def _is_open(path: str) -> bool:
    return path.startswith("/static/") or any(
        path == name or (name.endswith("/") and path.startswith(name)) for name in OPEN
    )


def bearer(headers: Headers) -> str | None:
    """The bearer token that was sent, None where none was."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _navigates(scope: Scope, headers: Headers) -> bool:
    page = "text/html" in headers.get("accept", "") and not scope["path"].startswith("/api/")
    return page and scope["method"] in ("GET", "HEAD")


def same_origin(headers: Headers) -> bool:
    """Whether a browser says that our own page sent this; a request that says nothing is refused."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == headers.get("host", "")


def local_path(path: str) -> str:
    """`path` if it stays on this site, else "/": a link must not lead a signed-in person elsewhere."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain and not path.startswith("/signin") else "/"


@router.get("/signin", response_model=None)
def sign_in_page(request: Request, token: str = "", next: str = "/") -> Response:  # the name in the link
    """Signs a browser in by a link, or shows the form."""
    if token:
        return _signed_in(request, token, next)
    return _page(request, next)


@router.post("/signin", response_model=None, responses=documented(401, 429))
async def sign_in(
    request: Request,
    token: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Signs a browser in by the form: with a name and a password, or with a token."""
    if name or password:
        return await to_thread.run_sync(
            _with_password, request, name.strip(), password, next, limiter=parts_of(request).hashing
        )
    return await to_thread.run_sync(_signed_in, request, token.strip(), next)


@router.post("/signout", response_model=None)
def sign_out(request: Request) -> Response:
    """Ends this browser's session, here and on the head: a copy of the cookie is worth nothing after."""
    farm = parts_of(request)
    farm.registry.revoke_one(request.cookies.get(COOKIE, ""), farm.now())
    answer = RedirectResponse("/signin", status_code=303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="lax")
    return answer


def _signed_in(request: Request, token: str, following: str) -> Response:
    farm = parts_of(request)
    try:
        credential = check(farm, token, _SIGNS_IN)
    except SignInError as error:
        return _page(request, following, error)
    return _session(request, following, credential.name)


def _with_password(request: Request, name: str, password: str, following: str) -> Response:
    farm = parts_of(request)
    address = request.client.host if request.client else ""
    try:
        farm.tries.begin(address, name[:80])
        user = farm.users.find(name)
        if not is_password(user.password if user else None, password) or user is None:
            raise SignInError(
                "Name and password do not belong together.",
                "Look at both; `farm user list` on the farm's PC shows the names.",
            )
        farm.tries.succeeded(address, name[:80])
        answer = _session(request, following, user.name, user.name)
    except NotFoundError:  # the account was taken away while its password was looked at
        return _page(request, following, SignInError("There is no such account any more."))
    except (SignInError, TooManyTriesError) as error:
        return _page(request, following, error)
    farm.accounts.signed_in(user.name, farm.now())
    return answer


def _session(request: Request, following: str, name: str, user: str | None = None) -> Response:
    """A session of an account, which may what its role may; or, without one, an admin's."""
    farm = parts_of(request)
    session = new_token()
    farm.registry.add_token(
        session,
        TokenKind.SESSION,
        name,
        farm.now(),
        expires_at=farm.now() + SESSION_S,
        scope=May.ADMIN,  # an account's role bounds it, also when that is changed later
        user=user,
    )
    answer = RedirectResponse(local_path(following), status_code=303)
    answer.set_cookie(
        COOKIE,
        session,
        max_age=SESSION_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path="/",
    )
    return answer


def _page(request: Request, following: str, error: FarmError | None = None) -> Response:
    headers = {}
    if isinstance(error, TooManyTriesError):
        headers["retry-after"] = str(ceil(error.retry_after_s))
    return templates.TemplateResponse(
        request,
        "signin.html",
        {"next": local_path(following), "error": error, "accounts": parts_of(request).users.any()},
        status_code=429 if headers else 401 if error else 200,
        headers=headers,
    )
