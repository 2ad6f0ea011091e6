"""Small things about the device that a model computes on."""

import torch


def wait_for(device: torch.device) -> None:
    """Waits until the device has done its work: else a step would count as done once it is queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
