"""A card's first computation, with another torch in the real one's place: only its edge is faked."""

import os
import signal
import subprocess
import sys
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from node_agent import apart, selftest
from node_agent.selftest import ask, card_trouble, card_trouble_apart, computes, convolves
from tests.fake_torch import FakeTorch

PASCAL = ("GTX 1080", "550.120", (6, 1))


def asked(torch: FakeTorch, name: str = "RTX 2060", driver: str = "580.65.06") -> str | None:
    return ask(torch.module(), name, driver, torch.capability)


def test_a_card_that_computes_is_fine() -> None:
    assert asked(FakeTorch()) is None


def test_a_torch_built_for_newer_cards_is_found_before_any_job_is() -> None:
    """GTX 10xx with PyPI's newest torch: every render ended in "no kernel image is available for execution on the device"."""
    newer = FakeTorch(
        "2.13.0+cu130", "13.0", (6, 1), ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120")
    )
    said = asked(newer, "GTX 1080")
    assert said is not None
    assert "was built for sm_75 and newer, GTX 1080 is sm_61" in said
    assert "https://download.pytorch.org/whl/cu126" in said


def test_a_driver_that_is_too_old_is_named_with_the_one_that_is_needed() -> None:
    old = FakeTorch(
        init_error="The NVIDIA driver on your system is too old (found version 11040). Please ..."
    )
    assert asked(old, "RTX 2060", "470.256.02") == (
        "Driver 470.256.02 is too old for CUDA 12.6: install driver 525.60.13 or newer on that PC."
    )


def test_a_driver_that_does_not_answer_gives_its_own_words() -> None:
    said = asked(
        FakeTorch(init_error="CUDA unknown error - this may be due to an incorrectly set up environment")
    )
    assert said is not None
    assert said.startswith("CUDA does not start on RTX 2060: CUDA unknown error - this may be due to")


def test_a_torch_without_cuda_is_told_apart_from_a_broken_card() -> None:
    said = asked(FakeTorch("2.13.0+cpu", None))
    assert said is not None
    assert "was built without CUDA" in said


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (
            FakeTorch(kernel_error="CUDA error: an illegal memory access was encountered\nCompile with ..."),
            "failed: CUDA error: an illegal memory access was encountered. Restart its PC",
        ),
        (FakeTorch(wrong=True), "wrong product"),
        (
            FakeTorch(cudnn_error="GET was unable to find an engine to execute this computation"),
            "failed: GET was unable to find an engine to execute this computation. Restart its PC",
        ),
        (FakeTorch(wrong_convolution=True), "wrong convolution"),
    ],
)
def test_a_kernel_that_fails_and_one_that_computes_wrong_are_both_trouble(
    broken: FakeTorch, told: str
) -> None:
    """Matrices came out right by another library; every render of the card ended in a convolution that cuDNN had no engine for."""
    said = asked(broken)
    assert said is not None
    assert told in said


@pytest.mark.parametrize(
    "full",
    [
        FakeTorch(kernel_error="CUDA error: out of memory", broken=True),
        FakeTorch(kernel_error="CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ...", others_gib=5.5),
        FakeTorch(cudnn_error="GET was unable to find an engine to execute this computation", others_gib=5.5),
    ],
)
def test_a_card_that_other_programs_fill_is_not_a_broken_one(full: FakeTorch) -> None:
    """Its owner was sent to look at cables and temperature."""
    assert asked(full) == (
        "Other programs hold all of RTX 2060's memory: not even a small computation found room. Close them (`nvidia-smi` names them); "
        "the card is tested again by itself."
    )


@pytest.mark.parametrize(
    ("cudnn", "capability", "named"),
    [
        (91002, (6, 1), False),
        (91100, (6, 1), True),
        (91100, (7, 5), False),
        (92000, (7, 0), True),
        (None, (6, 1), False),
    ],
)
def test_a_cudnn_that_knows_the_card_no_more_is_named_where_it_fails(
    cudnn: int | None, capability: tuple[int, int], named: bool
) -> None:
    """pytorch#162574: an update of cuDNN took convolutions from GTX 10xx, with words that name neither."""
    assert asked(FakeTorch(cudnn=cudnn, capability=capability), "GTX 1080") is None
    fails = FakeTorch(cudnn=cudnn, capability=capability, cudnn_error="GET was unable to find an engine")
    said = asked(fails, "GTX 1080")
    assert said is not None
    assert ("which serves sm_75 and newer, GTX 1080 is sm_" in said) == named
    assert (
        "`pip install torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126`" in said
    ) == named


