"""What `farm up` stands on: free ports, one process per directory, Ray's state, secrets, and the first steps."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from farm import ports
from farm.auth import TokenKind, judge
from farm.daemons import RayPorts
from farm.errors import ConfigurationError, SignInError
from farm.first_steps import SIGN_IN_DAYS, prepare
from farm.head import Head, HeadOptions
from farm.ports import Wanted
from farm.ray_storage import RayStorage
from farm.secret_files import keep_secret, write_secret
from farm.settings import DataDirectory
from farm.single import only_one
from farm.store.engine import open_engine
from farm.store.registry import Registry


def test_a_taken_port_is_named_with_its_holder_and_the_option():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            ports.check([Wanted("127.0.0.1", port, "the dashboard", "--port")])
        assert f"Port {port}, wanted for the dashboard, is taken by" in caught.value.message
        assert f"(process {os.getpid()})" in caught.value.message
        assert "--port" in caught.value.remedy
        assert not ports.is_free(port)
    assert ports.is_free(port)


def test_a_port_is_taken_also_by_one_who_would_share_it():
    """Ray's servers set SO_REUSEPORT, so a second one binds without an error and gets half of the calls."""
    with socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("0.0.0.0", 0))  # noqa: S104
        first.listen()
        assert not ports.is_free(first.getsockname()[1])


@pytest.mark.parametrize(
    ("host", "words"), [("203.0.113.7", "not an address of this PC"), ("no such host", "is not an address")]
)
def test_a_host_that_is_not_ours_is_said_so(host, words):
    """And what helps: it was to end a program that there is none of, or to choose another port."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        ports.check([Wanted(host, 18000, "the dashboard", "--port")])
    assert "--host" in refused.value.remedy
    assert "--port" not in refused.value.remedy


def test_a_second_process_on_a_directory_is_refused(tmp_path):
    code = """
import sys; from pathlib import Path; from farm.single import only_one; from farm.errors import ConfigurationError
try:
    with only_one(Path(sys.argv[1]), "taken by {pid}", "kill {pid}"): print("in")
except ConfigurationError as error: print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with only_one(tmp_path / "lock", "", ""):
        refused = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    admitted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert refused.strip() == f"taken by {os.getpid()} kill {os.getpid()}"
    assert admitted.strip() == "in"


def test_a_directory_where_nothing_can_be_written_is_named_with_the_remedy():
    """`farm up --as-user` on a directory of root's ended with an error of the program."""
    with (
        pytest.raises(ConfigurationError, match="cannot write in /proc: ") as caught,
        only_one(Path("/proc/lock"), "", ""),
    ):
        pass
    assert "sudo chown -R" in caught.value.remedy


def test_ray_s_state_keeps_its_epoch_from_start_to_start(tmp_path):
    first = RayStorage(tmp_path / "ray", "10.0.0.1:6380").open()
    second = RayStorage(tmp_path / "ray", "10.0.0.1:6380").open()
    assert not first.inherited
    assert second.inherited
    assert first.id == second.id


def test_another_address_or_a_broken_state_begins_another_epoch(tmp_path):
    """Nodes hold the head's address and the identity of its state: with another of either they must join again."""
    storage = RayStorage(tmp_path / "ray", "10.0.0.1:6380")
    first = storage.open()
    state = tmp_path / "ray" / "gcs"
    (state / "CURRENT").write_text("state")
    moved = RayStorage(tmp_path / "ray", "10.0.0.9:6380").open()
    assert moved.id != first.id
    assert not list(state.iterdir())
    (state / "CURRENT").write_text("broken")
    aside = storage.set_aside()
    assert (aside / "CURRENT").read_text() == "broken"
    third = RayStorage(tmp_path / "ray", "10.0.0.9:6380").open()
    assert third.id != moved.id
    assert not third.inherited


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_half_written_facts_begin_another_epoch(tmp_path, text):
    storage = RayStorage(tmp_path / "ray", "10.0.0.1:6380")
    first = storage.open()
    (tmp_path / "ray" / "epoch.json").write_text(text)
    assert storage.open().id != first.id


def test_secrets_are_their_owner_s_alone(tmp_path):
    secret = tmp_path / "secret"
    assert keep_secret(secret, lambda: "one") == "one"
    assert keep_secret(secret, lambda: "two") == "one"
    secret.chmod(0o644)
    keep_secret(secret, lambda: "two")
    assert secret.stat().st_mode & 0o777 == 0o600
    write_secret(secret, "three")
    assert secret.read_text() == "three"
    assert secret.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [secret]


def test_the_first_start_makes_secrets_and_a_link_and_the_next_one_revokes_the_link(tmp_path):
    data = DataDirectory(tmp_path / "data")
    first = prepare(data, now=1000.0)
    admin, ray = data.admin_token.read_text(), data.ray_token.read_text()
    second = prepare(data, now=2000.0)
    assert (data.admin_token.read_text(), data.ray_token.read_text()) == (admin, ray)
    assert data.root.stat().st_mode & 0o777 == data.secrets.stat().st_mode & 0o777 == 0o700
    engine = open_engine(data.database_url, writes=True)
    registry = Registry(engine)
    link = frozenset({TokenKind.SIGN_IN})
    with pytest.raises(SignInError, match="revoked"):
        judge(registry.token(first), link, 2000.0)
    assert judge(registry.token(second), link, 2000.0).name == "farm up"
    with pytest.raises(SignInError, match="expired"):
        judge(registry.token(second), link, 2000.0 + SIGN_IN_DAYS * 86400.0)
    assert judge(registry.token(admin), frozenset({TokenKind.ADMIN}), 2000.0).expires_at is None
    engine.dispose()


def test_a_lost_database_does_not_lock_this_pc_s_own_client_out(tmp_path):
    """The admin token's file outlived its database, and every call of `farm jobs` was refused from then on."""
    data = DataDirectory(tmp_path / "data")
    prepare(data)
    for file in data.root.glob("farm.sqlite3*"):
        file.unlink()
    prepare(data)
    engine = open_engine(data.database_url, writes=True)
    found = Registry(engine).token(data.admin_token.read_text())
    engine.dispose()
    assert found is not None
    assert found.kind == TokenKind.ADMIN
    assert found.name == "this PC"


def test_a_ray_that_was_killed_for_starting_slowly_has_longer_the_next_time(tmp_path):
    """On an old PC that was busy each start was killed after 90 s, and after three of them `farm up` gave up."""
    options = HeadOptions(DataDirectory(tmp_path), "127.0.0.1", 8000, RayPorts(27000), 400, None)
    said = []
    head = Head(options, {}, said.append)
    for limit in (90, 180, 360, 360):
        head.ray.child = child = SimpleNamespace(
            age_s=limit - 1, has_dead=lambda _name: False, end=lambda **_: 0
        )
        assert not head._ray_stuck()
        child.age_s = limit
        assert head._ray_stuck()
        assert f"ray was not ready after {limit} s" in said[-1]
