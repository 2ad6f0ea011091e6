"""Who this PC is to the farm: its node home, where the identity outlives every restart."""

import contextlib
import json
import os
import platform
import pwd
from dataclasses import asdict, dataclass
from pathlib import Path

from platformdirs import user_data_path

from farm.errors import ConfigurationError
from farm.secret_files import ensure_private_directory, write_secret
from farm.unprivileged import NODE_USER

_FILE = "node.json"
_HOME = "old-gpu-farm-node"


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's id, given once and kept for ever, and the name that people see."""

    node_id: str
    name: str


def default_home() -> Path:
    """Where `farm join` keeps identity, secrets and spool when no directory is named.

    For root that is where the node's own user has them, if there is one: `farm leave` and `farm local pause` are its owner's.
    """
    own = user_data_path(_HOME)
    if os.geteuid() == 0 and not has_identity(own):
        with contextlib.suppress(KeyError):
            return Path(pwd.getpwnam(NODE_USER).pw_dir) / ".local" / "share" / _HOME
    return own


def default_name() -> str:
    """What a PC is called when its owner gave no name: its host name."""
    return platform.node().split(".")[0] or "node"


def load_identity(home: Path) -> Identity:
    """The identity in a node home.

    Raises:
        ConfigurationError: there is none, or its file cannot be read.
    """
    file = home / _FILE
    try:
        data = json.loads(file.read_text())
        return Identity(node_id=str(data["node_id"]), name=str(data["name"]))
    except FileNotFoundError:
        raise ConfigurationError(
            f"This PC has no identity: {file} does not exist.",
            "Join a farm first: farm join HEAD --token CODE, with a code from `farm token new --kind join` there.",
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"This PC's identity cannot be read from {file}: {error!r}.",
            "Remove that file and join again with a new code.",
        ) from error


def has_identity(home: Path) -> bool:
    """Whether this home belongs to a node."""
    return (home / _FILE).exists()


def save_identity(home: Path, identity: Identity) -> None:
    """Writes the identity, whole or not at all."""
    ensure_private_directory(home)
    write_secret(home / _FILE, json.dumps(asdict(identity)) + "\n")
