"""The machines that every test here may use."""

from tests.network.pair import pair

__all__ = ["pair"]
