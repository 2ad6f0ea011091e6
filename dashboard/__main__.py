"""Runs the web process: `python -m dashboard --data DIR --host H --port P [--tls]`. The one place where it is wired to the outside."""

import argparse
import gc
import logging
import signal
import sys
from pathlib import Path
from socket import socket
from types import FrameType

import uvicorn

from dashboard.app import create_app
from dashboard.parts import Parts
from farm.settings import DataDirectory, FarmSettings
from farm.tls import TlsFiles

GRACE_S = 3
"""What open answers may still take after a request to stop; streams end at once."""

KEEP_S = 30
"""How long a connection that says nothing is kept: PCs greet every ten seconds, and with TLS a new one costs more than the greeting.
Longer than they keep it themselves (`node_agent.head_line.KEEP_S`), so that none closes under a greeting that is on its way."""


class Server(uvicorn.Server):
    """uvicorn, with three more habits.

    Once it listens it notes its address for the client verbs on this PC, which need not be told of another --port, and leaves what it
    has loaded out of the search for garbage. When it is told to stop, open event streams end: it would wait for them otherwise.
    """

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Starts to listen, and notes where."""
        await super().startup(sockets)
        if self.started:
            # All that the process loaded stays for good: looked through again and again for garbage, it held pages up for 100 ms.
            gc.collect()
            gc.freeze()
            farm: Parts = self.config.app.state.parts  # type: ignore[union-attr]  # we gave it the app itself
            farm.data.head_url.parent.mkdir(parents=True, exist_ok=True)
            farm.data.head_url.write_text(
                local_url(self.config.host, self.config.port, tls=self.config.is_ssl)
            )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Ends the streams, then stops as usual."""
        app = self.config.app
        app.state.parts.live.close_soon()  # type: ignore[union-attr]  # we gave it the app itself
        super().handle_exit(sig, frame)


def local_url(host: str, port: int, *, tls: bool = False) -> str:
    """The address under which this PC reaches a server that listens on `host`."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104  # a comparison
        host = "127.0.0.1"
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def main() -> None:
    """Serves until SIGTERM or SIGINT."""
    settings = FarmSettings()
    parser = argparse.ArgumentParser(prog="dashboard", description=__doc__)
    parser.add_argument("--data", type=Path, default=settings.data)
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.port)
    parser.add_argument(
        "--tls", action="store_true", help="HTTPS, with the certificate in the data directory"
    )
    given = parser.parse_args()
    settings = settings.model_copy(
        update={"data": given.data, "host": given.host, "port": given.port, "tls": given.tls}
    )
    data = DataDirectory(given.data)
    files = TlsFiles.in_folder(data.tls) if given.tls else None
    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    config = uvicorn.Config(
        create_app(data, settings),
        host=given.host,
        port=given.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,  # a sign-in link holds a token, and an access log would keep it
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        timeout_keep_alive=KEEP_S,
        proxy_headers=False,
        ssl_certfile=files.certificate if files is not None else None,
        ssl_keyfile=files.key if files is not None else None,
    )
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    Server(config).run()


if __name__ == "__main__":
    main()
