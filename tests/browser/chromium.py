"""Where the system's Chromium is, and how it is started, for tests and benchmarks."""

import shutil
from pathlib import Path

CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

QUIET = Path(__file__).with_name("quiet_chromium.py")
"""Starts Chromium so that it does not hear of changes to the PC's network; the variable QUIET_CHROMIUM names the program."""


def find_chromium() -> str | None:
    """The program's path; None where Chromium is not installed (`apt install chromium`)."""
    return shutil.which("chromium") or shutil.which("chromium-browser")
