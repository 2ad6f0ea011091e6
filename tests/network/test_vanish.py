"""PCs that are cut off or killed while they render, with the farm's own figures: shown after 10 s, given up after a lease of 30 s."""

import time
from collections.abc import Iterator

import pytest

from tests.network.farms import LONG, Head, Node, farm_of
from tests.network.netbed import Running, wait_until

pytestmark = [pytest.mark.network, pytest.mark.timeout(400)]

Trio = tuple[Head, Node, Node, dict[str, Running]]


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """A farm with two PCs in it, and their `farm join`."""
    with farm_of(tmp_path_factory.mktemp("farm"), "attic", "den") as (head, (attic, den)):
        joined = {node.name: node.join("--token", head.code()) for node in (attic, den)}
        for node in (attic, den):
            joined[node.name].wait_for("Connected", 90)
            head.wait_card(node, "idle")
        yield head, attic, den, joined


def renders(head: Head, node: Node) -> str | None:
    """The job that a node renders, None while it renders none."""
    found = head.rows("SELECT job_id FROM attempts WHERE node_id = ? AND status = 'running'", node.id)
    return found[0][0] if found else None


def test_a_cut_of_five_seconds_costs_nothing(trio: Trio) -> None:
    head, attic, den, joined = trio
    job = head.submit(LONG)
    wait_until(lambda: any(node.spooled("step") for node in (attic, den)), 60, lambda: "it renders")
    node = attic if attic.spooled("step") else den
    before = node.raylet()
    node.machine.cut()
    cut = time.monotonic()
    assert not node.spooled("done"), "the render was over before the cable was pulled"
    joined[node.name].wait_for("What runs here goes on", 30)
    wait_until(lambda: time.monotonic() - cut > 5.0, 10, lambda: "five seconds of silence")
    node.machine.heal()
    joined[node.name].wait_for("The head answers again", 60)
    head.wait_finished(job)
    assert head.attempts(job) == [("finished", node.id)]
    assert node.raylet() == before, "Ray on the node was not started anew"
    head.audit()


def test_a_cut_of_a_minute_and_a_killed_pc_are_seen_within_ten_seconds_and_cost_one_attempt(
    trio: Trio,
) -> None:
    """One PC is cut off for 60 s, the other killed, both while they render.

    Ray's word that a node is gone counted as a surprise of the scheduler's own, which held the lease for 15 s more.
    """
    head, attic, den, joined = trio
    for node in (attic, den):
        head.wait_card(node, "idle")
    jobs = [head.submit(LONG), head.submit(LONG)]
    wait_until(lambda: all(renders(head, node) for node in (attic, den)), 60, lambda: "both render")
    of_attic, of_den = renders(head, attic), renders(head, den)
    assert of_attic is not None
    assert of_den is not None
    with head.client() as client:
        client.set_priority(of_attic, 5)  # so that it is the first that the other PC makes again
    wait_until(lambda: attic.spooled("step") and den.spooled("step"), 60, lambda: "both are at their steps")
    den.machine.power_cut()
    attic.machine.cut()
    cut = time.monotonic()
    assert not attic.spooled("done"), "the render was over before the cable was pulled"

    for node in (attic, den):
        shown = head.wait_card(node, "not answering", limit_s=14)
        seen_after_s = time.monotonic() - cut
        assert shown.silent_s is not None
        print(f"{node.name} shown {seen_after_s:.1f} s after the cut, with {shown.silent_s:.1f} s of silence")
        assert seen_after_s < 11, "ten seconds, and a look"
        assert shown.why == "its PC does not answer"
    assert [head.status(job) for job in jobs] == ["running"] * 2, "their leases still run"

    def given_up() -> bool:
        return [head.attempts(job)[0][0] for job in (of_attic, of_den)] == ["lost"] * 2

    wait_until(given_up, 40, lambda: f"both are given up: {[head.attempts(job) for job in jobs]}")
    lost_after_s = time.monotonic() - cut
    print(f"lost {lost_after_s:.1f} s after the cut")
    assert 25 < lost_after_s < 37, "a lease of 30 s, the last question of 2 s, and a look at the database"
    assert {head.status(job) for job in jobs} == {"queued"}

    den.machine.power_on()
    joined["den"] = den.join()
    joined["den"].wait_for("Connected", 90)
    head.wait_finished(of_attic)
    wait_until(lambda: time.monotonic() - cut > 60.0, 60, lambda: "a minute of silence")
    assert attic.spooled("done"), "its clip is complete, and comes too late"
    attic.machine.heal()
    head.wait_card(attic, "idle", "busy", limit_s=90)
    print(f"back {time.monotonic() - cut - 60.0:.1f} s after the cable was plugged in")
    assert joined["attic"].exit_code is None, "nobody had to come"
    head.wait_finished(*jobs)
    attic.wait_spool_empty()
    assert head.attempts(of_attic) == [("lost", attic.id), ("finished", den.id)], "the late clip is refused"
    head.audit()
