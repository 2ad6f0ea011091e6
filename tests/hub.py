"""A small Hugging Face hub on a local port: as much of its protocol as huggingface_hub's downloads speak, and some ways of failing."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    """What the hub has and what it was asked.

    `token`: only who sends it gets anything. `cut_after`: each of these files ends early, once, after so many bytes. `damaged`: these
    files come with another first byte. `asked` has the files of each GET with the byte it was asked from.
    """

    repository: str
    files: dict[str, bytes]
    token: str | None = None
    cut_after: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    asked: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""

    def served(self) -> set[str]:
        """The files that were asked for."""
        return {path for path, _ in self.asked}


def files_of(directory: Path) -> dict[str, bytes]:
    """All files of a directory, by their path within it."""
    return {
        str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()
    }


@contextmanager
def running_hub(hub: Hub) -> Iterator[Hub]:
    """Serves the hub until the block ends."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _answer(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            return
        about, files = f"/api/models/{hub.repository}", f"/{hub.repository}/resolve/{COMMIT}/"
        if path == about or path.startswith(f"{about}/revision/"):
            self._send(200, json.dumps(self._info()).encode(), {"Content-Type": "application/json"})
        elif path.startswith(files) and path.removeprefix(files) in hub.files:
            self._file(path.removeprefix(files))
        else:
            code = "EntryNotFound" if path.startswith(files) else "RepoNotFound"
            self._send(404, b"", {"X-Error-Code": code})

    def _info(self) -> dict[str, Any]:
        siblings = []
        for path, data in self.hub.files.items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(data)}
            if path.endswith((".safetensors", ".bin")):
                digest = hashlib.sha256(data).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
            siblings.append(entry)
        name = self.hub.repository
        return {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}

    def _file(self, path: str) -> None:
        data = self.hub.files[path]
        headers = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        if self.command == "HEAD":
            self._send(200, data, headers)
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.hub.asked.append((path, start))
        if path in self.hub.damaged:
            data = bytes([data[0] ^ 1]) + data[1:]
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = self.hub.cut_after.pop(path, None)
        self._send(206 if start else 200, data[start:], headers, cut=cut)

    def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if cut is not None:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = cut is not None
