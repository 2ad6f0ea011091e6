"""`farm local pause`: a file in the node's home, which its agent looks for four times a second. Works without the head."""

from pathlib import Path

from farm.secret_files import write_secret

_FILE = "paused"


def pause(home: Path, reason: str = "paused on that PC with `farm local pause`") -> None:
    """The farm leaves this PC's cards at once, and takes them again after `resume`."""
    write_secret(home / _FILE, reason + "\n")


def resume(home: Path) -> bool:
    """Takes the pause away; False if there was none."""
    try:
        (home / _FILE).unlink()
    except FileNotFoundError:
        return False
    return True


def pause_reason(home: Path) -> str | None:
    """Why this PC is paused; None if it is not. A file that cannot be read pauses too: it is there."""
    try:
        return (home / _FILE).read_text().strip() or "paused on that PC"
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"paused on that PC ({error.strerror})"
