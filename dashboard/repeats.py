"""Greetings that say what the same PC said ten seconds ago: answered as then, without the way through the whole app.

What could change the answer is looked at each time: whether the token is still good, and where the head's Ray is. All else that it is made
of, the greeting's own bytes and what runs here, is as it was. Of 200 PCs' greetings this saves the head half (docs/decisions/0025).
"""

from dataclasses import dataclass

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.api.join import Repeatable, hear_again, ray_facts
from dashboard.parts import Parts, parts_of
from dashboard.signin import NODES, bearer, check
from farm.auth import hash_token
from farm.errors import FarmError

PATH = "/api/v1/nodes/hello"
MOST_BYTES = 1000
"""A greeting has some 150; one that asks for a certificate is longer."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was answered to these bytes from this address."""

    body: bytes
    address: str
    messages: tuple[Message, ...]
    what: Repeatable


class RepeatedGreetings:
    """ASGI middleware outside of `SignedIn`: passes on whatever is not to the letter as it was, and remembers what became of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answers: dict[str, _Answer] = {}
        """By the hash of the PC's token."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers as before where that is right."""
        token = _token(scope)
        if token is None:
            await self._app(scope, receive, send)
            return
        key, address = hash_token(token), scope["client"][0] if scope.get("client") else ""
        heard, before = _Heard(receive), self._answers.pop(key, None)
        if before is not None:
            as_before = before.address == address and before.body == await heard.whole()
            farm = parts_of(HTTPConnection(scope))
            if as_before and await to_thread.run_sync(_holds, farm, token, before.what):
                self._answers[key] = before
                for message in before.messages:
                    await send(message)
                return
        said: list[Message] = []

        async def noted(message: Message) -> None:
            said.append(message)
            await send(message)

        await self._app(scope, heard.receive, noted)
        what: Repeatable | None = scope.get("state", {}).get("repeatable")
        if what is not None and said and said[0]["status"] == 200:
            self._answers[key] = _Answer(bytes(heard.taken), address, tuple(said), what)


class _Heard:
    """A request's body, as it comes; what was read ahead comes again to whoever asks next."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._again: list[Message] = []
        self.taken = bytearray()

    async def receive(self) -> Message:
        """See ASGI."""
        return self._again.pop(0) if self._again else await self._take()

    async def whole(self) -> bytes:
        """All of it; it was seen to be short before."""
        while True:
            message = await self._take()
            self._again.append(message)
            if not message.get("more_body", False):  # its end, or that of the connection
                return bytes(self.taken)

    async def _take(self) -> Message:
        message = await self._receive()
        self.taken += message.get("body", b"")
        return message


def _token(scope: Scope) -> str | None:
    """The token of what may be a greeting: short, and not longer than it says."""
    if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
        return None
    headers = Headers(scope=scope)
    stated = headers.get("content-length", "")
    short = stated.isdigit() and int(stated) <= MOST_BYTES and "transfer-encoding" not in headers
    return (bearer(headers) or None) if short else None


def _holds(farm: Parts, token: str, what: Repeatable) -> bool:
    """Whether the same would be answered now; the greeting counts then as heard."""
    try:
        check(farm, token, NODES)
        if ray_facts(farm) != what.ray:
            return False
    except FarmError:  # whoever answers it says why
        return False
    if farm.greeted.said(what.node_id) is not what.said:
        return False
    hear_again(farm, what.node_id)
    return True
