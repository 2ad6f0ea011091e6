"""The head that a client means where none is named, its authority, and this PC's own token for it."""

from pathlib import Path

from farm.errors import SignInError
from farm.head_link import host_of
from farm.settings import DataDirectory, FarmSettings
from farm.tls import TlsFiles


def own_head(settings: FarmSettings) -> str:
    """Where this PC's own head is, on whatever port it was started."""
    try:
        return DataDirectory(settings.data).head_url.read_text().strip() or settings.head
    except OSError:
        return settings.head


def own_ca(settings: FarmSettings) -> Path:
    """The authority that is named in FARM_CA, else this PC's own farm's."""
    return settings.ca or TlsFiles.in_folder(DataDirectory(settings.data).tls).ca


def own_token(head: str, own: str, settings: FarmSettings) -> str:
    """This PC's own client token, which is only for this PC's own head: a stranger's must not be told it."""
    if host_of(head) not in ("127.0.0.1", "localhost", "::1") and head.rstrip("/") != own:
        raise SignInError(
            f"No token is given for the head at {head}.",
            "Make one there with `farm token new`, and name it with --token or FARM_TOKEN.",
        )
    path = DataDirectory(settings.data).admin_token
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SignInError(
            f"There is no token: none is given, and {path} cannot be read ({error.strerror}).",
            "Start the farm with `farm up` (with the same --data or FARM_DATA), or name one with --token.",
        ) from error
