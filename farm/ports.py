"""Looks before a server is started whether its ports are free, and says who holds them."""

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from farm.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Wanted:
    """A port that something is about to listen on. `option` is how the user chooses another."""

    host: str
    port: int
    use: str
    option: str


TAKEN = "End that program or choose another port with {option}."
OTHER = "Choose another port with {option}."
ADDRESS = "Give one of this PC's IPv4 addresses with --host, or 0.0.0.0 for all of them."


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a port cannot be had, and what helps."""

    said: str
    remedy: str


def check(wanted: Iterable[Wanted]) -> None:
    """Passes if every port can be had.

    Raises:
        ConfigurationError: the first that cannot, with the program that holds it where that can be known.
    """
    for one in wanted:
        problem = _problem(one)
        if problem is not None:
            raise ConfigurationError(
                f"Port {one.port}, wanted for {one.use}, {problem.said}.",
                problem.remedy.format(option=one.option),
            )


def is_free(port: int) -> bool:
    """Whether nothing listens on a port, on any address of this PC."""
    return _problem(Wanted("0.0.0.0", port, "", "")) is None  # noqa: S104 - binds for a moment, to ask


def holder(port: int) -> str | None:
    """The program that listens on a port, as "name (process 123)"; None where this user may not know."""
    try:
        found = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return None
    for connection in found:
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
            except psutil.Error:
                return f"process {connection.pid}"
    return None


def _problem(one: Wanted) -> _Problem | None:
    try:
        family = socket.getaddrinfo(one.host, one.port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            # With this option old connections that are just ending are no obstacle, as they are none to the servers.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((one.host, one.port))
            sock.listen()  # only this finds one that listens with the same option
    except socket.gaierror:
        return _Problem(f"cannot be opened: {one.host} is not an address", ADDRESS)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            who = holder(one.port)
            return _Problem(f"is taken by {who}" if who else "is taken by another program", TAKEN)
        if error.errno == errno.EADDRNOTAVAIL:
            return _Problem(f"cannot be opened: {one.host} is not an address of this PC", ADDRESS)
        if error.errno == errno.EACCES:
            return _Problem("may be opened by root only", OTHER)
        return _Problem(f"cannot be opened: {error.strerror}", OTHER)
    return None
