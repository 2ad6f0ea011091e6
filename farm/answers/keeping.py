"""The farm's own settings, what it keeps for how long, and its tokens."""

from typing import Literal

from farm.answers.base import Answer


class SettingView(Answer):
    """A setting of the farm that can be changed while it runs.

    `source`: "environment" if `variable` was given to `farm up`, so that it cannot be changed here; "page" if an admin set it, else
    "default". `changed_at` and `changed_by` are of the last change by an admin, also back to the default.
    """

    name: str
    value: str | float | None
    default: str | float | None
    source: Literal["environment", "page", "default"]
    variable: str
    changed_at: float | None = None
    changed_by: str | None = None


class RetentionView(Answer):
    """What limits of storage would delete now: picture and clip of so many jobs, so many bytes. Files that other jobs need stay."""

    jobs: int
    bytes: int


class EndedView(Answer):
    """A token was ended, and with it so many browser `sessions` that it had opened. `this_pc`: the head's own PC came in by it."""

    name: str
    sessions: int
    this_pc: bool


class TokenView(Answer):
    """A fresh token, shown this once; the farm keeps only its hash.

    `linux` and `windows` are the lines to paste on a PC that is to join; empty where this head has no package to give.
    """

    token: str
    kind: str
    expires_at: float | None = None
    linux: str = ""
    windows: str = ""
