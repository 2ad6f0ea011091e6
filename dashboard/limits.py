"""Refuses bodies over the limit while they are read: no more than the limit is ever held, on disk or in memory."""

import time
from collections.abc import Callable

from anyio import to_thread
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.problems import problem
from farm.errors import BodyTooLargeError

SMALL_BYTES = 1 << 20
"""Most that any request but an upload may send; these are a few hundred bytes of JSON, and some need no token."""
UPLOADS = frozenset({"/api/v1/jobs", "/api/v1/batches"})
LINGER_S = 1.0
LINGER_BYTES = 4 << 20
"""After the refusal a little more is read and thrown away: a connection that is closed with unread data is reset, and the client
may lose the answer. Whoever sends on after that is cut off."""


class BodyLimit:
    """ASGI middleware. Looks at Content-Length first and counts bytes for those that do not say, or lie."""

    def __init__(self, app: ASGIApp, limit_bytes: Callable[[], int]) -> None:
        """`limit_bytes` tells the limit of uploads as it holds now; it is asked on a thread, since an admin's word lies in the store."""
        self._app = app
        self._limit = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on until it has sent too much."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = await to_thread.run_sync(self._limit) if scope["path"] in UPLOADS else SMALL_BYTES
        headers = dict(scope["headers"])
        stated = headers.get(b"content-length", b"")
        if stated.isdigit() and int(stated) > limit:
            await self._refuse(receive, send, limit)
            return
        taken, over, started = 0, False, False
        whole = not stated.strip(b"0") and b"transfer-encoding" not in headers

        async def counted() -> Message:
            nonlocal taken, over, whole
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if taken > limit:
                    over = True
                    raise _error(limit)
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            if over and not started:
                return  # the framework answers 400 to any trouble with a body; ours says which
            if message["type"] == "http.response.start":
                started = True
                if not whole:
                    # Else the server would read on, whatever comes, to be ready for the next request.
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        try:
            await self._app(scope, counted, guarded)
        except BodyTooLargeError:
            if not over or started:
                raise
        if over and not started:
            await self._refuse(receive, send, limit)

    @staticmethod
    async def _refuse(receive: Receive, send: Send, limit: int) -> None:
        error = _error(limit)
        answer = problem(413, error.message, error.remedy, headers={"connection": "close"})
        await send({"type": "http.response.start", "status": 413, "headers": answer.raw_headers})
        await send({"type": "http.response.body", "body": bytes(answer.body), "more_body": True})
        until, left, more = time.monotonic() + LINGER_S, LINGER_BYTES, True
        while more and left > 0 and time.monotonic() < until:
            message = await receive()
            more = message["type"] == "http.request" and message.get("more_body", False)
            left -= len(message.get("body", b""))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _error(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"The upload is larger than {limit / 2**20:g} MiB, the most that this farm takes here.",
        "Scale the picture down (1920 pixels a side is plenty), or let the farm's admin allow more: on the page Settings, or with "
        "FARM_MAX_UPLOAD_MIB on the head.",
    )
