"""torch's caching allocator, held to what the plan says."""

from typing import Final

import torch

from farm.planning.memory import HELD

GIB: Final = 1024**3


def begin(device: torch.device) -> None:
    """Before weights are laid out anew: what an earlier render left goes back, its limit ends, and a peak of one's own begins.

    Else the weights would have to fit under the limit of the render before, and its memory would count as this one's peak.
    """
    if device.type != "cuda":
        return
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    torch.cuda.reset_peak_memory_stats(device)


def hold_to(device: torch.device, peak_gib: float) -> None:
    """Lets this process reserve at most the predicted peak and a little; no limit where nothing is predicted (0).

    What is kept from a larger render goes back first: the limit asks only who takes more.
    """
    if device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory
    fraction = min(1.0, HELD * peak_gib * GIB / total) if peak_gib > 0 else 1.0
    if torch.cuda.memory_reserved(device) > fraction * total:
        torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(fraction, device)
