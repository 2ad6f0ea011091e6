"""Tags: words by which a job asks for certain PCs ("studio", "quiet") and with which a PC's owner marks it. Pure."""

import re
from collections.abc import Iterable

from farm.errors import BadInputError

MOST = 16
"""Tags of one PC, and of one job."""
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")


def read_tags(words: Iterable[str], field: str) -> tuple[str, ...]:
    """The tags in small letters, each once, sorted. `field` names the input in errors.

    Raises:
        BadInputError: too many, or one is not a word of letters, digits, ".", "_" and "-", 32 at most.
    """
    found = sorted({word.strip().lower() for word in words})
    if len(found) > MOST:
        raise BadInputError(field, f"{len(found)} tags are too many.", f"Give {MOST} at most.")
    for word in found:
        if not _WORD.fullmatch(word):
            remedy = 'Use letters a to z, digits, ".", "_" and "-", 32 at most, such as "studio".'
            raise BadInputError(field, f"{word[:40]!r} cannot be a tag.", remedy)
    return tuple(found)
