"""Security headers on every answer."""

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' data: blob:",  # blob: the picture that was dropped, before it is sent
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_ALWAYS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class SecurityHeaders:
    """ASGI middleware.

    `Referrer-Policy` is `no-referrer` for the sign-in page, whose address may hold a token, and `same-origin` elsewhere: under
    `no-referrer` a browser sends `Origin: null` with plain forms, and over http on a LAN, where it sends no `Sec-Fetch-Site`,
    our own forms could not be told from another site's.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds the headers to the answer's start."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        signing_in = scope["path"].startswith("/signin")
        static = scope["path"].startswith(
            "/static/"
        )  # kept by browsers, but asked for anew: they carry an ETag

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                headers.setdefault("referrer-policy", "no-referrer" if signing_in else "same-origin")
                headers.setdefault("cache-control", "no-cache" if static else "no-store")
            await send(message)

        await self._app(scope, receive, with_headers)
