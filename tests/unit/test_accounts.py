"""Accounts: roles and scopes, passwords, the store, the counting of failed tries, and the verbs that make them."""

import json
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from dashboard.tries import PER_ADDRESS, PER_NAME, WINDOW_S, Tries
from farm.auth import Credential, Role, Scope, TokenKind, judge, new_token
from farm.cli.main import app
from farm.errors import BadInputError, ConflictError, NotFoundError, SignInError, TooManyTriesError
from farm.model import Tier
from farm.passwords import hash_password, is_password
from farm.store import schema
from farm.store.engine import migrate, open_engine
from farm.store.requests import NewJob
from farm.store.users import Users
from tests.storage import PICTURE, SETTINGS, Storage, open_storage

WORDS = "correct horse battery"


class HandClock:
    """A clock that a test moves."""

    at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def store(tmp_path: Path):
    opened = open_storage(tmp_path)
    yield opened
    opened.close()


def users_of(store: Storage) -> Users:
    return Users(store.registry._engine)


def submit_as(store: Storage, name: str) -> None:
    store.requests.submit(NewJob(SETTINGS, Tier.PREVIEW, draft=True, picture=PICTURE, submitted_by=name), 1.0)


def test_a_name_that_has_jobs_is_nobody_else_s(store: Storage) -> None:
    """A new user of a removed one's name could cancel, change and delete that one's jobs."""
    users = users_of(store)
    users.add("ann", Role.SUBMITTER, "hash", 1.0)
    submit_as(store, "ann")
    with pytest.raises(ConflictError, match="There is an account ann already"):
        users.add("ann", Role.SUBMITTER, "hash", 2.0, again=True)
    users.remove("ann", 2.0)
    with pytest.raises(ConflictError, match="The name ann has 1 job from before") as refused:
        users.add("ann", Role.VIEWER, "hash", 3.0)
    assert "--again" in refused.value.remedy
    assert users.find("ann") is None
    users.add("ann", Role.VIEWER, "hash", 3.0, again=True)
    assert users.find("ann") is not None
    submit_as(store, "nightly")  # a program's token of this name
    submit_as(store, "nightly")
    with pytest.raises(ConflictError, match="has 2 jobs from before"):
        users.check_name("nightly", 3.0)
    users.add("bob", Role.VIEWER, "hash", 3.0)


def test_the_command_refuses_the_name_before_it_asks_for_a_password(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    submit_as(store, "ann")
    arguments = ["user", "add", "ann", "--data", str(tmp_path)]
    refused = CliRunner().invoke(app, arguments, input="")
    assert refused.exit_code == 1
    assert isinstance(refused.exception, ConflictError)
    assert "Password" not in refused.output
    assert CliRunner().invoke(app, [*arguments, "--again"], input=f"{WORDS}\n").exit_code == 0
    assert users_of(store).find("ann") is not None
    store.close()


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.VIEWER, {Scope.READ}),
        (Role.SUBMITTER, {Scope.READ, Scope.SUBMIT}),
        (Role.ADMIN, {Scope.READ, Scope.SUBMIT, Scope.ADMIN}),
    ],
)
def test_each_role_may_what_the_smaller_ones_may(role: Role, may: set[Scope]) -> None:
    assert {scope for scope in Scope if role.scope.covers(scope)} == may


@pytest.mark.parametrize(
    ("scope", "control_own", "control_others"),
    [
        (None, False, False),
        (Scope.READ, False, False),
        (Scope.SUBMIT, True, False),
        (Scope.ADMIN, True, True),
    ],
)
def test_whose_jobs_may_be_changed(scope: Scope | None, control_own: bool, control_others: bool) -> None:
    me = Credential("T", TokenKind.API, "laptop", scope=scope, user="ann")
    assert me.owner == "ann"
    assert me.may_control("ann") is control_own
    assert me.may_control("ben") is control_others
    assert me.may_control("laptop") is control_others  # the token's name is not the account's


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("token", Scope)
def test_an_owners_token_may_no_more_than_the_owner(store: Storage, token: Scope, role: Role) -> None:
    users_of(store).add("ann", role, "hash", 1.0)
    secret = new_token()
    store.registry.add_token(secret, TokenKind.API, "laptop", 1.0, scope=token, user="ann")
    found = store.registry.token(secret)
    assert found is not None
    for scope in Scope:
        assert found.may(scope) == (token.covers(scope) and role.scope.covers(scope))


