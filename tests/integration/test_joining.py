"""What a PC that joins asks the head, over real HTTP: the script and all behind it, other versions, other farms, and being dialled back."""

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from dashboard.api import join as join_api
from dashboard.joining.lines import linux_line
from farm.answers.machines import NodeView
from farm.build import build
from farm.daemons import READY_MARK, RayPorts
from farm.errors import ConfigurationError, SignInError
from farm.model import Node as StoredNode
from farm.reach import why_unreachable
from farm.supervise import Bell, Program
from farm.wire import Reach
from node_agent import head_line, join
from node_agent.doorbells import Doorbells
from node_agent.head_line import HeadLine
from node_agent.join import Membership, Node, NodeOptions
from node_agent.trust import request_for
from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard, ray_is_up, running_dashboard
from tests.waiting import wait_until


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as made:
        ray_is_up(made.data, address="127.0.0.1:6380")
        yield made


def code(farm: RunningDashboard, **headers: str) -> dict[str, str]:
    answer = plain_http.post(f"{farm.base_url}/api/v1/tokens", headers={**farm.headers, **headers}, json={})
    assert answer.status_code == 201, answer.text
    return answer.json()  # type: ignore[no-any-return]  # JSON


def fetched(farm: RunningDashboard, path: str) -> bytes:
    answer = plain_http.get(f"{farm.base_url}/join/{path}")
    assert answer.status_code == 200, answer.text
    return answer.content


def test_everything_that_the_line_needs_comes_from_the_head_with_its_checksum(farm: RunningDashboard) -> None:
    made = code(farm, host="192.168.1.5:8000")
    script = fetched(farm, "install.sh")
    assert made["linux"] == linux_line(script, "http://192.168.1.5:8000", made["token"])
    for path in ("wheel", "lock/head.txt", "lock/gpu.txt"):
        assert hashlib.sha256(fetched(farm, path)).hexdigest() in script.decode(), path
    assert hashlib.sha256(fetched(farm, "install.ps1")).hexdigest() in made["windows"]
    missing = plain_http.get(f"{farm.base_url}/join/lock/dev.txt")
    assert (missing.status_code, "gpu.txt, head.txt" in missing.json()["remedy"]) == (404, True)


def test_a_host_header_does_not_get_into_the_line(farm: RunningDashboard) -> None:
    """What a browser sends as its host is not ours; in a line for a shell it could be a command."""
    for host in ("evil$(reboot):80", "a;b"):
        assert "reboot" not in code(farm, host=host)["linux"]
        assert (
            plain_http.get(f"{farm.base_url}/join/farm", headers={"host": host})
            .json()["line"]
            .endswith("ADDRESS:8000")
        )


def test_a_pc_of_other_versions_is_given_the_line_that_mends_it(farm: RunningDashboard) -> None:
    wish = {"name": "attic", "ray_version": "2.9.0", "python_version": "3.11.1", "code": code(farm)["token"]}
    answer = plain_http.post(f"{farm.base_url}/join/redeem", json=wish)
    assert answer.status_code == 409
    assert linux_line(fetched(farm, "install.sh"), farm.base_url) in answer.json()["remedy"]


def enrolled(farm: RunningDashboard, home: Path, token: str = "") -> list[str]:
    """Makes a PC a node without starting Ray there; returns what was said."""
    said: list[str] = []
    with Bell() as bell:
        Node(
            NodeOptions(farm.base_url, home, token=token, first_port=23000, enroll=True), {}, said.append
        ).run(bell)
    return said


