"""PCs that greet the head again and again: answered as before where that is right, over a connection that is kept."""

import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from dashboard import __main__ as web
from dashboard import repeats, signin
from farm.auth import TokenKind, new_token
from farm.errors import SignInError
from farm.model import Node
from farm.wire import JoinTicket, ticket_to_dict
from node_agent import head_line
from node_agent.head_line import HeadLine, HeadSilentError
from node_agent.join import HELLO_EVERY_S
from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard, ray_is_up, running_dashboard


class Pc:
    """A node that greets; `judged` are the greetings that went the whole way through the app."""

    def __init__(self, farm: RunningDashboard, name: str, judged: list[str]) -> None:
        self.farm, self.name, self.token, self.judged = farm, name, new_token(), judged
        farm.registry.see_node(Node(f"node-{name}", name, "127.0.0.1"), [], 1.0)
        farm.registry.add_token(self.token, TokenKind.NODE, name, 1.0, node_id=f"node-{name}")
        self.line = HeadLine(farm.base_url)

    def hello(self, name: str | None = None, request: str | None = None) -> JoinTicket:
        return self.line.hello(self.token, name or self.name, request)

    @property
    def last_seen(self) -> float:
        return self.farm.reader.node(f"node-{self.name}").last_seen or 0.0


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as made:
        yield made


@pytest.fixture
def pc(farm: RunningDashboard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pc]:
    ray_is_up(farm.data)
    judged: list[str] = []
    check = signin.check
    monkeypatch.setattr(signin, "check", lambda *given: (judged.append(given[1]), check(*given))[1])
    made = Pc(farm, "attic", judged)
    yield made
    made.line.close()


def test_the_same_greeting_gets_the_same_answer_by_a_shorter_way(pc: Pc) -> None:
    first = pc.hello()
    assert pc.judged == [pc.token]
    assert [pc.hello() for _ in range(3)] == [first] * 3
    assert pc.judged == [pc.token]


def test_each_pc_gets_its_own_answer(pc: Pc) -> None:
    other = Pc(pc.farm, "cellar", pc.judged)
    for _ in range(3):
        assert pc.hello().node_id == "node-attic"
        assert other.hello().node_id == "node-cellar"
    assert pc.judged == [pc.token, other.token]
    other.line.close()


def test_another_ray_on_the_head_is_told_with_the_next_greeting(pc: Pc) -> None:
    for epoch in ("epoch-1", "epoch-2", "epoch-2", "epoch-1"):
        ray_is_up(pc.farm.data, epoch=epoch)
        assert pc.hello().epoch == epoch
    another = new_token()
    pc.farm.data.ray_token.write_text(f"{another}\n")
    assert pc.hello().ray_token == another
    pc.farm.data.ray_facts.unlink()
    with pytest.raises(HeadSilentError, match="not running yet"):
        pc.hello()


def test_a_pc_that_says_something_else_is_heard(pc: Pc) -> None:
    pc.hello()
    for name in ("loft", "attic", "loft"):
        pc.hello(name)
        assert pc.farm.reader.node("node-attic").name == name


def test_two_lives_of_a_pc_that_say_different_things_are_both_heard(pc: Pc) -> None:
    """The answer that is repeated must belong to what was written down last."""
    token, line = new_token(), HeadLine(pc.farm.base_url)
    pc.farm.registry.add_token(token, TokenKind.NODE, "attic", 1.0, node_id="node-attic")
    for _ in range(2):
        pc.hello("attic")
        assert pc.farm.reader.node("node-attic").name == "attic"
        line.hello(token, "loft")
        assert pc.farm.reader.node("node-attic").name == "loft"
    line.close()


def test_a_pc_that_left_is_refused_at_once(pc: Pc) -> None:
    pc.hello()
    pc.hello()
    pc.line.bye(pc.token)
    with pytest.raises(SignInError, match="revoked"):
        pc.hello()


def test_a_pc_that_was_struck_from_the_lists_is_refused_at_once(pc: Pc) -> None:
    pc.hello()
    pc.hello()
    pc.farm.registry.see_node(Node("node-attic", "attic", "127.0.0.1"), [], 1.0)  # heard long ago
    answer = plain_http.delete(f"{pc.farm.base_url}/api/v1/nodes/node-attic", headers=pc.farm.headers)
    assert answer.status_code == 202, answer.text
    with pytest.raises(SignInError, match="revoked"):
        pc.hello()


