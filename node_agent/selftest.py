"""A card's first computation, before it gets work: does the torch that is installed serve it, and does it compute what it should?

Runs in a process of its own that ends with it: torch and its CUDA context would hold half a gigabyte of the card's memory, and as much of
the PC's, for as long as the worker has nothing to do. Everything is asked of torch through `Any`, so that a test can put
another torch in its place; what may be said of the answers is `farm.planning.rules`.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from farm.model import FailureClass
from farm.planning.rules import (
    architecture_trouble,
    cudnn_trouble,
    driver_trouble,
    full_trouble,
    kernel_trouble,
    load_trouble,
    no_cuda_trouble,
)
from node_agent.apart import run_apart
from node_agent.card_process import card_environment
from node_agent.faults import explain

log = logging.getLogger(__name__)

LIMIT_S = 300.0
"""Importing torch takes a minute from a slow disk; a driver that hangs takes for ever."""
ROOM_BYTES = 256 * 1024**2
"""What the test finds room in, beside its CUDA context: its libraries' workspaces."""
_SIDE = 64
"""Rows and columns of the test's matrices: their entries are 0 to 6, so every sum is exact in any precision above fp16."""


def card_trouble_apart(
    name: str, driver: str | None, capability: tuple[int, int] | None, card_id: str | None = None
) -> str | None:
    """What `card_trouble` says, asked in a process of its own, which sees the card that this one sees, or the one of that UUID."""
    if find_spec("torch") is None:
        return None
    facts = json.dumps([name, driver, capability])
    sees = card_environment(card_id) if card_id else {}
    try:
        done = run_apart(__name__, limit_s=LIMIT_S, environment={**os.environ, **sees}, given=facts)
        found: str | None = json.loads(done.stdout.splitlines()[-1])["trouble"]
    except subprocess.TimeoutExpired:
        return f"{name} did not finish a small computation within {LIMIT_S:.0f} s. Restart that PC."
    except (ValueError, LookupError):  # it ended without an answer
        log.error("testing %s ended with %s:\n%s", name, done.returncode, done.stderr)
        lines = done.stderr.strip().splitlines() or [f"the test ended with {done.returncode}"]
        return f"{name} could not be tested: {lines[-1].rstrip('.')}. The worker's log has the rest."
    return found


def card_trouble(
    name: str, driver: str | None = None, capability: tuple[int, int] | None = None
) -> str | None:
    """What keeps this process's card from work, with the remedy; None if it computes, or if there is no torch here to ask.

    `name`, `driver` and `capability` are NVML's, for the words. Takes the seconds that importing torch takes.
    """
    if find_spec("torch") is None:
        return None
    try:
        torch = import_module("torch")
    except (ImportError, OSError) as error:  # a half-installed torch: a library of CUDA's is missing
        return load_trouble(capability, _first_line(error))
    return ask(torch, name, driver, capability)


def ask(torch: Any, name: str, driver: str | None, capability: tuple[int, int] | None) -> str | None:
    """What `card_trouble` does, of a torch that is there."""
    version, cuda = str(torch.__version__), torch.version.cuda
    if cuda is None:
        return no_cuda_trouble(name, capability, version)
    try:
        torch.cuda.init()
        major, minor = torch.cuda.get_device_capability(0)
    except (RuntimeError, AssertionError) as error:
        return driver_trouble(name, driver, str(cuda), capability, _first_line(error))
    trouble = architecture_trouble(name, (major, minor), torch.cuda.get_arch_list(), version)
    if trouble is not None:
        return trouble
    return _failing(
        torch, name, "product of two small matrices", lambda: computes(torch, "cuda:0")
    ) or _convolution_trouble(torch, name, (major, minor))


def _convolution_trouble(torch: Any, name: str, capability: tuple[int, int]) -> str | None:
    """What keeps it from convolutions: where they fail and its cuDNN is known to have none for such cards, that is said."""
    trouble = _failing(torch, name, "convolution of a small picture", lambda: convolves(torch, "cuda:0"))
    if trouble is None:
        return None
    try:
        cudnn = torch.backends.cudnn.version()
    except RuntimeError as error:  # another than torch was built with
        return kernel_trouble(name, _first_line(error))
    return cudnn_trouble(name, capability, cudnn, str(torch.__version__)) or trouble


def _failing(torch: Any, name: str, what: str, right: Callable[[], bool]) -> str | None:
    try:
        return None if right() else kernel_trouble(name, f"it gave a wrong {what}.")
    except RuntimeError as error:
        if explain(error)[0] is FailureClass.OUT_OF_MEMORY and _is_full(torch):
            return full_trouble(name)
        return kernel_trouble(name, _first_line(error))


def _is_full(torch: Any) -> bool:
    """Whether other programs have the card's memory; so it is too where there is no room to ask."""
    try:
        free, _ = torch.cuda.mem_get_info(0)
    except RuntimeError:
        return True
    return bool(free < ROOM_BYTES)


def computes(torch: Any, device: str) -> bool:
    """Whether the device multiplies two small matrices as the CPU does."""
    here = _numbers(torch, _SIDE).reshape(_SIDE, _SIDE)
    there = here.to(device)
    return bool(torch.equal((there @ there).cpu(), here @ here))


def convolves(torch: Any, device: str) -> bool:
    """Whether it convolves a small picture as the CPU does: by a library of its own, which may not know the card."""
    conv2d = torch.nn.functional.conv2d
    picture = _numbers(torch, _SIDE).reshape(1, 1, _SIDE, _SIDE)
    kernel = _numbers(torch, 3).reshape(1, 1, 3, 3)
    there = conv2d(picture.to(device), kernel.to(device)).cpu()
    # Rounded: some ways to convolve are a little off where a product of matrices is exact.
    return bool(torch.equal(there.round(), conv2d(picture, kernel).round()))


def _numbers(torch: Any, side: int) -> Any:
    return (torch.arange(side * side) % 7).float()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    return said if said.endswith(".") else f"{said}."


if __name__ == "__main__":
    told_name, told_driver, told_capability = json.loads(sys.stdin.read())
    print(
        json.dumps(
            {"trouble": card_trouble(told_name, told_driver, told_capability and tuple(told_capability))}
        )
    )
