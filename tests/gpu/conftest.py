"""Tests on a real NVIDIA card with full-size random weights. Without one they are skipped; `sh deploy/test.sh tests/gpu` runs them."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
torch = pytest.importorskip("torch")

NEEDED_GIB = 12


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what is in this folder where there is no card that holds the full-size model whole."""
    here = Path(__file__).parent
    if torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory >= NEEDED_GIB * 1024**3:
        return
    why = pytest.mark.skip(reason=f"needs an NVIDIA card with {NEEDED_GIB} GiB")
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(why)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full I2VGen-XL with random weights, in the real layout."""
    from benchmarks.render import write_checkpoint

    folder = tmp_path_factory.mktemp("weights") / "i2vgen-xl"
    write_checkpoint(folder, "i2vgen-xl")
    return folder
