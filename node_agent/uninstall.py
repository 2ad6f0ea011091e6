"""Removes what the join line installed: the systemd unit, the link to the programs, and the folder with the environment.

Where root ran it, these are the system's, and the user that it made goes too.

Only a folder that the line's script made is touched: it left a mark there. A farm that runs from a checkout keeps its programs.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

UNIT = "old-gpu-farm-node.service"
"""As in dashboard/joining/install.sh, like the paths below."""
SYSTEM_UNIT = Path("/etc/systemd/system") / UNIT
MADE_USER = "made-user"
"""Names, in the programs' folder, the user that the script made."""
MARK = "made-by-the-join-line"
LIMIT_S = 60.0

Say = Callable[[str], None]


def program_folder(prefix: Path | None = None) -> Path | None:
    """The folder that the line's script made for the environment in which this runs; None if it was not made so."""
    place = (prefix or Path(sys.prefix)).parent
    return place if (place / MARK).is_file() else None


def unit_file() -> Path:
    """Where the script puts the unit."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return config / "systemd" / "user" / UNIT


def remove_service(say: Say) -> None:
    """Takes the unit out of systemd, where there is one, so that the node does not start again with this PC."""
    for unit, whose in ((unit_file(), ("--user",)), (SYSTEM_UNIT, ())):
        if not unit.exists() or not os.access(unit.parent, os.W_OK):
            continue
        _systemctl(*whose, "disable", "--now", UNIT)
        unit.unlink()
        _systemctl(*whose, "daemon-reload")
        say(f"Removed the service {UNIT}.")


def remove_programs(place: Path, say: Say) -> None:
    """Removes the folder and the link to it. What runs from there goes on to its end: Linux keeps open files."""
    for link in (Path.home() / ".local" / "bin" / "farm", Path("/usr/local/bin/farm")):
        if link.is_symlink() and place in link.readlink().parents:
            link.unlink()
    made = place / MADE_USER
    user = made.read_text().strip() if made.exists() else ""
    shutil.rmtree(place)
    say(f"Removed the farm's programs in {place}.")
    userdel = shutil.which("userdel")
    if user and userdel is not None:
        if _asked([userdel, "--remove", user]):
            say(f"Removed the user {user}.")
        else:
            say(f"The user {user} is not removed yet: see to it with `sudo userdel --remove {user}`.")


def _systemctl(*words: str) -> None:
    """Asks systemd. Where it does not answer, there is nothing of ours that it runs, or it goes on with it by itself."""
    program = shutil.which("systemctl")
    if program is not None:
        _asked([program, *words])


def _asked(command: list[str]) -> bool:
    """Whether a command of the system ended within `LIMIT_S`: on a busy PC it may not, and the rest must be removed all the same."""
    try:
        subprocess.run(command, capture_output=True, check=False, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return False
    return True
