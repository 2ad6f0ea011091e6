"""One shape of error for the whole API: `application/problem+json` (RFC 9457), with the field and the remedy."""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from farm.errors import (
    BadInputError,
    BadSettingsError,
    BodyTooLargeError,
    ConflictError,
    FarmError,
    ForbiddenError,
    IllegalMoveError,
    NotFoundError,
    SignInError,
    TooManyTriesError,
)
from farm.store.requests import KeyReusedError

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

STATUS: tuple[tuple[type[FarmError], int], ...] = (
    (BadInputError, 422),
    (BodyTooLargeError, 413),
    (NotFoundError, 404),
    (IllegalMoveError, 409),
    (ConflictError, 409),
    (SignInError, 401),
    (ForbiddenError, 403),
    (TooManyTriesError, 429),
)
"""What each kind of error is in HTTP; any other `FarmError` is the farm's own trouble: 503."""


class ErrorItem(BaseModel):
    """One thing that is wrong: the form field (`image`, `settings.frames`, ...), why, and what to do."""

    field: str
    message: str
    remedy: str = ""


class Problem(BaseModel):
    """An error of the API."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    remedy: str = ""
    errors: list[ErrorItem] = []


ErrorPage = Callable[[Request, Problem], Response]
"""Shows a problem to a person; the pages set one on `app.state.error_page`."""


def problem(
    status: int,
    detail: str,
    remedy: str = "",
    errors: list[ErrorItem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response."""
    return _response(_problem(status, detail, remedy, errors), headers)


def _problem(status: int, detail: str, remedy: str, errors: list[ErrorItem] | None = None) -> Problem:
    return Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, remedy=remedy, errors=errors or []
    )


def _response(found: Problem, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        json.dumps(found.model_dump(), ensure_ascii=False).encode(),
        status_code=found.status,
        media_type=MEDIA_TYPE,
        headers=dict(headers or {}),
    )


def of_error(error: FarmError) -> Problem:
    """The problem that an error of ours is."""
    status = next((status for kind, status in STATUS if isinstance(error, kind)), 503)
    if not isinstance(error, BadInputError):
        return _problem(status, error.message, error.remedy)
    wrong = error.errors if isinstance(error, BadSettingsError) else (error,)
    errors = [ErrorItem(field=one.field, message=one.message, remedy=one.remedy) for one in wrong]
    return _problem(status, " ".join(one.message for one in wrong), error.remedy, errors)


def wants_page(request: Request) -> bool:
    """Whether a person looks at this with a browser, and not a program."""
    accept = request.headers.get("accept", "")
    return "text/html" in accept and not request.url.path.startswith(("/api/", "/join/"))


def _show(request: Request, found: Problem, headers: Mapping[str, str] | None = None) -> Response:
    page: ErrorPage | None = getattr(request.app.state, "error_page", None)
    if page is not None and wants_page(request):
        return page(request, found)
    return _response(found, headers)


def _field(location: tuple[Any, ...]) -> str:
    """The name a person knows: ("body", "image") is `image`, ("query", "limit") is `limit`."""
    return ".".join(str(part) for part in location[1:] if part != "body") or str(location[0])


async def on_farm_error(request: Request, error: Exception) -> Response:
    """Errors that say everything themselves."""
    assert isinstance(error, FarmError)  # noqa: S101  # FastAPI calls this for FarmError only
    found = of_error(error)
    if found.status == 503:
        log.error("%s %s: %s", request.method, request.url.path, error)
    return _show(request, found)


def refuse(request: Request, error: FarmError, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that an error of ours is, for those who refuse before any handler runs; a page where a person looks."""
    return _show(request, of_error(error), headers)


async def on_key_reused(request: Request, _error: Exception) -> Response:
    """Two different requests under one idempotency key."""
    found = _problem(
        409,
        "This Idempotency-Key was used before for another picture or other settings.",
        "Use a new key for each new job; repeat a key only with the very same request.",
    )
    return _show(request, found)


async def on_validation(request: Request, error: Exception) -> Response:
    """What FastAPI itself found wrong with a request."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this class only
    items = []
    for found in error.errors():
        field = _field(tuple(found["loc"]))
        items.append(
            ErrorItem(field=field, message=f"{field}: {found['msg'][:1].lower()}{found['msg'][1:]}.")
        )
    detail = " ".join(item.message for item in items)
    return _show(request, _problem(422, detail, "The API is described at /openapi.json.", items))


async def on_http(request: Request, error: Exception) -> Response:
    """Statuses that the framework raises: unknown path, wrong method, a body that is no form."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this class only
    detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}."
    if error.status_code == 405:
        detail = f"{request.url.path} does not take {request.method}."
    return _show(request, _problem(error.status_code, detail or error.detail, ""), error.headers)


class LastResort:
    """ASGI middleware: a fault of ours is logged with its trace and shown without.

    Starlette's own handler for this sits outside all middleware, so its answers would lack the security headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on; answers 500 if that raises."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if scope["type"] != "http" or started:
                raise  # nothing can be said any more; the server cuts the connection and logs it
            log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            text = "The farm made a mistake here; it is in the dashboard's log."
            remedy = "Try again; if it happens again, report it with the log."
            request = Request(scope)
            try:
                answer = _show(request, _problem(500, text, remedy))
            except Exception:
                log.exception("The page that shows an error failed too")
                answer = problem(500, text, remedy)
            await answer(scope, receive, send)


def add_handlers(app: FastAPI) -> None:
    """Makes every error of the app a problem."""
    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        FarmError: on_farm_error,
        KeyReusedError: on_key_reused,
        RequestValidationError: on_validation,
        HTTPException: on_http,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


Responses = dict[int | str, dict[str, Any]]


def documented(*statuses: int, **others: str) -> Responses:
    """For a route's `responses`: these statuses are problems; `others` (such as `s304="Not modified"`) are none."""
    found: Responses = {int(name[1:]): {"description": text} for name, text in others.items()}
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in statuses:
        found[status] = {"description": HTTPStatus(status).phrase, "content": content}
    return found
