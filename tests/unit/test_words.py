"""What the pages say, in words."""

import pytest

from dashboard.words import memory_plan
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
