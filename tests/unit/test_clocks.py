"""Clocks of PCs that are wrong."""

from scheduler.clocks import NodeClocks


def test_a_clock_that_is_wrong_by_an_hour_tells_right_times() -> None:
    clocks = NodeClocks()
    clocks.hear("fast", at=4600.0, now=1000.0)
    clocks.hear("slow", at=-2600.0, now=1000.0)
    assert clocks.ours("fast", 4590.0, now=1003.0) == 990.0
    assert clocks.ours("slow", -2610.0, now=1003.0) == 990.0


def test_a_clock_that_was_set_is_believed_as_it_is_now() -> None:
    clocks = NodeClocks()
    clocks.hear("den", at=4600.0, now=1000.0)
    clocks.hear("den", at=1010.0, now=1010.0)
    assert clocks.ours("den", 1009.0, now=1012.0) == 1009.0


def test_nothing_is_told_of_the_future_and_an_unknown_clock_tells_nothing() -> None:
    """A report takes milliseconds to come: by that much a node's clock seems slow."""
    clocks = NodeClocks()
    assert clocks.ours("den", 5.0, now=1000.0) == 1000.0
    clocks.hear("den", at=1000.0, now=1000.3)
    assert clocks.ours("den", 1004.9, now=1005.0) == 1005.0