def test_a_token_without_a_scope_may_nothing(store: Storage) -> None:
    for kind in set(TokenKind) - {TokenKind.ADMIN}:
        secret = new_token()
        store.registry.add_token(secret, kind, "x", 1.0)
        found = store.registry.token(secret)
        assert found is not None
        assert not any(found.may(scope) for scope in Scope), kind


def test_a_password_is_kept_as_argon2id_with_a_salt_of_its_own() -> None:
    one, two = hash_password(WORDS), hash_password(WORDS)
    assert one.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert one != two
    assert WORDS not in one
    assert is_password(one, WORDS)
    assert is_password(two, WORDS)
    for wrong in ("", WORDS.upper(), WORDS + " ", "x" * 2000):
        assert not is_password(one, wrong)
    assert not is_password(None, "")
    assert not is_password("no hash at all", WORDS)


def test_one_letter_written_in_two_ways_is_one_password() -> None:
    """A Mac sends "e" and an accent where other systems send one letter: the right password was refused."""
    assert is_password(hash_password("caf\u00e9 noir"), "cafe\u0301 noir")


@pytest.mark.parametrize("password", ["", "seven77", "x" * 1025])
def test_a_password_of_a_bad_length_is_refused(password: str) -> None:
    with pytest.raises(BadInputError, match="8 to 1024"):
        hash_password(password)


@pytest.mark.parametrize("name", ["", "Ann", "this PC", "-ann", "a" * 33, "ann\n", "änn", "../x"])
def test_a_name_that_could_be_mistaken_is_refused(store: Storage, name: str) -> None:
    with pytest.raises(BadInputError) as refused:
        users_of(store).add(name, Role.VIEWER, "hash", 1.0)
    assert refused.value.field == "name"
    assert users_of(store).all() == []


def test_removing_an_account_ends_its_sessions_and_tokens_and_no_others(store: Storage) -> None:
    users = users_of(store)
    users.add("ann", Role.SUBMITTER, "hash", 1.0)
    users.add("ben", Role.ADMIN, "hash", 1.0)
    with pytest.raises(ConflictError, match="ann already"):
        users.add("ann", Role.ADMIN, "other", 2.0)
    secrets = {name: new_token() for name in ("ann", "ben")}
    for name, secret in secrets.items():
        store.registry.add_token(secret, TokenKind.SESSION, name, 1.0, scope=Scope.ADMIN, user=name)
    users.remove("ann", 3.0)
    people = frozenset({TokenKind.SESSION})
    with pytest.raises(SignInError, match="revoked"):
        judge(store.registry.token(secrets["ann"]), people, 4.0)
    assert judge(store.registry.token(secrets["ben"]), people, 4.0).user == "ben"
    assert [user.name for user in users.all()] == ["ben"]
    with pytest.raises(NotFoundError):
        users.remove("ann", 5.0)
    with pytest.raises(NotFoundError):
        store.registry.add_token(new_token(), TokenKind.API, "x", 6.0, scope=Scope.READ, user="ann")


def test_whoever_was_in_before_there_were_roles_stays_in_for_everything(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'farm.sqlite3'}"
    migrate(url, to="0011")
    engine = open_engine(url, writes=True)
    with engine.begin() as connection:
        for kind in ("admin", "session", "join", "node", "signin"):
            connection.execute(
                sa.text(
                    "INSERT INTO tokens (id, sha256, kind, name, created_at) VALUES (:k, :k, :k, 'x', 1)"
                ),
                {"k": kind},
            )
    migrate(url)
    with engine.connect() as connection:
        scopes = dict(connection.execute(sa.select(schema.tokens.c.kind, schema.tokens.c.scope)).all())
    engine.dispose()
    assert scopes == {"admin": "admin", "session": "admin", "join": None, "node": None, "signin": None}


