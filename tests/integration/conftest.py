"""What tests with a real dashboard share. Each file has its own fixture `farm`, the dashboard that it needs."""

from collections.abc import Iterator

import httpx
import pytest

from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard


@pytest.fixture
def http(farm: RunningDashboard) -> Iterator[httpx.Client]:
    """The API, spoken to as the farm's admin."""
    with plain_http.Client(base_url=f"{farm.base_url}/api/v1", headers=farm.headers, timeout=30) as client:
        yield client
