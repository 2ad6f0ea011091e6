"""Names for new things. ULIDs sort by time, fit in a URL and need no counter that two processes share."""

from ulid import ULID


def new_id() -> str:
    """A new id: 26 letters and digits that sort by the time of making."""
    return str(ULID())
