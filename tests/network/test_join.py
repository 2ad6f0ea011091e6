"""`farm join` from another PC: in, refused, and back after every kind of trouble. Each PC is a network namespace with its own processes."""

import contextlib
import shutil

import psutil
import pytest

from tests.network.netbed import Machine, wait_until
from tests.network.pair import Head, Node

pytestmark = [pytest.mark.network, pytest.mark.timeout(400)]


def has_agent(machine: Machine) -> bool:
    """Whether the scheduler's agent runs on a machine."""
    for process in machine.processes():
        with contextlib.suppress(psutil.Error):
            if "NodeAgent" in " ".join(process.cmdline()):
                return True
    return False


def test_a_pc_joins_leaves_without_a_trace_and_comes_back_without_a_code(pair: tuple[Head, Node]) -> None:
    head, node = pair
    joined = node.join("--token", head.code())
    seconds = joined.wait_for("Connected", 60)
    ray_id, address = head.sees(node.id)
    assert address == node.machine.address
    print(f"farm up ready after {head.ready_after_s:.1f} s, farm join connected after {seconds:.1f} s")
    for secret in ("node.json", "farm.json", "ray-token"):
        assert (node.home / secret).stat().st_mode & 0o777 == 0o600
    second, said = node.machine.run(node.command())
    assert second == 1
    assert "This PC is a node already" in said

    wait_until(lambda: has_agent(node.machine), 60, lambda: "an agent on the node")
    assert joined.end() == 0, joined.output()
    assert node.machine.processes() == []
    again = node.join()
    again.wait_for("Connected", 60)
    # Ray used to be killed while it waited for the agent to move away: the head took the node that had left for alive.
    assert head.sees(node.id)[0] != ray_id
    assert again.end() == 0
    assert head.up is not None
    assert head.up.end() == 0
    assert head.machine.processes() == []
    assert "Traceback" not in head.up.output() + joined.output() + again.output()


def test_codes_that_are_wrong_used_or_expired_are_refused_with_the_remedy(pair: tuple[Head, Node]) -> None:
    head, node = pair
    exit_code, said = node.machine.run(node.command())
    assert exit_code == 1
    assert "This PC is not yet a node" in said
    assert "farm token new --kind join" in said

    exit_code, said = node.machine.run(node.command("--token", "wrong"))
    assert exit_code == 1
    assert "The join code is not one of this farm's." in said

    short = head.code(minutes="0.02")
    wait_until(lambda: head.machine.run(["sleep", "1.3"])[0] == 0, 10, lambda: "the code is past its time")
    exit_code, said = node.machine.run(node.command("--token", short))
    assert exit_code == 1
    assert "The join code has expired." in said
    assert "farm token" in said
    assert not (node.home / "farm.json").exists()

    code = head.code()
    first = node.join("--token", code)
    first.wait_for("Connected", 60)
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


def test_a_head_that_is_killed_finds_its_node_as_it_was(pair: tuple[Head, Node]) -> None:
    """Ray's state outlives kill -9 of every process of the head, so a render on the node goes on."""
    head, node = pair
    joined = node.join("--token", head.code())
    joined.wait_for("Connected", 60)
    before = head.sees(node.id)
    head.machine.power_cut()
    joined.wait_for("does not answer", 30)
    head.machine.power_on()
    head.start()
    assert head.sees(node.id, 30.0) == before
    joined.wait_for("The head answers again", 30)
    assert joined.exit_code is None


def test_a_head_that_lost_ray_s_state_gets_its_node_back_within_30_s(pair: tuple[Head, Node]) -> None:
    """With another state Ray refuses the old node for ever (WrongClusterID): `farm join` must take it down and join again."""
    head, node = pair
    joined = node.join("--token", head.code())
    joined.wait_for("Connected", 60)
    before = head.sees(node.id)
    head.machine.power_cut()
    shutil.rmtree(head.data.root / "ray")
    head.machine.power_on()
    head.start()
    joined.wait_for("The head's Ray is another one now", 30)
    after = head.sees(node.id, 30.0)
    assert after[0] != before[0]
    assert after[1] == node.machine.address
    assert joined.exit_code is None


def test_a_head_with_a_new_token_for_ray_gets_its_node_back(pair: tuple[Head, Node]) -> None:
    """How a PC is shut out that knows the old one (docs/threat-model.md): the others must come back by themselves."""
    head, node = pair
    joined = node.join("--token", head.code())
    joined.wait_for("Connected", 60)
    before = head.sees(node.id)
    assert head.up is not None
    assert head.up.end() == 0
    head.data.ray_token.unlink()
    head.start()
    joined.wait_for("The head's Ray is another one now", 30)
    # Ray takes the node's former life for alive for some seconds more.
    wait_until(
        lambda: head.sees(node.id, 30.0)[0] != before[0],
        60,
        lambda: f"a new life of the node\n{joined.output()}",
    )
    assert joined.output().count("Connected") == 2
    assert joined.exit_code is None


def test_a_short_cut_of_the_cable_changes_nothing_and_a_join_waits_for_its_head(
    pair: tuple[Head, Node],
) -> None:
    head, node = pair
    code = head.code()
    node.machine.cut()
    joined = node.join("--token", code)
    joined.wait_for("does not answer", 30)
    node.machine.heal()
    joined.wait_for("Connected", 90)
    before = head.sees(node.id)
    node.machine.cut()
    joined.wait_for("What runs here goes on", 30)
    node.machine.heal()
    joined.wait_for("The head answers again", 60)
    assert head.sees(node.id) == before
