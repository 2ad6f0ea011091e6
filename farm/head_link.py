"""One client's connection to a head: calls, what is tried again, and the head's errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import TypeAdapter, ValidationError

from farm.errors import (
    BadInputError,
    BadSettingsError,
    BodyTooLargeError,
    ConflictError,
    FarmError,
    ForbiddenError,
    HeadUnreachableError,
    NotFoundError,
    SignInError,
)
from farm.tls import trust

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
TRIES = 3

Shape = TypeVar("Shape")
_ERRORS: dict[int, type[FarmError]] = {
    401: SignInError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    413: BodyTooLargeError,
}


class HeadLink:
    """The connection to the head at `head` (URL) with `token`; `ca` is the certificate of the farm's authority, where the head has TLS.

    Its calls raise `HeadUnreachableError` when nobody answers, and the error that the head names otherwise.

    Raises:
        BadInputError: field "head": it is no address.
        SignInError: the token cannot be one.
    """

    def __init__(self, head: str, token: str, ca: Path | None = None) -> None:
        self.head = head.rstrip("/")
        host_of(self.head)
        token = token.strip()
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise SignInError("The token is empty, or holds what no token of a farm holds.", "Copy it again.")
        self._http = httpx.Client(
            base_url=f"{self.head}/api/v1",
            headers={"authorization": f"Bearer {token}"},
            timeout=TIMEOUT,
            verify=trust(self.head, ca),
        )

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    @contextmanager
    def stream(self, path: str, timeout: httpx.Timeout, **request: Any) -> Iterator[httpx.Response]:
        """What is at a path, to be read block by block; not tried again."""
        with self._reaching(), self._http.stream("GET", path, timeout=timeout, **request) as answer:
            if answer.is_error:
                answer.read()
                raise _error_of(answer, self.head)
            yield answer

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        """One call; a broken connection is tried again where that is safe: reading, and submitting under a key."""
        safe = method == "GET" or "idempotency-key" in request.get("headers", {})
        for left in reversed(range(TRIES if safe else 1)):
            try:
                with self._reaching():
                    answer = self._http.request(method, path, **request)
                    break
            except HeadUnreachableError as error:
                if left == 0 or isinstance(error.__cause__, httpx.ConnectError):
                    raise
        if not answer.is_success:
            raise _error_of(answer, self.head)
        return answer

    def read(self, shape: TypeAdapter[Shape], answer: httpx.Response) -> Shape:
        """The answer's body in its shape."""
        try:
            return shape.validate_json(answer.content)
        except ValidationError as error:
            raise HeadUnreachableError(
                f"What answers at {self.head} speaks differently from this client.",
                "Check --head, and that both run the same version of the farm.",
            ) from error

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turns what httpx says of a head that is away into our words."""
        try:
            yield
        except httpx.TransportError as error:
            raise HeadUnreachableError(
                f"The head at {self.head} does not answer ({_cause(error)}).",
                "Start it there with `farm up`, or name another with --head or FARM_HEAD.",
            ) from error


def _cause(error: httpx.TransportError) -> str:
    if isinstance(error, httpx.TimeoutException):
        return "it took too long"
    return str(error) or "the connection broke"


def _error_of(answer: httpx.Response, head: str) -> FarmError:
    """The error that an answer tells of."""
    try:
        said = answer.json()
        detail, remedy = str(said["detail"]), str(said.get("remedy", ""))
        items = [
            (str(item["field"]), str(item["message"]), str(item.get("remedy", ""))) for item in said["errors"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return HeadUnreachableError(
            f"What answers at {head} is not a farm (HTTP {answer.status_code}).", "Check --head or FARM_HEAD."
        )
    if answer.status_code == 422:
        wrong = tuple(BadInputError(*item) for item in items) or (BadInputError("request", detail, remedy),)
        return wrong[0] if len(wrong) == 1 else BadSettingsError(wrong)
    return _ERRORS.get(answer.status_code, FarmError)(detail, remedy)


def host_of(head: str) -> str:
    """The host in a head's address."""
    try:
        parts = urlsplit(head)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts.hostname
    except ValueError:
        pass
    raise BadInputError("head", f"{head!r} is no address of a head.", "Write it as http://HOST:8000.")
