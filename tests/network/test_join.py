"""`farm join` from another PC: in, refused, and back after every kind of trouble. Each PC is a network namespace with its own processes."""

import contextlib
import shutil
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.network.farms import Head, Node, farm_of
from tests.network.netbed import Machine, wait_until

pytestmark = [pytest.mark.network, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Head, Node]]:
    """A farm, and another PC that joins and leaves in each test."""
    with farm_of(tmp_path_factory.mktemp("farm"), "attic") as (head, (node,)):
        yield head, node


def has_agent(machine: Machine) -> bool:
    """Whether the scheduler's agent runs on a machine."""
    for process in machine.processes():
        with contextlib.suppress(psutil.Error):
            if "NodeAgent" in " ".join(process.cmdline()):
                return True
    return False


def test_codes_that_are_wrong_used_or_expired_are_refused_with_the_remedy(pair: tuple[Head, Node]) -> None:
    head, node = pair
    made = time.monotonic()
    short = head.code(minutes="0.02")
    exit_code, said = node.machine.run(node.command())
    assert exit_code == 1
    assert "This PC is not yet a node" in said
    assert "farm token new --kind join" in said

    exit_code, said = node.machine.run(node.command("--token", "wrong"))
    assert exit_code == 1
    assert "The join code is not one of this farm's." in said

    wait_until(lambda: time.monotonic() - made > 0.02 * 60, 10, lambda: "the code is past its time")
    exit_code, said = node.machine.run(node.command("--token", short))
    assert exit_code == 1
    assert "The join code has expired." in said
    assert "farm token" in said
    assert not (node.home / "farm.json").exists()

    code = head.code()
    first = node.join("--token", code)
    first.wait_for("Connected", 60)
    second, said = node.machine.run(node.command())
    assert second == 1
    assert "This PC is a node already" in said
    # The same command line again, as from the shell's history: this PC is known, so the used code does not matter.
    assert first.end() == 0
    again = node.join("--token", code)
    again.wait_for("Connected", 60)
    assert again.end() == 0
    stranger = node.command("--token", code)
    stranger[stranger.index(str(node.home))] = str(node.machine.directory / "other")
    exit_code, said = node.machine.run(stranger)
    assert exit_code == 1
    assert "used before" in said
    assert "Traceback" not in said


def test_a_pc_joins_leaves_without_a_trace_and_comes_back_without_a_code(pair: tuple[Head, Node]) -> None:
    head, node = pair
    joined = node.join("--token", head.code())
    seconds = joined.wait_for("Connected", 60)
    print(f"farm up ready after {head.ready_after_s:.1f} s, farm join connected after {seconds:.1f} s")
    for secret in ("node.json", "farm.json", "ray-token"):
        assert (node.home / secret).stat().st_mode & 0o777 == 0o600
    head.wait_card(node, "idle")
    assert head.rows("SELECT address FROM nodes") == [(node.machine.address,)]
    assert has_agent(node.machine)
    former = head.rays_of(node)
    assert len(former) == 1
    assert joined.end() == 0, joined.output()
    assert node.machine.processes() == []
    again = node.join()
    again.wait_for("Connected", 60)
    # Ray used to be killed while it waited for the agent to move away: the head took the node that had left for alive.
    now = head.rays_of(node)
    assert len(now) == 1
    assert not now & former
    assert again.end() == 0
    assert "Traceback" not in joined.output() + again.output()


def test_a_head_with_a_new_token_for_ray_gets_its_node_back(pair: tuple[Head, Node]) -> None:
    """How a PC is shut out that knows the old one (docs/threat-model.md): the others must come back by themselves."""
    head, node = pair
    joined = node.join("--token", head.code())
    joined.wait_for("Connected", 60)
    former = node.raylet()
    assert head.up is not None
    assert head.up.end() == 0
    assert head.machine.processes() == []
    assert "Traceback" not in head.up.output()
    head.data.ray_token.unlink()
    head.start()
    joined.wait_for("The head's Ray is another one now", 30)
    # Ray takes the node's former life for alive for some seconds more: asking that one first took ten.
    head.wait_card(node, "idle")
    assert node.raylet() != former
    assert joined.output().count("Connected") == 2
    assert joined.end() == 0


def test_a_head_that_lost_ray_s_state_gets_its_node_back_within_30_s(pair: tuple[Head, Node]) -> None:
    """With another state Ray refuses the old node for ever (WrongClusterID): `farm join` must take it down and join again.

    Its cable is pulled while it begins to join, too: it waits for its head.
    """
    head, node = pair
    node.machine.cut()
    joined = node.join("--token", head.code())
    joined.wait_for("does not answer", 30)
    node.machine.heal()
    joined.wait_for("Connected", 90)
    former = node.raylet()
    head.machine.power_cut()
    shutil.rmtree(head.data.root / "ray")
    head.machine.power_on()
    head.start()
    back = time.monotonic()
    joined.wait_for("The head's Ray is another one now", 30)
    head.wait_card(node, "idle")
    assert time.monotonic() - back < 30
    assert node.raylet() != former
    assert joined.end() == 0