def test_a_pc_without_torch_has_nothing_to_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "find_spec", lambda _name: None)
    assert card_trouble(*PASCAL) is None


def test_a_torch_that_cannot_be_loaded_is_trouble_and_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its remedy was a script that does nothing the second time, and that a PC which joined by the line does not have."""

    def broken(_name: str) -> ModuleType:
        raise OSError("libcudart.so.12: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(selftest, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(selftest, "import_module", broken)
    said = card_trouble(*PASCAL)
    assert said is not None
    assert said == (
        "torch cannot be loaded on that PC (libcudart.so.12: cannot open shared object file: No such file or directory): install torch "
        "2.13.0 from PyTorch's cu126 index: `pip install --force-reinstall torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126`"
    )


@pytest.mark.torch
def test_the_computation_itself_is_right_with_the_real_torch() -> None:
    import torch

    assert computes(torch, "cpu")
    assert convolves(torch, "cpu")


@pytest.mark.torch
def test_the_real_cpu_build_is_told_from_one_with_cuda() -> None:
    import torch

    if torch.version.cuda is not None:
        pytest.skip("this torch has CUDA")
    said = card_trouble("RTX 3060", "580.65.06", (8, 6))
    assert said is not None
    assert torch.__version__ in said
    assert "without CUDA" in said


@pytest.mark.torch
def test_the_fake_has_no_name_that_the_real_library_lacks() -> None:
    import torch

    def compare(ours: Any, real: Any) -> None:
        for name in vars(ours):
            assert hasattr(real, name), name

    fake = FakeTorch().module()
    compare(fake, torch)
    compare(fake.cuda, torch.cuda)
    compare(fake.version, sys.modules["torch"].version)
    compare(fake.backends.cudnn, torch.backends.cudnn)
    compare(fake.nn.functional, torch.nn.functional)
    for name in ("reshape", "float", "to", "cpu", "round", "__matmul__", "__mod__"):
        assert hasattr(torch.Tensor, name)


@pytest.mark.torch
def test_the_test_runs_apart_and_leaves_no_torch_behind() -> None:
    """An idle worker held half a gigabyte of the card, and as much of the PC's memory, for a test that was over."""
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from node_agent.selftest import card_trouble_apart\n"
            "print(card_trouble_apart('GTX 1080', '550.120', (6, 1)))\nprint('torch' in sys.modules)",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    expected = card_trouble("GTX 1080", "550.120", (6, 1))
    assert expected is not None
    assert said == [*expected.splitlines(), "False"]


@pytest.mark.torch
def test_a_test_that_ends_without_an_answer_is_the_card_s_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert card_trouble_apart("GTX 1080", None, None) == (
        "GTX 1080 could not be tested: the test ended with 1. The worker's log has the rest."
    )


def test_a_test_that_no_signal_ends_is_told_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A driver that hangs keeps a process from its death: its end was waited for without a limit, and the card said nothing for ever."""
    stuck = tmp_path / "python"
    stuck.write_text("#!/bin/sh\nexec sleep 60\n")
    stuck.chmod(0o755)
    killed: list[int] = []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: killed.append(process.pid))
    monkeypatch.setattr(selftest, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(sys, "executable", str(stuck))
    monkeypatch.setattr(selftest, "LIMIT_S", 0.1)
    monkeypatch.setattr(apart, "END_S", 0.1)
    began = time.monotonic()
    try:
        said = card_trouble_apart("GTX 1080", None, None)
    finally:
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
    assert said == "GTX 1080 did not finish a small computation within 0 s. Restart that PC."
    assert len(killed) == 1
    assert time.monotonic() - began < 30
