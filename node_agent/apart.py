"""A question to a process of its own, with a limit that holds: a driver or a disk that hangs keeps a process from any signal."""

import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import psutil

END_S: Final = 5.0
"""How long a process that was killed may take to be gone."""


def run_apart(
    module: str, *, limit_s: float, environment: Mapping[str, str], given: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Runs a module of ours to its end; `given` is what it reads.

    Raises:
        subprocess.TimeoutExpired: it took longer than `limit_s`. It was killed, which in the kernel's hands may come to nothing.
    """
    # -P: a folder called like a package of ours, where Ray happens to stand, must not take its place.
    command = [sys.executable, "-P", "-m", module]
    pipe = subprocess.PIPE
    # Not subprocess.run, nor `with`: after the limit both wait for the end without one.
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
    try:
        out, err = process.communicate(given, timeout=limit_s)
    finally:
        if process.returncode is None:
            process.kill()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            for end in (process.stdin, process.stdout, process.stderr):
                if end is not None:
                    with suppress(OSError):
                        end.close()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def end_children(pid: int | None = None) -> None:
    """Kills what a process, this one where none is named, has started and is about to leave behind.

    The test of a card goes on without the worker that asked: on a slow PC for a minute, with memory of the card that its owner wants.
    """
    with suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
