"""The farm, a client of it, and a picture."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from farm.client import Farm
from tests.checkpoints import small_row_toml, write_small_i2vgen
from tests.farm_process import FarmProcess
from tests.pictures import street


@pytest.fixture(scope="package")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FarmProcess]:
    """One farm for all of these tests; it knows a small diffusion model beside the built-in ones."""
    root = tmp_path_factory.mktemp("farm")
    models = root / "models.toml"
    models.write_text(small_row_toml("i2vgen-xl-small", write_small_i2vgen(root / "small")))
    with FarmProcess(root / "data", FARM_MODELS_FILE=str(models)) as running:
        yield running


@pytest.fixture
def client(farm: FarmProcess) -> Iterator[Farm]:
    with farm.client() as client:
        yield client


@pytest.fixture(scope="package")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "street.png"
    street(640, 480).image.save(path)
    return path
