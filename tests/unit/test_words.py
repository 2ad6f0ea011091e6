"""What the pages say, in words."""

import pytest

from dashboard.words import THIN, memory_plan, rate
from farm.model import MemoryPlan


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (MemoryPlan(), "everything kept on the card"),
        (MemoryPlan("by_stage"), "parts brought in by turns"),
        (MemoryPlan("by_stage", weights_on_card=0.0, ring_mib=188), "all weights streamed"),
        (
            MemoryPlan("by_stage", "in_turn", 0.14, 188, 512, "tiles", "fp32"),
            "14\N{NARROW NO-BREAK SPACE}% of the weights stayed, the rest streamed; wide layers in pieces; guidance in turn; "
            "decoded in tiles; in single precision",
        ),
    ],
)
def test_a_memory_plan_in_words(plan: MemoryPlan, said: str) -> None:
    assert memory_plan(plan) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ""),
        (0.0, "0.00"),
        (0.125, "0.13"),
        (0.994, "0.99"),
        (0.996, "1.0"),
        (1.0, "1.0"),
        (2.25, "2.3"),
        (99.94, "99.9"),
        (99.97, "100"),
        (100.0, "100"),
        (1234.5, f"1{THIN}235"),
    ],
)
def test_a_rate_is_said_by_what_it_comes_to(value: float | None, said: str) -> None:
    """0.996 was "1.00" beside the "1.0" of 1, and 99.97 "100.0"."""
    assert rate(value) == said
