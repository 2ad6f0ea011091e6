"""Tests on a real NVIDIA card with full-size random weights. Without one they are skipped; `sh deploy/test.sh tests/gpu` runs them."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The full I2VGen-XL with random weights, in the real layout."""
    from benchmarks.random_weights import write_checkpoint

    folder = tmp_path_factory.mktemp("weights") / "i2vgen-xl"
    write_checkpoint(folder, "i2vgen-xl")
    return folder
