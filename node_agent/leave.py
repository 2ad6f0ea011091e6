"""`farm leave`: this PC leaves its farm and nothing is lost: renders go on elsewhere, results are fetched first."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from farm.errors import ConfigurationError
from farm.single import holder
from farm.tls import CA_FILE
from node_agent.head_line import HeadLine, HeadSilentError
from node_agent.identity import has_identity
from node_agent.join import Membership
from node_agent.owner import OwnerRules
from node_agent.pause import pause, resume
from node_agent.spool import Spool
from node_agent.uninstall import program_folder, remove_programs, remove_service

Say = Callable[[str], None]

RESULTS_S = 60.0
"""How long the head has to fetch what lies finished here; a clip takes seconds."""
END_S = 30.0
"""How long `farm join` has to end: Ray takes 1 to 3 s, 8 at the most."""
_LOOK_EVERY_S = 0.2


def leave(home: Path, say: Say, *, uninstall: bool = False) -> None:
    """Leaves the farm. What this PC is called in the farm's history stays in its home.

    `uninstall` removes that too, with the programs if the join line installed them.

    Raises:
        ConfigurationError: this PC is no node, or its `farm join` does not end.
    """
    member = Membership.load(home)
    place = program_folder() if uninstall else None
    if member is None and not (uninstall and (has_identity(home) or place is not None)):
        raise ConfigurationError(
            f"This PC is no node of a farm: {home} holds no membership.",
            "Give the node's directory with --home if it is another one.",
        )
    pid = holder(home / "lock")
    if pid is not None:
        pause(home, "leaving the farm")
        _let_go(home, say)
        _end(home, pid)
    remove_service(say)
    if member is not None:
        _say_bye(home, member, say)
    for name in ("farm.json", "ray-token", CA_FILE, OwnerRules.FILE):
        (home / name).unlink(missing_ok=True)
    shutil.rmtree(home / "tls", ignore_errors=True)
    resume(home)
    if uninstall:
        if home.exists():
            shutil.rmtree(home)
            say(f"Removed {home}.")
        if place is not None:
            remove_programs(place, say)
        else:
            say("The farm's programs themselves lie where you installed them.")
    say("This PC has left the farm. To come back it needs a new code.")


def _let_go(home: Path, say: Say) -> None:
    """Waits until the head has fetched all that this PC made for it."""
    spool = Spool(home / "spool")
    end, told = time.monotonic() + RESULTS_S, False
    while spool.attempts() and time.monotonic() < end:
        if not told:
            say("Waiting until the head has what was rendered here ...")
            told = True
        time.sleep(_LOOK_EVERY_S)
    if spool.attempts():
        say("The head has not fetched everything; it will render that again elsewhere.")


def _end(home: Path, pid: int) -> None:
    """Ends `farm join`, which holds the lock, as Ctrl-C would."""
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + END_S
    while holder(home / "lock") == pid:
        if time.monotonic() > end:
            raise ConfigurationError(
                f"`farm join` (process {pid}) does not end.", f"End it with `kill {pid}`, then leave again."
            )
        time.sleep(_LOOK_EVERY_S)


def _say_bye(home: Path, member: Membership, say: Say) -> None:
    line = HeadLine(member.head, home / CA_FILE)
    try:
        line.bye(member.node_token)
    except HeadSilentError as error:
        say(f"{error.message} It will find out by itself that this PC is gone.")
    finally:
        line.close()
