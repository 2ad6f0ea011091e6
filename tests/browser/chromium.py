"""Where the system's Chromium is, and how it is started, for tests and benchmarks."""

import shutil

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


def find_chromium() -> str | None:
    """The program's path; None where Chromium is not installed (`apt install chromium`)."""
    return shutil.which("chromium") or shutil.which("chromium-browser")
