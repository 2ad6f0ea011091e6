"""Tokens: how they are made, hashed and judged. Pure; `farm.store.registry` keeps them."""

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum

from farm.errors import SignInError


class Scope(StrEnum):
    """How much someone may do; each holds what those before it do."""

    READ = "read"
    """See everything, change nothing."""
    SUBMIT = "submit"
    """Also submit jobs, and control one's own."""
    ADMIN = "admin"
    """Everything: others' jobs, machines, codes for new PCs."""

    def covers(self, needed: "Scope") -> bool:
        """Whether what needs `needed` may be done with this."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER = tuple(Scope)


class Role(StrEnum):
    """What a person is on this farm."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    ADMIN = "admin"

    @property
    def scope(self) -> Scope:
        """What this role may do."""
        return _SCOPES[self]


_SCOPES = {Role.VIEWER: Scope.READ, Role.SUBMITTER: Scope.SUBMIT, Role.ADMIN: Scope.ADMIN}


class TokenKind(StrEnum):
    """What a token is for."""

    ADMIN = "admin"
    """Everything; a client or a script presents it as a bearer token."""
    API = "api"
    """As much as its scope says, and its owner's role allows; presented as a bearer token."""
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
    """What the farm knows of a token; times in wall seconds.

    `scope` is what it may do as things stand: the token's own scope or its owner's role, whichever is less; None for kinds that open
    one door only. `user` is the name of the account it belongs to, if any.
    """

    id: str
    kind: TokenKind
    name: str
    node_id: str | None = None
    expires_at: float | None = None
    used_at: float | None = None
    revoked_at: float | None = None
    scope: Scope | None = None
    user: str | None = None

    @property
    def owner(self) -> str:
        """Whose jobs are the bearer's own: the account, or the token's own name where it belongs to none."""
        return self.user if self.user is not None else self.name

    def may(self, needed: Scope | str) -> bool:
        """Whether this is enough for what needs `needed` (a template says it by name)."""
        return self.scope is not None and self.scope.covers(Scope(needed))

    def may_control(self, submitted_by: str) -> bool:
        """Whether the job that this one submitted may be cancelled, moved, rated and so on."""
        return self.may(Scope.ADMIN) or (self.may(Scope.SUBMIT) and self.owner == submitted_by)


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
            "Use the link that `farm up` prints, or make a token with `farm token new`.",
        )
    if credential.revoked_at is not None:
        raise SignInError("The token was revoked.", "Make a new one with `farm token new`.")
    if credential.expires_at is not None and credential.expires_at <= now:
        raise SignInError(
            "The token has expired.",
            "Use a fresh link from `farm up`, or make a token with `farm token new`.",
        )
    if credential.kind not in accepts:
        kinds = " or ".join(sorted(accepts))
        raise SignInError(
            f"The token is of the kind {credential.kind}; one of the kind {kinds} is needed here.",
            "Make one with `farm token new`.",
        )
    return credential
