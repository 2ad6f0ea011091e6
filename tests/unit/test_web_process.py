"""The web process's own habits at its start."""

import asyncio
import gc
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvicorn

from dashboard.__main__ import Server
from farm.settings import DataDirectory


@pytest.mark.parametrize("started", [True, False])
def test_what_is_loaded_is_left_out_of_the_search_for_garbage_once_the_server_listens(
    started: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def startup(self: uvicorn.Server, sockets: object = None) -> None:
        done.append("listens")
        self.started = started

    monkeypatch.setattr(uvicorn.Server, "startup", startup)
    monkeypatch.setattr(gc, "freeze", lambda: done.append("frozen"))
    data = DataDirectory(tmp_path)
    config = uvicorn.Config(
        SimpleNamespace(state=SimpleNamespace(parts=SimpleNamespace(data=data))),  # type: ignore[arg-type]
        port=8123,
    )
    asyncio.run(Server(config).startup())
    assert done == (["listens", "frozen"] if started else ["listens"])
    assert data.head_url.exists() is started
    if started:
        assert data.head_url.read_text() == "http://127.0.0.1:8123"