def test_a_code_that_was_used_up_for_an_answer_that_came_too_late_is_still_good_for_its_pc(
    farm: RunningDashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head with a slow disk took more than 5 s: the PC asked again, heard that its code "was used before", and gave up."""
    asked_again, ticket = threading.Event(), join_api._ticket
    calls = iter([True])

    def slow_at_first(*about: object) -> dict[str, object]:
        if next(calls, False):
            asked_again.wait(3.0)
        asked_again.set()
        return ticket(*about)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(join_api, "_ticket", slow_at_first)
    monkeypatch.setattr(head_line, "CALL_LIMIT_S", 1.0)
    good = code(farm)["token"]
    said = enrolled(farm, tmp_path / "node", good)
    assert "does not answer" in said[0], "it came in time"
    (node,) = farm.reader.nodes()
    enrolled(farm, tmp_path / "node")
    assert farm.reader.nodes()[0].id == node.id
    with pytest.raises(SignInError, match="used before"):
        enrolled(farm, tmp_path / "other", good)


def test_a_pc_is_in_one_farm_at_a_time(farm: RunningDashboard, tmp_path: Path) -> None:
    """The second farm's code was taken at once, and the first farm waited for a PC that was gone."""
    home = tmp_path / "node"
    enrolled(farm, home, code(farm)["token"])
    with running_dashboard(tmp_path / "second") as other:
        ray_is_up(other.data)
        good = code(other)["token"]
        with pytest.raises(ConfigurationError, match="another farm") as caught:
            enrolled(other, home, good)
        assert farm.base_url in caught.value.message
        assert "farm leave" in caught.value.remedy
        assert Membership.load(home) is not None
        found = other.registry.token(good)
        assert found is not None
        assert found.used_at is None, "the code is still good"


def test_a_head_that_moved_keeps_its_nodes(farm: RunningDashboard, tmp_path: Path) -> None:
    """The same farm at another address needs no new code."""
    home = tmp_path / "node"
    enrolled(farm, home, code(farm)["token"])
    member = Membership.load(home)
    assert member is not None
    Membership("http://192.0.2.1:8000", member.node_token, member.farm_id).save(home)
    enrolled(farm, home)
    assert Membership.load(home) == member


@pytest.fixture
def line(farm: RunningDashboard, tmp_path: Path) -> Iterator[tuple[HeadLine, str]]:
    """A node's way to the head, and its credential."""
    enrolled(farm, tmp_path / "node", code(farm)["token"])
    member = Membership.load(tmp_path / "node")
    assert member is not None
    opened = HeadLine(farm.base_url)
    yield opened, member.node_token
    opened.close()


def test_the_head_dials_back_and_tells_which_ports_answer(line: tuple[HeadLine, str]) -> None:
    head, token = line
    with Doorbells(RayPorts(23200)) as bells:
        assert len(bells.ports) == 3
        assert head.reach(token, "127.0.0.3", bells.ports, 23200) == Reach({}, "127.0.0.1")
    gone = head.reach(token, "127.0.0.3", bells.ports, 23200)
    assert set(gone.failed) == set(bells.ports)
    assert "refused" in next(iter(gone.failed.values()))


def test_a_port_that_never_answers_takes_two_seconds_and_is_named(line: tuple[HeadLine, str]) -> None:
    """A firewall that drops packets: the node used to hang in `ray start` for a minute and then say nothing of use."""
    head, token = line
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        callers = [socket.socket() for _ in range(4)]  # its queue is full: the kernel drops who comes next
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(("127.0.0.1", port))
        began = time.monotonic()
        found = head.reach(token, "127.0.0.1", [port], 23200)
        took = time.monotonic() - began
        for caller in callers:
            caller.close()
    assert found.failed == {port: "no answer within 2 s"}
    assert took < 4.5


def test_only_a_node_may_have_the_head_dial(farm: RunningDashboard, line: tuple[HeadLine, str]) -> None:
    url = f"{farm.base_url}/api/v1/nodes/reach"
    wish = {"address": "127.0.0.1", "ports": [23000], "first_port": 23000}
    assert plain_http.post(url, json=wish).status_code == 401
    assert plain_http.post(url, json=wish, headers=farm.headers).status_code == 401
    mine = {"authorization": f"Bearer {line[1]}"}
    assert plain_http.post(url, json=wish, headers=mine).status_code == 200
    for wrong in (
        {"ports": [22]},
        {"ports": []},
        {"ports": list(range(2000, 2009))},
        {"address": "a.example"},
        {"first_port": 65500},
    ):
        assert plain_http.post(url, json={**wish, **wrong}, headers=mine).status_code == 422


def test_what_a_node_is_told_has_the_port_and_the_remedy() -> None:
    block = RayPorts(6380)
    assert why_unreachable(Reach({}, "10.0.0.7"), "10.0.0.7", "10.0.0.1", block) is None
    firewall = why_unreachable(
        Reach({6381: "no answer within 2 s"}, "10.0.0.7"), "10.0.0.7", "10.0.0.1", block
    )
    assert firewall == (
        "The head cannot connect to this PC at 10.0.0.7, port 6381 (no answer within 2 s). A firewall is in the way, most likely on this "
        "PC: `sudo ufw allow proto tcp from 10.0.0.1 to any port 6380:6499`"
    )
    nat = why_unreachable(Reach({6381: "no answer within 2 s"}, "10.0.0.9"), "172.20.1.2", "10.0.0.1", block)
    assert nat is not None
    assert "It sees this PC as 10.0.0.9" in nat
    assert "docs/windows.md" in nat


class Silent(Doorbells):
    """A firewall, at its edge: nothing on this PC can be dialled."""

    def __enter__(self) -> "Silent":
        return self


def test_a_node_that_cannot_be_dialled_says_so_within_seconds_and_goes_on_when_it_can(
    farm: RunningDashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "Doorbells", Silent)
    started = threading.Event()

    def no_ray(*_args: object) -> None:
        started.set()
        raise ConfigurationError("Ray would start now.")

    monkeypatch.setattr(join, "Child", no_ray)
    said: list[str] = []
    node = Node(
        NodeOptions(farm.base_url, tmp_path / "node", token=code(farm)["token"], first_port=23400),
        {},
        said.append,
    )

    def run() -> None:
        with pytest.raises(ConfigurationError, match="Ray would start now"):
            node.run(bell)

    with Bell() as bell:
        thread = threading.Thread(target=run, daemon=True)
        began = time.monotonic()
        thread.start()
        wait_until(
            lambda: any("cannot connect to this PC" in line for line in said), 10, "the node to say it"
        )
        print(f"told after {time.monotonic() - began:.1f} s")
        assert not started.is_set(), "Ray is not started to hang"
        (shown,) = nodes_of(farm)
        assert shown.kept_out is not None
        assert shown.kept_out.startswith(
            f"The head cannot connect to {shown.name} at 127.0.0.3, port 23401 ("
        )
        assert "from 127.0.0.1 to any port 23400:23519`" in shown.kept_out
        assert "It asks to join and cannot: The head cannot connect to" in page(farm)
        monkeypatch.setattr(join, "Doorbells", Doorbells)
        assert started.wait(20)
        thread.join(10)
        assert not thread.is_alive()
    assert [one.kept_out for one in nodes_of(farm)] == [None]
    assert "cannot connect" not in page(farm)


def test_a_pc_on_which_ray_starts_slowly_joins_all_the_same(
    farm: RunningDashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old PC that was busy took more than a minute: its Ray was killed in the midst of each start, for ever."""

    def slow_ray(_node: Node, *_about: object) -> Program:
        line = f"sleep 1; echo '{READY_MARK}'; exec sleep 60"
        return Program("ray", ("sh", "-c", line), os.environ, tmp_path / "ray.log", grace_s=0.5)

    monkeypatch.setattr(Node, "_program", slow_ray)
    monkeypatch.setattr(join, "RAY_START_LIMIT_S", 0.6)
    said: list[str] = []
    options = NodeOptions(farm.base_url, tmp_path / "node", token=code(farm)["token"], first_port=23800)
    node = Node(options, {}, said.append)
    with Bell() as bell:
        thread = threading.Thread(target=node.run, args=(bell,), daemon=True)
        thread.start()
        try:
            wait_until(lambda: any("Connected" in line for line in said), 20, "the node to join")
        finally:
            bell.stopping = True
            thread.join(10)
    assert any("did not join within 1 s" in line for line in said), "it was not slow"


def nodes_of(farm: RunningDashboard) -> list[NodeView]:
    answer = plain_http.get(f"{farm.base_url}/api/v1/nodes", headers=farm.headers)
    return [NodeView.model_validate(one) for one in answer.json()]


def page(farm: RunningDashboard) -> str:
    answer = plain_http.get(f"{farm.base_url}/cards", headers=farm.headers)
    assert answer.status_code == 200
    return answer.text


def test_a_head_that_was_updated_gives_its_nodes_the_line_and_shows_which_are_left_behind(
    farm: RunningDashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node with other code used to be let in, and its reports could not be read."""
    home = tmp_path / "node"
    enrolled(farm, home, code(farm)["token"])
    (before,) = nodes_of(farm)
    assert before.versions["farm"] == build()
    monkeypatch.setattr(head_line, "build", lambda: "0.0.9+0123456789ab")
    with pytest.raises(ConfigurationError, match=re.escape(build())) as refused:
        enrolled(farm, home)
    assert "This PC has the farm 0.0.9+0123456789ab" in refused.value.message
    line = linux_line(fetched(farm, "install.sh"), farm.base_url)
    assert f"`{line}`" in refused.value.remedy
    (shown,) = nodes_of(farm)
    assert shown.kept_out is not None
    assert shown.kept_out.startswith(f"{shown.name} has the farm 0.0.9+0123456789ab, the head has {build()}")
    assert line in shown.kept_out
    assert "It asks to join and cannot: " in page(farm)


def test_a_new_node_is_not_let_into_an_older_farm(
    farm: RunningDashboard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of before this rule judges nobody: then it is the PC that says so."""
    monkeypatch.setattr(join, "build", lambda: "9.9.9+0123456789ab")
    options = NodeOptions(farm.base_url, tmp_path / "node", token=code(farm)["token"], first_port=23600)
    with Bell() as bell, pytest.raises(ConfigurationError, match=re.escape("the farm 9.9.9+")) as refused:
        Node(options, {}, lambda _line: None).run(bell)
    assert "Bring the head up to this version" in refused.value.remedy


def test_the_head_tells_what_it_runs(farm: RunningDashboard) -> None:
    told = plain_http.get(f"{farm.base_url}/join/farm").json()
    assert told["ray_version"] == metadata.version("ray")
    assert told["line"] == linux_line(fetched(farm, "install.sh"), farm.base_url)
    assert told["farm_id"] == plain_http.get(f"{farm.base_url}/join/farm").json()["farm_id"]


def test_a_head_without_tls_has_no_authority_to_show_and_gives_no_certificate(
    farm: RunningDashboard, tmp_path: Path
) -> None:
    """A node behind somebody's own HTTPS asks for one too."""
    assert plain_http.get(f"{farm.base_url}/join/ca.pem").status_code == 404
    enrolled(farm, tmp_path / "node", code(farm)["token"])
    member = Membership.load(tmp_path / "node")
    assert member is not None
    head = HeadLine(farm.base_url)
    assert head.hello(member.node_token, "attic", request_for(tmp_path / "node", "attic")).certificate == ""
    head.close()


def test_greetings_that_say_nothing_new_are_written_down_now_and_then(
    farm: RunningDashboard, line: tuple[HeadLine, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 200 PCs' greetings was a whole row written and synced: a quarter of a core."""
    head, token = line

    def node() -> StoredNode:
        (only,) = farm.reader.nodes()
        return only

    head.hello(token, "attic")
    first = node()
    head.hello(token, "attic")
    assert node() == first
    monkeypatch.setattr(join_api, "NOTE_EVERY_S", 0.0)
    head.hello(token, "attic")
    # Written once it is answered.
    wait_until(lambda: (node().last_seen or 0.0) > (first.last_seen or 0.0), what="it is written down")
    assert replace(node(), last_seen=None) == replace(first, last_seen=None)
    monkeypatch.setattr(join_api, "NOTE_EVERY_S", 3600.0)
    head.hello(token, "cellar")
    assert node().name == "cellar"
