"""What every test may use."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from farm.settings import QUIET_ENVIRONMENT

# A machine that does other things too makes some examples slow to draw; how long they take is not what is tested.
hypothesis.settings.register_profile(
    "farm", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("farm")
sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.update(QUIET_ENVIRONMENT)
# The networks in these tests are tiny: a second thread, on a machine that does other things too, makes them several times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Many of these tests are root's, whose directories another user could not enter; test_service.py has a node with a user of its own. Here,
# since the farms that a file's tests share are started before any test's own environment.
os.environ["FARM_AS_USER"] = "root"
KEPT = ("FARM_REQUIRE_NETWORK_TESTS", "FARM_WRITE_DOC_IMAGES", "FARM_AS_USER")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the settings or the farm of the person who runs it."""
    for name in list(os.environ):
        if name.startswith("FARM_") and name not in KEPT:
            monkeypatch.delenv(name)
    monkeypatch.setenv("FARM_DATA", str(tmp_path / "farm-data"))
    return


@pytest.fixture(scope="session")
def checkpoint_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small checkpoints lie that `tests.checkpoints` writes once for all. Who damages one damages a copy of it."""
    return tmp_path_factory.mktemp("checkpoints")


ORDER = ("unit", "property", "diffusion", "gpu", "docs", "integration", "whole_farm", "network", "browser")
"""The quick ones first. The browser's driver comes last: it keeps an event loop running in the main thread until the session ends."""
SIDE_BY_SIDE = (
    "whole_farm",
    "diffusion",
    "integration",
    "network",
    "unit",
    "property",
    "gpu",
    "docs",
    "browser",
)
"""In several processes, each of which takes file after file: those that take longest come first."""

TOGETHER = ("whole_farm", "diffusion")
"""Folders whose tests share what is dear: one process takes all of such a folder."""


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests by folder; within a folder they keep their order."""
    order = SIDE_BY_SIDE if "PYTEST_XDIST_WORKER" in os.environ else ORDER
    items.sort(key=lambda item: order.index(_folder(item)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """File by file over the processes, but some folders whole."""
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrFolder(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = Path(super()._split_scope(nodeid))
            return str(file.parent if file.parent.name in TOGETHER else file)

    return ByFileOrFolder(config, log)


def pytest_collection_finish() -> None:
    """What was imported is never garbage, and takes a quarter of a second to search: at every unload of a model, for one."""
    gc.collect()
    gc.freeze()
