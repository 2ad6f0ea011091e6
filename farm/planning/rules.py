"""What the old-card rules say of a card of the farm, and in which words they refuse one. Pure; the data is `farm.catalogue.rules`."""

from collections.abc import Sequence

from farm.catalogue.cards import find_card
from farm.catalogue.rules import (
    Capability,
    Precision,
    build_for,
    compute_precision,
    driver_is_older,
    generation_of,
    least_driver,
    oldest_of,
    rules,
    runs_on,
)
from farm.model import Card, CardKind


def precision_for(card: Card) -> Precision:
    """What the farm computes in on this card. Weights are stored in fp16 either way.

    The card's own capability decides, else the catalogue's. A card of which neither is known computes in fp32: that is never wrong, only
    slower. So does a CPU.
    """
    if card.kind is CardKind.CPU:
        return "fp32"
    row = find_card(card.name, card.vram_gib)
    capability = card.compute_capability or (row.compute_capability if row is not None else None)
    if capability is None:
        return "fp32"
    return compute_precision(capability, row.name if row is not None else card.name)


def sm(capability: Capability) -> str:
    """A capability in torch's words: "sm_61"."""
    return f"sm_{capability[0]}{capability[1]}"


def architecture_trouble(
    name: str, capability: Capability, architectures: Sequence[str], torch_version: str
) -> str | None:
    """Why the torch that is installed cannot use a card, with what to install instead; None if it can.

    `architectures` is `torch.cuda.get_arch_list()`.
    """
    if runs_on(capability, architectures):
        return None
    oldest = oldest_of(architectures)
    built = f"was built for {oldest} and newer" if oldest else "names no architecture it was built for"
    if oldest is not None and capability >= _capability(oldest):
        built = f"was built for {', '.join(architectures)}"
    family = generation_of(capability)
    return (
        f"This torch ({torch_version}) {built}, {name} is {sm(capability)}"
        f"{f' ({family.name})' if family else ''}: {_install(capability)}"
    )


def cudnn_trouble(name: str, capability: Capability, cudnn: int | None, torch_version: str) -> str | None:
    """Why the cuDNN that torch has (as it numbers it; None: none) cannot use a card, with what to install instead; None if it can."""
    rule = rules().cudnn
    if cudnn is None or cudnn < rule.since or capability >= rule.oldest:
        return None
    written = f"{cudnn // 10_000}.{cudnn // 100 % 100}"
    return (
        f"The cuDNN of this torch ({torch_version}) is {written}, which serves {sm(rule.oldest)} and newer, {name} is {sm(capability)}: "
        f"{_install(capability)}"
    )


def no_cuda_trouble(name: str, capability: Capability | None, torch_version: str) -> str:
    """What to say of a GPU on a PC whose torch was built without CUDA."""
    return f"This torch ({torch_version}) was built without CUDA and cannot use {name}: {_install(capability or (5, 0))}"


def load_trouble(capability: Capability | None, said: str) -> str:
    """What to say of a torch that is installed and cannot be loaded; `said` are its own words."""
    again = _install(capability or (5, 0)).replace("pip install", "pip install --force-reinstall", 1)
    return f"torch cannot be loaded on that PC ({said.rstrip('.')}): {again}"


def driver_trouble(name: str, driver: str | None, cuda: str, capability: Capability | None, said: str) -> str:
    """What to say when CUDA does not start on a card: `cuda` is torch's version of it, `said` are the library's own words."""
    least = least_driver(cuda)
    if driver is None or least is None or not driver_is_older(driver, least):
        return (
            f"CUDA does not start on {name}: {said} "
            "Look whether `nvidia-smi` works on that PC; after an update of the driver it must be restarted."
        )
    family = generation_of(capability) if capability is not None else None
    last = family.last_driver if family is not None else None
    if last is not None and last < int(least.split(".", maxsplit=1)[0]):
        return (
            f"Driver {driver} is too old for CUDA {cuda}, which needs {least}, and {last} is the last branch that knows "
            f"{name} ({family.name if family else ''}): {_install(capability or (5, 0))}"
        )
    branch = f" The last branch for {name} is {last}." if last is not None else ""
    return f"Driver {driver} is too old for CUDA {cuda}: install driver {least} or newer on that PC.{branch}"


def kernel_trouble(name: str, said: str) -> str:
    """What to say of a card on which a first small computation failed or came out wrong."""
    return (
        f"A test computation on {name} failed: {said} Restart its PC; if it comes back, look at `nvidia-smi -q` "
        "and `dmesg` there for errors of the card, its cables and its temperature."
    )


def full_trouble(name: str) -> str:
    """What to say of a card on which other programs leave no room for a small computation."""
    return (
        f"Other programs hold all of {name}'s memory: not even a small computation found room. Close them (`nvidia-smi` names them); "
        "the card is tested again by itself."
    )


def _install(capability: Capability) -> str:
    build = build_for(capability)
    if build is None:
        return "no torch that the farm runs on serves such a card. Leave it out of the farm."
    cuda = f"cu{build.cuda[0]}{build.cuda[1]}"
    return f"install torch {build.torch} from PyTorch's {cuda} index: `{build.command}`"


def _capability(architecture: str) -> Capability:
    digits = architecture.removeprefix("sm_")
    return int(digits[:-1]), int(digits[-1])
