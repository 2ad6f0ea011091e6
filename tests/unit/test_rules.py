"""What old cards can and cannot do, by value: precision, bfloat16, which torch and driver they need, and their slots."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.catalogue.cards import cards
from farm.catalogue.rules import (
    build_for,
    bus_gb_s,
    compute_precision,
    driver_is_older,
    generation_of,
    has_bf16,
    least_driver,
    precision_rule,
    rules,
    runs_on,
)
from farm.model import Card, CardKind
from farm.planning.rules import (
    architecture_trouble,
    driver_trouble,
    kernel_trouble,
    no_cuda_trouble,
    precision_for,
)

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
CAPABILITIES = st.tuples(st.integers(3, 12), st.integers(0, 9))


def gpu(name: str, capability: tuple[int, int] | None, vram_gib: float | None = None) -> Card:
    return Card("GPU-1", "n1", CardKind.CUDA, name, vram_gib=vram_gib, compute_capability=capability)


@pytest.mark.parametrize(
    ("name", "capability", "precision"),
    [
        ("GTX 780", (3, 5), "fp32"),
        ("GTX 970", (5, 2), "fp32"),
        ("GTX 1080", (6, 1), "fp32"),
        ("Tesla P100-PCIE-16GB", (6, 0), "fp16"),  # the one Pascal that is quick in half precision
        ("Tesla V100-SXM2-16GB", (7, 0), "fp16"),
        ("GTX 1650", (7, 5), "fp32"),
        ("GTX 1660 SUPER", (7, 5), "fp32"),
        ("GTX 1660 Ti with Max-Q Design", (7, 5), "fp32"),
        ("NVIDIA GeForce GTX 1650 SUPER", (7, 5), "fp32"),
        ("MX450", (7, 5), "fp32"),
        ("T1000 8GB", (7, 5), "fp32"),
        ("Quadro T2000", (7, 5), "fp32"),
        ("Tesla T4", (7, 5), "fp16"),
        ("NVIDIA T4", (7, 5), "fp16"),
        ("RTX 2060", (7, 5), "fp16"),
        ("Quadro RTX 4000", (7, 5), "fp16"),
        ("RTX 3060", (8, 6), "fp16"),
        ("RTX 4090", (8, 9), "fp16"),
        ("H200", (9, 0), "fp16"),
    ],
)
def test_the_precision_to_compute_in(name: str, capability: tuple[int, int], precision: str) -> None:
    assert precision_for(gpu(name, capability)) == precision


@pytest.mark.parametrize(
    ("name", "precision"),
    [("gtx1660super", "fp32"), ("1660 super", "fp32"), ("2060", "fp16"), ("Some new card", "fp32")],
)
def test_without_a_capability_the_catalogue_decides_and_else_the_safe_side(name: str, precision: str) -> None:
    assert precision_for(gpu(name, None)) == precision


def test_a_cpu_computes_in_single_precision() -> None:
    assert precision_for(Card("CPU-n1", "n1", CardKind.CPU, "Ryzen 5 3600")) == "fp32"


def test_the_catalogue_and_the_rule_are_one() -> None:
    """Two copies of one fact had to be kept equal by hand: the catalogue's column and the pipeline's own threshold."""
    for row in cards():
        assert precision_for(gpu(row.name, row.compute_capability, row.vram_gb)) == row.compute


def test_every_rule_has_its_source_and_says_why() -> None:
    for rule in rules().precision:
        assert rule.source
        assert rule.reason
    why = precision_rule((7, 5), "GTX 1660 SUPER")
    assert why is not None
    assert "black" in why.reason
    assert precision_rule((8, 6), "RTX 3060") is None


@given(CAPABILITIES)
def test_bfloat16_needs_ampere_whatever_torch_says(capability: tuple[int, int]) -> None:
    """torch.cuda.is_bf16_supported() is true on Turing, where it is emulated (FramePack#330)."""
    assert has_bf16(capability) == (capability[0] >= 8)


@pytest.mark.parametrize(
    ("capability", "name"),
    [((3, 7), "Kepler"), ((5, 2), "Maxwell"), ((6, 1), "Pascal"), ((7, 0), "Volta"), ((7, 5), "Turing"),
     ((8, 6), "Ampere"), ((8, 9), "Ada"), ((9, 0), "Hopper"), ((12, 0), "Blackwell")],
)  # fmt: skip
def test_a_capability_belongs_to_its_generation(capability: tuple[int, int], name: str) -> None:
    found = generation_of(capability)
    assert found is not None
    assert found.name == name
    assert generation_of((2, 1)) is None


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((6, 1), CU126, True),  # a binary of 6.0 runs on 6.1
        ((5, 2), CU126, True),
        ((8, 9), CU126, True),
        ((12, 0), CU126, False),
        ((6, 1), CU130, False),
        ((7, 0), CU130, False),
        ((7, 5), CU130, True),
        ((12, 1), CU130, True),
        ((7, 0), ["sm_75"], False),  # never on an earlier minor version
        ((8, 0), ["sm_86"], False),
        ((12, 0), ["compute_90"], True),  # PTX is compiled for whatever is newer
        ((8, 6), ["compute_90"], False),
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((7, 5), [], False),
        ((7, 5), ["gfx1030"], False),
    ],
)
def test_which_torch_has_kernels_for_which_card(
    capability: tuple[int, int], architectures: list[str], runs: bool
) -> None:
    assert runs_on(capability, architectures) == runs


