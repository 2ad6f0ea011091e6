"""Verbs of `farm`: in the test's own process, without the half second of a core that a process takes to start, or in one of their own."""

import io
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess

import pytest

from farm.cli.main import main


def run_here(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Runs a verb as `farm` would, errors and exit status too, with these variables above the test's own.

    For verbs that ask a head or a store and end. What is a process's own, as signals and what is loaded, needs a process.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["farm", *arguments])
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def run_apart(
    arguments: Sequence[str], environment: Mapping[str, str] | None = None, *, limit_s: float = 60.0
) -> CompletedProcess[str]:
    """The same in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "farm.cli.main", *arguments],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )
