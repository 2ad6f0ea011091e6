"""What a model's weights come to before anyone fetches them."""

from farm.catalogue.models import ModelRow
from farm.catalogue.networks import network


def download_gib(row: ModelRow) -> float | None:
    """All its weights, GiB of fp16 safetensors on the disk and through the line; 0 where there are none, None where nobody has measured."""
    if not row.source:
        return 0.0
    if row.memory is None:
        return None
    denoiser = sum(unit.mib for unit in network(row.memory.network).units) / 1024
    return denoiser + sum(row.memory.parts_gib.values())
