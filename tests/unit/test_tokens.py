"""Ending tokens: by name or id, with what was opened with them; and names that would make a program the owner of an account's jobs."""

import json
from pathlib import Path

import pytest

from farm.auth import Role, Scope, TokenKind, judge, new_token
from farm.errors import ConflictError, NotFoundError, SignInError
from farm.first_steps import prepare
from farm.model import Node
from farm.settings import DataDirectory
from farm.store.engine import open_engine
from farm.store.registry import Registry
from farm.store.users import Ended, Users
from tests.farm_verbs import run_here
from tests.storage import Storage, open_storage

NOW = 100.0


@pytest.fixture
def store(tmp_path: Path):
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def users(store: Storage) -> Users:
    return Users(store.registry._engine)


def given(
    store: Storage,
    kind: TokenKind,
    name: str,
    *,
    expires_at: float | None = None,
    user: str | None = None,
    node_id: str | None = None,
) -> str:
    made = new_token()
    store.registry.add_token(
        made, kind, name, 1.0, expires_at=expires_at, scope=Scope.ADMIN, user=user, node_id=node_id
    )
    return made


def is_good(store: Storage, token: str) -> bool:
    try:
        judge(store.registry.token(token), frozenset(TokenKind), NOW)
    except SignInError:
        return False
    return True


def test_a_token_ends_by_its_name_with_the_sessions_that_it_opened_and_no_others(
    store: Storage, users: Users
) -> None:
    """A token that had got about could not be ended, save by taking its account away."""
    users.add("laptop", Role.ADMIN, "hash", 1.0)
    lost, session = given(store, TokenKind.ADMIN, "laptop"), given(store, TokenKind.SESSION, "laptop")
    kept = [
        given(store, TokenKind.SESSION, "laptop", user="laptop"),
        given(store, TokenKind.ADMIN, "desk"),
        given(store, TokenKind.SESSION, "desk"),
        given(store, TokenKind.NODE, "laptop"),
    ]
    assert users.end_tokens("laptop", NOW) == Ended(1, 1, this_pc=False)
    assert [is_good(store, token) for token in (lost, session)] == [False, False]
    assert all(is_good(store, token) for token in kept)
    with pytest.raises(NotFoundError, match="no token 'laptop' that is still good"):
        users.end_tokens("laptop", NOW)


def test_a_program_s_token_never_opened_a_session(store: Storage, users: Users) -> None:
    given(store, TokenKind.API, "wall")
    other = given(store, TokenKind.SESSION, "wall")
    assert users.end_tokens("wall", NOW) == Ended(1, 0, this_pc=False)
    assert is_good(store, other)


def test_of_several_with_one_name_one_is_named_by_its_id_or_all_end(store: Storage, users: Users) -> None:
    first, second, third = (given(store, TokenKind.JOIN, "farm token join") for _ in range(3))
    known = store.registry.token(second)
    assert known is not None
    with pytest.raises(ConflictError, match="3 tokens are called farm token join: ") as refused:
        users.end_tokens("farm token join", NOW)
    assert known.id in refused.value.message
    assert "--all" in refused.value.remedy
    assert users.end_tokens(known.id, NOW) == Ended(1, 0, this_pc=False)
    assert [is_good(store, token) for token in (first, second, third)] == [True, False, True]
    assert users.end_tokens("farm token join", NOW, every=True) == Ended(2, 0, this_pc=False)


def test_what_is_over_or_is_a_pc_s_own_cannot_be_ended(store: Storage, users: Users) -> None:
    given(store, TokenKind.JOIN, "old", expires_at=50.0)
    used = given(store, TokenKind.JOIN, "used")
    store.registry.let_in(used, Node("n1", "cellar", "10.0.0.7"), new_token(), 2.0)
    given(store, TokenKind.NODE, "attic")
    given(store, TokenKind.SESSION, "browser")
    for name in ("old", "used", "attic", "browser", "nobody", ""):
        with pytest.raises(NotFoundError):
            users.end_tokens(name, NOW, every=True)


@pytest.mark.parametrize("name", ["ann", "ANN", "Ann"])
def test_a_program_may_not_be_called_as_an_account_is(store: Storage, users: Users, name: str) -> None:
    """A token `--name ann` that belonged to nobody could cancel and change the jobs of the account ann."""
    users.add("ann", Role.VIEWER, "hash", 1.0)
    with pytest.raises(ConflictError, match="ann is an account") as refused:
        given(store, TokenKind.API, name)
    assert "--user ann" in refused.value.remedy
    given(store, TokenKind.API, name, user="ann")
    given(store, TokenKind.JOIN, name)


def test_an_account_may_not_be_called_as_a_program_is(store: Storage, users: Users) -> None:
    store.registry.add_token(new_token(), TokenKind.API, "nightly", 1.0, expires_at=50.0, scope=Scope.SUBMIT)
    with pytest.raises(ConflictError, match="A program's token is called nightly"):
        users.add("nightly", Role.VIEWER, "hash", 2.0)
    users.check_name("nightly", 51.0)
    users.end_tokens("nightly", 3.0)
    users.add("nightly", Role.VIEWER, "hash", 4.0)


def test_the_verb_ends_a_token_and_says_what_ended(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path / "data")
    prepare(data)
    place = ["--data", str(data.root)]
    made = json.loads(
        run_here(["token", "new", "--scope", "read", "--name", "wall", "--json", *place]).stdout
    )
    ended = run_here(["token", "revoke", "wall", *place])
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "Ended 1 token called wall.\n")
    engine = open_engine(data.database_url, writes=False)
    found = Registry(engine).token(made["token"])
    engine.dispose()
    assert found is not None
    assert found.revoked_at is not None
    assert "revoked" in run_here(["token", "list", *place]).stdout
    again = run_here(["token", "revoke", "wall", *place])
    assert again.returncode == 1
    assert "There is no token 'wall' that is still good." in again.stderr
    assert "farm token list" in again.stderr
    own = run_here(["token", "revoke", "this PC", *place])
    assert own.stderr == (
        "Ended 1 token called this PC.\nIt was this PC's own: `farm up`, started again, makes another.\n"
    )
    former = data.admin_token.read_text()
    prepare(data)
    assert data.admin_token.read_text() != former
