"""A node renders as a user who may do nothing else: started by root, `farm join` becomes that user before it does anything.

`farm up` becomes the one that it is told. Ray lets whoever holds its token run code on a node as the user of its daemons
(docs/threat-model.md), and a decoder of pictures may have faults: neither shall have the PC.
"""

import os
import pwd
import sys
from collections.abc import Callable
from pathlib import Path

import farm
from farm.errors import ConfigurationError

NODE_USER = "old-gpu-farm"
"""Made by the line that adds a PC, where root pasted it (dashboard/joining/install.sh)."""
_MAKE = "sudo useradd --system --user-group --create-home --home-dir /var/lib/{name} --shell /usr/sbin/nologin {name}"


def step_down(name: str, say: Callable[[str], object]) -> None:
    """Where root runs this, starts the same command anew as the user `name`, `NODE_USER` if that is empty; does not return then.

    For `name` "root" it says what that means, and goes on.

    Raises:
        ConfigurationError: there is no such user, it cannot read the farm's programs, or who runs this is not root and another user.
    """
    if os.geteuid() != 0:
        if name and name != pwd.getpwuid(os.geteuid()).pw_name:
            raise ConfigurationError(
                f"Only root can become {name}.", "Leave --as-user out: you are an ordinary user already."
            )
        return
    user = name or NODE_USER
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigurationError(
            f"Renders run as a user who may do nothing else, and root started this; there is no user {user} here.",
            f"Start it as an ordinary user, or make one: {_MAKE.format(name=user)} && sudo usermod -a -G video {user}",
        ) from None
    if entry.pw_uid == 0:
        say(
            "What this PC renders runs as root: whoever knows Ray's token may do anything to it. "
            "Name another user in --as-user to change that."
        )
        return
    _become(entry)
    say(f"Going on as {user}, who may do nothing else on this PC.")
    sys.stdout.flush()  # what is still in the buffer would not get through
    again = [sys.executable, "-P", "-m", "farm.cli.main", *sys.argv[1:]]
    os.execve(sys.executable, again, _environment(entry))  # noqa: S606 - no shell is what we mean


def _become(entry: pwd.struct_passwd) -> None:
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)  # of root: real, effective and saved, and no capability is left
    os.umask(0o077)
    for needed, how in ((Path(sys.executable), os.X_OK), (Path(farm.__file__), os.R_OK)):
        if not os.access(needed, how):
            raise ConfigurationError(
                f"The user {entry.pw_name} cannot read the farm's programs: {needed}.",
                'Install them where others may read, such as /opt; the line of "Add a PC" does, pasted by root.',
            )
    if not os.access(".", os.X_OK):
        os.chdir("/")


def _environment(entry: pwd.struct_passwd) -> dict[str, str]:
    """Ours, with that user's home in place of root's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "SUDO_"))}
    return kept | {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