def fails(tries: Tries, address: str, name: str) -> float | None:
    try:
        tries.begin(address, name)
    except TooManyTriesError as error:
        return error.retry_after_s
    return None


def test_failures_are_counted_by_address_and_name_and_forgotten_after_a_while() -> None:
    clock = HandClock()
    tries = Tries(clock)
    for _ in range(PER_NAME):
        assert fails(tries, "a", "ann") is None
        clock.at += 10
    assert fails(tries, "a", "ann") == pytest.approx(WINDOW_S - 10 * PER_NAME)
    assert fails(tries, "a", "ben") is None
    assert fails(tries, "b", "ann") is None  # nobody can lock ann out from elsewhere
    clock.at = 1000.0 + WINDOW_S
    assert fails(tries, "a", "ann") is None


def test_one_address_cannot_try_all_names() -> None:
    tries = Tries(HandClock())
    for number in range(PER_ADDRESS):
        assert fails(tries, "a", f"user{number}") is None
    assert fails(tries, "a", "another") == WINDOW_S
    assert fails(tries, "b", "another") is None


def test_the_right_password_wipes_the_slate() -> None:
    tries = Tries(HandClock())
    for _ in range(3 * PER_ADDRESS):
        assert fails(tries, "a", "ann") is None
        tries.succeeded("a", "ann")


def farm(tmp_path: Path, *words: str, stdin: str | None = None) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*words, "--data", str(tmp_path)], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def test_the_verbs_make_show_and_remove_an_account(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    assert farm(tmp_path, "user", "add", "ann", "--role", "viewer", stdin=f"{WORDS}\n")[0] == 0
    kept = users_of(store).find("ann")
    assert kept is not None
    assert is_password(kept.password, WORDS)
    (shown,) = json.loads(farm(tmp_path, "user", "list", "--json")[1])
    assert (shown["name"], shown["role"], "password" in shown) == ("ann", "viewer", False)
    assert "viewer" in farm(tmp_path, "user", "list")[1]
    with pytest.raises(BadInputError, match="8 to 1024"):
        farm(tmp_path, "user", "add", "ben", stdin="short\n")
    assert farm(tmp_path, "user", "remove", "ann")[0] == 0
    assert json.loads(farm(tmp_path, "user", "list", "--json")[1]) == []
    assert farm(tmp_path, "user", "add", "ben", "--role", "king", stdin=f"{WORDS}\n")[0] == 2
    store.close()


@pytest.mark.parametrize(
    ("options", "kind", "scope", "owner"),
    [
        (("--kind", "admin"), "admin", Scope.ADMIN, "farm token admin"),
        (("--scope", "admin"), "admin", Scope.ADMIN, "farm token admin"),
        (("--scope", "read", "--name", "wall"), "api", Scope.READ, "wall"),
        (("--scope", "submit", "--user", "ann"), "api", Scope.SUBMIT, "ann"),
        (("--scope", "admin", "--user", "ann"), "api", Scope.SUBMIT, "ann"),
        (("--kind", "join"), "join", None, "farm token join"),
    ],
)
def test_a_token_has_the_scope_and_the_owner_that_were_asked_for(
    tmp_path: Path, options: tuple[str, ...], kind: str, scope: Scope | None, owner: str
) -> None:
    store = open_storage(tmp_path)
    users_of(store).add("ann", Role.SUBMITTER, "hash", 1.0)
    made = json.loads(farm(tmp_path, "token", "new", "--json", *options)[1])
    found = store.registry.token(made["token"])
    assert found is not None
    assert (found.kind, found.scope, found.owner) == (kind, scope, owner)
    (listed,) = json.loads(farm(tmp_path, "token", "list", "--json")[1])
    assert listed["user"] == ("ann" if "--user" in options else None)
    assert made["token"] not in json.dumps(listed)
    store.close()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--kind", "join", "--scope", "read"),
        ("--kind", "admin", "--scope", "read"),
        ("--scope", "submit"),
        ("--kind", "join", "--user", "ann"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: tuple[str, ...]) -> None:
    open_storage(tmp_path).close()
    with pytest.raises(BadInputError):
        farm(tmp_path, "token", "new", *options)
