"""What every test may use."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.settings import QUIET_ENVIRONMENT

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.update(QUIET_ENVIRONMENT)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test sees the settings or the farm of the person who runs it."""
    for name in list(os.environ):
        if name.startswith("FARM_") and name not in ("FARM_REQUIRE_NETWORK_TESTS", "FARM_WRITE_DOC_IMAGES"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FARM_DATA", str(tmp_path / "farm-data"))
    return
