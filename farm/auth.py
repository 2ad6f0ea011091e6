"""Tokens: how they are made, hashed and judged. Pure; `farm.store.registry` keeps them."""

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum

from farm.errors import SignInError


class TokenKind(StrEnum):
    """What a token may do."""

    ADMIN = "admin"
    """Everything; a client or a script presents it as a bearer token."""
    SIGN_IN = "signin"
    """In the link that `farm up` prints: makes a browser session."""
    SESSION = "session"
    """A browser's cookie."""
    JOIN = "join"
    """Single use: makes a PC a node of the farm."""
    NODE = "node"
    """A node's own credential for coming back."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What the farm knows of a token; times in wall seconds."""

    id: str
    kind: TokenKind
    name: str
    node_id: str | None = None
    expires_at: float | None = None
    used_at: float | None = None
    revoked_at: float | None = None


def new_token() -> str:
    """A new token: 256 random bits, safe in a URL; never with a dash in front, where a program would take it for an option."""
    made = secrets.token_urlsafe(32)
    return "_" + made[1:] if made.startswith("-") else made


def hash_token(token: str) -> str:
    """The form in which a token is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def judge(credential: Credential | None, accepts: frozenset[TokenKind], now: float) -> Credential:
    """The credential, if it is good for this use at `now`.

    Raises:
        SignInError: unknown, of another kind, expired, or revoked; the message says which.
    """
    if credential is None:
        raise SignInError(
            "The token is not one of this farm's.",
            "Use the link that `farm up` prints, or make a token with `farm token`.",
        )
    if credential.revoked_at is not None:
        raise SignInError("The token was revoked.", "Make a new one with `farm token`.")
    if credential.expires_at is not None and credential.expires_at <= now:
        raise SignInError(
            "The token has expired.", "Use a fresh link from `farm up`, or make a token with `farm token`."
        )
    if credential.kind not in accepts:
        kinds = " or ".join(sorted(accepts))
        raise SignInError(
            f"This is a {credential.kind} token; a {kinds} token is needed here.",
            "Make one with `farm token`.",
        )
    return credential
