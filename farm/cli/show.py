"""What the client verbs share: their options, and how tables, times and sizes look."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

Head = Annotated[
    str | None, typer.Option("--head", metavar="URL", help="The farm's head; default: FARM_HEAD or this PC.")
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", metavar="TOKEN", help="Default: FARM_TOKEN, or this PC's own where the head is this PC."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def writing(target: "Path") -> Iterator[None]:
    """Around writing a file that a verb makes: what the disk refuses is told with the file.

    Raises:
        ConfigurationError: it cannot be written.
    """
    from farm.errors import ConfigurationError

    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"Cannot write {target}: {error.strerror or error}.",
            "Make room there, or name a folder that you may write.",
        ) from error


def console(*, err: bool = False) -> "Console":
    """Where to print. Into a pipe lines are long, so that no id is cut."""
    from rich.console import Console

    made = Console(stderr=err, highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(stderr=err, highlight=False, width=220)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; the first column (an id or a name) is never cut."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for number, column in enumerate(columns):
        drawn.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_plain(cell)) for cell in row))
    console().print(drawn)


def _plain(text: str) -> str:
    """Without control characters: a prompt must not be able to steer the terminal."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def ago(at: float | None) -> str:
    """A time as a person says it: "5 min ago"."""
    if at is None:
        return "-"
    return f"{duration(max(0.0, time.time() - at))} ago"


def duration(seconds: float | None) -> str:
    """Seconds as "12 s", "5 min", "3 h", "2 d"."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def gib(size: float | None) -> str:
    """A size in GiB."""
    return "-" if size is None else f"{size:.1f} GiB"
