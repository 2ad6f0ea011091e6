"""`farm demo`: a farm on this PC that renders one sample picture and keeps serving. `make demo` calls it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farm.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from farm.answers.jobs import JobView
    from farm.client import Farm

READY_S = 120.0
PROMPT = "The camera moves slowly forward to the lighthouse"


def demo(
    data: Annotated[Path, typer.Option(help="Where the demo's farm keeps everything.")] = Path("farm-data"),
    once: Annotated[
        bool, typer.Option("--once", help="End after the video; exit 1 if there is none.")
    ] = False,
    port: Annotated[
        int, typer.Option(help="Port of the dashboard; the next free one if it is taken.")
    ] = 8000,
) -> None:
    """Start a farm on this PC, render one sample picture, and keep serving until Ctrl-C."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    data = data.absolute()
    port = _free_from(port)
    up = _start(data, port)
    try:
        link = _wait_ready(up, console)
        clip = _render(data, port, console)
        console.print(f"\nYour video:     {clip}")
        console.print(f"The dashboard:  {link}")
        if not once:
            console.print("\nDrop your own pictures there. Ctrl-C ends the farm.")
            up.wait()
    except KeyboardInterrupt:
        console.print()
    finally:
        _end(up)


def _start(data: Path, port: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "farm.cli.main", "up", "--data", str(data), "--port", str(port)]
    # In a session of its own: Ctrl-C is ours to take, and to pass on once.
    return subprocess.Popen(
        [*command, "--no-tls"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _wait_ready(up: "subprocess.Popen[str]", console: "Console") -> str:
    """Passes `farm up`'s words on until it is ready; returns the sign-in link."""
    assert up.stdout is not None  # noqa: S101 - asked for above
    end = time.monotonic() + READY_S
    said = []
    with console.status("Starting the farm ..."):
        while time.monotonic() < end:
            line = up.stdout.readline()
            if not line:
                break
            said.append(line.rstrip())
            found = re.search(r"http://\S+/signin\?token=\S+", line)
            if found is not None:
                _drain(up)
                return found.group()
    raise ConfigurationError(
        "The farm did not start:\n  " + "\n  ".join(said[-8:]), "Run `farm up` to see more."
    )


def _drain(up: "subprocess.Popen[str]") -> None:
    """Reads on what `farm up` says, so that it never waits for a full pipe; a trouble it reports is passed on."""
    from threading import Thread

    def read() -> None:
        for line in up.stdout or ():
            if "again" in line or "ended" in line:
                sys.stderr.write(line)

    Thread(target=read, daemon=True).start()


def _render(data: Path, port: int, console: "Console") -> Path:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from farm.cli.sample import write_sample
    from farm.client import Farm
    from farm.settings import DataDirectory

    picture = write_sample(data / "sample.png")
    token = DataDirectory(data).admin_token.read_text().strip()
    with Farm(f"http://127.0.0.1:{port}", token) as farm:
        preset = _preset(farm, data, console)
        job = farm.submit(picture, preset=preset, prompt=PROMPT)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(f"Rendering ({preset})", total=None)

            def show(now: "JobView") -> None:
                if now.progress is not None and now.progress.total:
                    progress.update(task, completed=now.progress.done, total=now.progress.total)

            done = farm.wait(job.id, show)
        if done.status != "finished":
            raise ConfigurationError(
                f"The demo's job {done.status}: {done.failure or done.unplaceable or 'no reason given'}",
                f"Its log: farm show {done.id}, and the files in {DataDirectory(data).logs}.",
            )
        clip = farm.video(job.id, data / "demo.mp4")
        where = done.attempts[-1].card_name if done.attempts else "a card"
        console.print(f"Rendered on {where} ({'a draft without diffusion' if done.draft else preset}).")
        return clip


def _preset(farm: "Farm", data: Path, console: "Console") -> str:
    """A real preview where a graphics card holds the weights; else the draft, saying what is missing."""
    end = time.monotonic() + 30.0
    cards = farm.cards()
    while not cards and time.monotonic() < end:
        time.sleep(0.2)
        cards = farm.cards()
    if any("i2vgen-xl" in card.models for card in cards):
        return "preview"
    if any(card.kind == "cuda" for card in cards):
        console.print(
            "The graphics card is there, the weights of I2VGen-XL are not. To fetch them (about 6 GB):"
        )
        console.print(f"  .venv/bin/farm models pull i2vgen-xl --data {data}")
    return "draft"


def _free_from(port: int) -> int:
    for candidate in range(port, port + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    raise ConfigurationError(f"No port from {port} to {port + 99} is free.", "Choose another with --port.")


def _end(up: "subprocess.Popen[str]") -> None:
    if up.poll() is None:
        os.kill(up.pid, signal.SIGINT)
        up.wait(60)
