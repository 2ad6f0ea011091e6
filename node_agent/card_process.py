"""What a process that works on one card has in its environment, whoever starts it: all that is measured holds for all that is rendered."""


def card_environment(card_id: str) -> dict[str, str]:
    """The variables of a process that sees one card alone, by its UUID, or none with "". Torch reads them once, when it is loaded.

    Its allocator grows segments instead of keeping fixed ones (Linux), so that it reserves hardly more than it hands out.
    """
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": card_id,
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