@given(CAPABILITIES)
def test_the_build_that_is_advised_serves_the_card(capability: tuple[int, int]) -> None:
    lists = {(12, 6): CU126, (13, 0): CU130}
    build = build_for(capability)
    if build is None:
        assert capability < (5, 0) or capability > (12, 1)
    elif capability != (9, 9) and capability[0] in (5, 6, 7, 8, 9, 10, 12):
        assert runs_on(capability, lists[build.cuda])


def test_a_card_that_torch_was_not_built_for_is_told_what_to_install() -> None:
    """An upgrade of torch dropped Pascal and every render ended in "no kernel image is available" (gpustack#3625).

    Without the build in its name pip found that version installed already, and did nothing.
    """
    said = architecture_trouble("GTX 1080", (6, 1), CU130, "2.13.0+cu130")
    assert said == (
        "This torch (2.13.0+cu130) was built for sm_75 and newer, GTX 1080 is sm_61 (Pascal): install torch 2.13.0 from PyTorch's "
        "cu126 index: `pip install torch==2.13.0+cu126 --index-url https://download.pytorch.org/whl/cu126`"
    )
    assert architecture_trouble("GTX 1080", (6, 1), CU126, "2.13.0+cu126") is None


def test_a_card_that_is_too_new_is_told_so_too() -> None:
    said = architecture_trouble("RTX 5060", (12, 0), CU126, "2.13.0+cu126")
    assert said is not None
    assert "was built for sm_50, sm_60" in said
    assert "and newer" not in said
    assert said.endswith("--index-url https://download.pytorch.org/whl/cu130`")


def test_a_card_that_nothing_serves_is_to_be_left_out() -> None:
    said = architecture_trouble("GTX 780", (3, 5), CU126, "2.13.0+cu126")
    assert said is not None
    assert said.endswith("no torch that the farm runs on serves such a card. Leave it out of the farm.")


@pytest.mark.parametrize(
    ("driver", "least", "older"),
    [
        ("470.256.02", "525.60.13", True),
        ("525.60.13", "525.60.13", False),
        ("525.60", "525.60.13", True),
        ("580.65.06", "525.60.13", False),
        ("unknown", "525.60.13", False),
    ],
)
def test_drivers_are_compared_as_numbers(driver: str, least: str, older: bool) -> None:
    assert driver_is_older(driver, least) == older


def test_the_least_driver_of_a_cuda_version() -> None:
    assert least_driver("12.6") == "525.60.13"
    assert least_driver("13.0") == "580.65.06"
    assert least_driver("9.2") is None


def test_what_is_said_when_cuda_does_not_start() -> None:
    old = driver_trouble("GTX 1080", "470.256.02", "12.6", (6, 1), "too old.")
    assert old == (
        "Driver 470.256.02 is too old for CUDA 12.6: install driver 525.60.13 or newer on that PC. The last branch for GTX 1080 is 580."
    )
    kepler = driver_trouble("GTX 780", "470.256.02", "12.6", (3, 5), "too old.")
    assert "470 is the last branch that knows GTX 780 (Kepler)" in kepler
    assert "install driver" not in kepler
    other = driver_trouble("RTX 3060", "580.65.06", "12.6", (8, 6), "CUDA unknown error.")
    assert other.startswith(
        "CUDA does not start on RTX 3060: CUDA unknown error. Look whether `nvidia-smi` works"
    )
    assert driver_trouble("RTX 3060", None, "12.6", None, "No.").startswith("CUDA does not start")


def test_what_is_said_of_a_torch_without_cuda_and_of_a_card_that_fails_its_test() -> None:
    assert no_cuda_trouble("RTX 3060", (8, 6), "2.13.0+cpu").startswith(
        "This torch (2.13.0+cpu) was built without CUDA and cannot use RTX 3060: install torch 2.13.0"
    )
    assert "`nvidia-smi -q`" in kernel_trouble("RTX 3060", "an illegal memory access.")


@pytest.mark.parametrize(
    ("generation", "lanes", "gb_s"),
    [(3, 16, 11.82), (3, 4, 2.96), (3, 1, 0.74), (2, 16, 6.0), (4, 8, 11.81), (5, 16, 47.26), (9, 1, 5.67)],
)
def test_what_a_slot_carries(generation: int, lanes: int, gb_s: float) -> None:
    """Held against the measured 0.24 s for 2.82 GB at PCIe 3 x16, 0.9 s at x4 and 3.5 s at x1."""
    assert bus_gb_s(generation, lanes) == pytest.approx(gb_s, abs=0.006)


def test_a_slot_that_is_not_known_carries_nobody_knows_what() -> None:
    assert bus_gb_s(None, 16) is None
    assert bus_gb_s(3, None) is None
    assert bus_gb_s(0, 16) is None


def test_no_card_computes_in_a_precision_it_lacks() -> None:
    assert {compute_precision((5, 2), "any"), compute_precision((5, 0), "any")} == {"fp32"}
