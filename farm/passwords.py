"""Passwords: what is taken for one, and how it is kept (Argon2id, RFC 9106) and compared."""

import unicodedata
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from farm.errors import BadInputError

SHORTEST, LONGEST = 8, 1024
"""Characters. NIST SP 800-63B-4 asks for eight at least where it is not the only barrier; the upper bound is there for our own CPU."""

_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)
"""64 MiB and three passes for each guess: some 50 ms of a head's CPU."""


def hash_password(password: str) -> str:
    """What is kept of a password; another each time, since it holds a new salt.

    Raises:
        BadInputError: too short or too long.
    """
    if not SHORTEST <= len(password) <= LONGEST:
        raise BadInputError(
            "password",
            f"A password has {SHORTEST} to {LONGEST} characters, not {len(password)}.",
            "Some unrelated words make a good one.",
        )
    return _HASHER.hash(_same_form(password))


def is_password(kept: str | None, password: str) -> bool:
    """Whether this is the password that is kept so. Without one (no such account) it is False after just as long a time."""
    if len(password) > LONGEST:
        return False
    try:
        _HASHER.verify(kept if kept is not None else _nobodys(), _same_form(password))
    except (VerificationError, InvalidHashError):
        return False
    return kept is not None


@cache
def _nobodys() -> str:
    return _HASHER.hash("")


def _same_form(password: str) -> bytes:
    """Keyboards and systems write one letter in two ways; as bytes, since a form may send what is no text."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
