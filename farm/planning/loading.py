"""How long a card takes to load a model that it does not hold: what changing the model costs, until loads have taught better. Pure."""

from farm.catalogue.models import ModelRow
from farm.catalogue.networks import network

DISK_GB_S = 0.5
"""What a SATA disk gives when read in one go. Weights that the PC read lately come from its memory, sooner than that."""
IMPORTS_S = 5.0
"""Importing torch and diffusers, and building the modules: once for a worker, and again for a model of another class."""


def load_seconds(row: ModelRow) -> float:
    """Seconds until a worker holds the model; 0 for one without weights."""
    if row.memory is None:
        return 0.0
    gib = network(row.memory.network).mib / 1024 + sum(row.memory.parts_gib.values())
    return IMPORTS_S + gib * 1024**3 / (DISK_GB_S * 1e9)
