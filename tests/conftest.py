"""What every test may use."""

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


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the settings or the farm of the person who runs it."""
    for name in list(os.environ):
        if name.startswith("FARM_") and name not in ("FARM_REQUIRE_NETWORK_TESTS", "FARM_WRITE_DOC_IMAGES"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FARM_DATA", str(tmp_path / "farm-data"))
    return


ORDER = ("unit", "property", "gpu", "docs", "integration", "network", "browser")
"""The quick ones first. The browser's driver comes last: it keeps an event loop running in the main thread until the session ends."""
SIDE_BY_SIDE = ("integration", "network", "unit", "property", "gpu", "docs", "browser")
"""In several processes those with a whole farm come first: they take longest, and one process has them all, so that no two farms run."""
FARM = ("integration", "network")


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(Path(__file__).parent).parts[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts the tests by folder; within a folder they keep their order."""
    order = SIDE_BY_SIDE if "PYTEST_XDIST_WORKER" in os.environ else ORDER
    items.sort(key=lambda item: order.index(_folder(item)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests stay together in one of several processes: those of a file, all that have a whole farm, all with a browser."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", maxsplit=1)[0]
            folder = file.split("/")[1]
            return "farm" if folder in FARM else folder if folder == "browser" else file

    return Together(config, log)
