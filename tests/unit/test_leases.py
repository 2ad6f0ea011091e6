"""Leases of attempts and silence of nodes. The plain ways are in `test_policy.py`; here what holds for all times."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler.leases import SILENT_AFTER_S, Leases

STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["hold", "end"]), st.integers(0, 20)),
    max_size=30,
)


@given(STEPS)
def test_expired_are_just_those_held_longer_ago_than_the_lease(steps: list[tuple[str, str, int]]) -> None:
    leases = Leases(30.0)
    now = 0.0
    held: dict[str, float] = {}
    for name, what, pause in steps:
        now += pause
        if what == "hold":
            leases.hold(name, now)
            held[name] = now
        else:
            leases.end(name)
            held.pop(name, None)
        assert set(leases.expired(now)) == {one for one, at in held.items() if now - at > 30.0}


def test_nodes_are_silent_each_for_itself() -> None:
    leases = Leases(30.0)
    leases.heard("n1", 0.0)
    leases.heard("n2", SILENT_AFTER_S)
    now = SILENT_AFTER_S + 1.0
    assert not leases.answering("n1", now)
    assert leases.answering("n2", now)
    assert leases.silence("n1", now) == now
    assert leases.silence("n2", now) == 1.0
    leases.heard("n1", now)
    assert leases.answering("n1", now)


def test_a_node_s_silence_does_not_end_a_lease_and_a_lease_does_not_end_a_silence() -> None:
    leases = Leases(5.0)
    leases.hold("A1", 0.0)
    assert leases.silence("A1", 1.0) is None
    leases.heard("n1", 0.0)
    assert leases.expired(4.0) == []
    leases.hold("A1", 4.0)
    assert leases.silence("n1", 4.0) == 4.0