def test_a_token_that_another_program_ends_is_refused_when_all_are_looked_at_anew(
    pc: Pc, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert repeats.JUDGED_FOR_S < HELLO_EVERY_S
    pc.hello()
    pc.hello()
    pc.farm.registry.revoke(TokenKind.NODE, 2.0, node_id="node-attic")
    monkeypatch.setattr(repeats, "JUDGED_FOR_S", -1.0)
    with pytest.raises(SignInError, match="revoked"):
        pc.hello()


def test_a_token_that_is_good_for_something_else_is_refused_though_the_same_was_said(pc: Pc) -> None:
    pc.hello()
    with pytest.raises(SignInError, match="one of the kind node is needed"):
        pc.line.hello(pc.farm.admin_token, "attic")
    with pytest.raises(SignInError, match="not one of this farm"):
        pc.line.hello("guessed", "attic")


def test_a_greeting_that_asks_for_a_certificate_is_answered_anew(pc: Pc) -> None:
    for _ in range(2):
        pc.hello(request="a request")
    assert pc.judged == [pc.token] * 2


def test_what_is_no_greeting_is_refused_as_ever(pc: Pc) -> None:
    pc.hello()
    address, headers = (
        f"{pc.farm.base_url}/api/v1/nodes/hello",
        {"Authorization": f"Bearer {pc.token}"},
    )
    for body in (b"", b"{}", b"[1]", b"\xff", b"x" * 900, b"x" * 5000):
        assert plain_http.post(address, content=body, headers=headers).status_code == 422, body
    pieces = iter([b'{"name": "attic", ', b'"ray_version": "1"}'])
    assert plain_http.post(address, content=pieces, headers=headers).status_code == 422
    assert plain_http.get(address, headers=headers).status_code == 405
    assert pc.hello().node_id == "node-attic"


def test_a_repeated_answer_carries_the_same_headers(pc: Pc) -> None:
    address = f"{pc.farm.base_url}/api/v1/nodes/hello"
    headers = {"Authorization": f"Bearer {pc.token}"}
    first, second = (
        plain_http.post(address, json=head_line._about("attic"), headers=headers) for _ in range(2)
    )
    assert first.status_code == second.status_code == 200
    apart = {"date"}
    assert {key: value for key, value in first.headers.items() if key not in apart} == {
        key: value for key, value in second.headers.items() if key not in apart
    }
    assert first.content == second.content
    assert pc.judged == [pc.token]


# --- the connection ---
def test_a_connection_is_kept_from_greeting_to_greeting_and_longer_by_the_head() -> None:
    assert HELLO_EVERY_S < head_line.KEEP_S < web.KEEP_S


@contextmanager
def heads(*lives: int) -> Iterator[tuple[str, list[int]]]:
    """A head that ends each connection without a word after so many answers, as one that a PC slept through; how many each gave."""
    body = json.dumps(ticket_to_dict(JoinTicket("farm", "n1", "", "h:1", "s", "e", "2", "3.11.7"))).encode()
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        len(body),
        body,
    )
    given: list[int] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answers in lives:
            connection, _ = listening.accept()
            given.append(0)
            with connection, connection.makefile("rb") as asked:
                while _request(asked):
                    if given[-1] == answers:  # reset, not closed: its buffer still held what was asked
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        break
                    connection.sendall(answer)
                    given[-1] += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", given
    finally:
        listening.close()
        thread.join(10)


def _request(asked: BinaryIO) -> bytes:
    """The next request's body."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (read := asked.readline()):
        head += read
    length = re.search(rb"content-length: (\d+)", head, re.I)
    return asked.read(int(length[1])) if length else b""


def test_a_greeting_on_a_connection_that_ended_unseen_goes_over_a_fresh_one() -> None:
    """The head was said to be silent, which it was not."""
    with heads(2, 1) as (address, given):
        line = HeadLine(address)
        assert [line.hello("t", "attic").epoch for _ in range(3)] == ["e"] * 3
        line.close()
    assert given == [2, 1]


def test_a_head_that_ends_the_fresh_connection_too_is_silent() -> None:
    with heads(1, 0) as (address, given):
        line = HeadLine(address)
        line.hello("t", "attic")
        with pytest.raises(HeadSilentError):
            line.hello("t", "attic")
        line.close()
    assert given == [1, 0]


def test_a_code_is_sent_once() -> None:
    """It may be used up although no answer came."""
    with heads(0) as (address, given):
        line = HeadLine(address)
        with pytest.raises(HeadSilentError):
            line.redeem("code", "attic", None, "a credential")
        line.close()
    assert given == [0]
