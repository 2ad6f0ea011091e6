"""Greetings that say what the same PC said ten seconds ago: answered as then, without the way through the whole app.

What could change the answer is looked at: where the head's Ray is, each time, and whether the tokens are still good, of all PCs together
every two seconds. All else that it is made of, the greeting's own bytes and what runs here, is as it was. So a PC learns nothing that it
was not told before. Of 200 PCs' greetings this saves the head two thirds (docs/decisions/0025).
"""

from dataclasses import dataclass

from anyio import to_thread
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dashboard.api.join import Repeatable, due, ray_facts, write_down
from dashboard.parts import Parts, parts_of
from dashboard.signin import bearer
from farm.auth import TokenKind, hash_token
from farm.errors import FarmError

PATH = "/api/v1/nodes/hello"
MOST_BYTES = 1000
"""A greeting has some 150; one that asks for a certificate is longer."""
JUDGED_FOR_S = 2.0
"""How long a look at all tokens counts. One that this process itself ends counts no longer at once (`Greetings.forget`)."""


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
        self._good: frozenset[str] = frozenset()
        self._judged = float("-inf")

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
            if as_before and await self._holds(farm, key, before.what):
                self._answers[key] = before
                for message in before.messages:
                    await send(message)
                heard_of = due(farm, before.what.node_id)
                if heard_of:
                    await to_thread.run_sync(write_down, farm, heard_of)
                return
        said: list[Message] = []

        async def noted(message: Message) -> None:
            said.append(message)
            await send(message)

        await self._app(scope, heard.receive, noted)
        what: Repeatable | None = scope.get("state", {}).get("repeatable")
        if what is not None and said and said[0]["status"] == 200:
            self._answers[key] = _Answer(bytes(heard.taken), address, tuple(said), what)

    async def _holds(self, farm: Parts, key: str, what: Repeatable) -> bool:
        """Whether the same would be answered now."""
        now = farm.clock.monotonic()
        if now - self._judged > JUDGED_FOR_S:
            self._good = await to_thread.run_sync(farm.reader.good_tokens, TokenKind.NODE, farm.now())
            self._judged = now
        try:
            as_it_was = ray_facts(farm) == what.ray
        except FarmError:  # whoever answers this greeting says why
            return False
        return as_it_was and key in self._good and farm.greeted.said(what.node_id) is what.said


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
