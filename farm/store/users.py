"""Accounts in the store: who may sign in with a name and a password."""

import re
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError

from farm.auth import Credential, Role, TokenKind
from farm.errors import BadInputError, ConflictError, NotFoundError
from farm.ids import new_id
from farm.store import schema

THIS_PC = "this PC"
"""The name of the token by which the head's own PC comes in; `farm up` makes another when it was ended."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}", re.ASCII)


@dataclass(frozen=True, slots=True)
class User:
    """An account. `password` is its Argon2 hash; times in wall seconds."""

    name: str
    role: Role
    created_at: float
    signed_in_at: float | None = None
    password: str = ""


@dataclass(frozen=True, slots=True)
class GivenToken:
    """What may be shown of a program's token; times in wall seconds."""

    id: str
    name: str
    kind: TokenKind
    scope: str
    created_at: float
    expires_at: float | None
    user: str | None

    @property
    def this_pc(self) -> bool:
        """Whether the head's own PC comes in by it."""
        return (self.kind, self.name) == (TokenKind.ADMIN, THIS_PC)

    def let_in(self, browser: Credential) -> bool:
        """Whether this browser's session is one of those that end with it; a token of a program opens none."""
        opened = (TokenKind.SESSION, None, self.name)
        return self.kind is TokenKind.ADMIN and (browser.kind, browser.user, browser.name) == opened


@dataclass(frozen=True, slots=True)
class Ended:
    """How many tokens ended, by which of them this PC itself comes in, and how many browsers had signed in with them."""

    tokens: int
    sessions: int
    this_pc: bool


class Users:
    """Reads accounts on any engine; writes them on one opened with `writes=True`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[User]:
        """Every account by name, without the passwords' hashes."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(schema.users).order_by(schema.users.c.name)).mappings()
            return [
                User(row["name"], Role(row["role"]), row["created_at"], row["signed_in_at"]) for row in rows
            ]

    def any(self) -> bool:
        """Whether there is an account."""
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(schema.users.c.id).limit(1)) is not None

    def find(self, name: str) -> User | None:
        """One account with its password's hash; None where there is none of this name."""
        with self._engine.connect() as connection:
            row = (
                connection.execute(sa.select(schema.users).where(schema.users.c.name == name))
                .mappings()
                .one_or_none()
            )
        if row is None:
            return None
        return User(row["name"], Role(row["role"]), row["created_at"], row["signed_in_at"], row["password"])

    def tokens(self, now: float) -> list[GivenToken]:
        """The tokens of programs that are good at `now`, the newest first."""
        tokens, users = schema.tokens, schema.users
        statement = (
            sa.select(
                tokens.c.id,
                tokens.c.name,
                tokens.c.kind,
                tokens.c.scope,
                tokens.c.created_at,
                tokens.c.expires_at,
                users.c.name,
            )
            .outerjoin(users, tokens.c.user_id == users.c.id)
            .where(
                tokens.c.kind.in_((TokenKind.ADMIN, TokenKind.API)),
                *_good(now),
            )
            .order_by(tokens.c.created_at.desc(), tokens.c.id)
        )
        with self._engine.connect() as connection:
            return [
                GivenToken(row[0], row[1], TokenKind(row[2]), *row[3:])
                for row in connection.execute(statement)
            ]

    def end_tokens(self, called: str, now: float, *, every: bool = False) -> Ended:
        """Ends the token that has this name or id, and the browser sessions opened by a token of its name. `every`: all of that name.

        For codes and for the tokens of people and programs. A PC's own ends when that PC is forgotten.

        Raises:
            NotFoundError: none that is good at `now` is called so.
            ConflictError: several are.
        """
        tokens = schema.tokens
        good = _good(now)
        wanted = sa.select(tokens.c.id, tokens.c.kind, tokens.c.name).where(
            sa.or_(tokens.c.name == called, tokens.c.id == called),
            tokens.c.kind.not_in((TokenKind.NODE, TokenKind.SESSION)),
            tokens.c.used_at.is_(None),
            *good,
        )
        with self._engine.begin() as connection:
            found = connection.execute(wanted.order_by(tokens.c.created_at)).all()
            if not found:
                raise NotFoundError(
                    f"There is no token {called[:80]!r} that is still good.",
                    "`farm token list` shows those there are.",
                )
            if len(found) > 1 and not every:
                ids = ", ".join(row.id for row in found[:5]) + (", ..." if len(found) > 5 else "")
                raise ConflictError(
                    f"{len(found)} tokens are called {called[:80]}: {ids}, the oldest first.",
                    "Name one by its id, or end all of them with --all.",
                )
            openers = [row.name for row in found if row.kind in (TokenKind.ADMIN, TokenKind.SIGN_IN)]
            its_sessions = sa.and_(
                tokens.c.kind == TokenKind.SESSION, tokens.c.user_id.is_(None), tokens.c.name.in_(openers)
            )
            end = sa.update(tokens).values(revoked_at=now)
            sessions = connection.execute(end.where(its_sessions, *good)).rowcount
            connection.execute(end.where(tokens.c.id.in_([row.id for row in found])))
        this_pc = any((row.kind, row.name) == (TokenKind.ADMIN, THIS_PC) for row in found)
        return Ended(len(found), sessions, this_pc)

    def check_name(self, name: str, now: float, *, again: bool = False) -> None:
        """Passes a name that a new account may have. `again`: it is for who had the name before, and gets the jobs of the name.

        A job belongs to a name. So a name that was used for jobs, by an account that was removed or by a program's token, is nobody
        else's: the newcomer could cancel, change and delete what is another's.

        Raises:
            BadInputError: the name cannot be used.
            ConflictError: there is an account of this name, a program's token, or jobs that would become the new one's.
        """
        if not _NAME.fullmatch(name):
            raise BadInputError(
                "name",
                f"{name[:80]!r} cannot be an account's name.",
                "Take 1 to 32 small letters, digits, dots, dashes and underscores, the first a letter or digit.",
            )
        jobs, users = schema.jobs, schema.users
        with self._engine.connect() as connection:
            if connection.scalar(sa.select(users.c.id).where(users.c.name == name)) is not None:
                raise _taken(name)
            own = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.submitted_by == name)
            number = 0 if again else int(connection.scalar(own) or 0)
            if connection.scalar(_of_a_program(name, now)) is not None:
                raise ConflictError(
                    f"A program's token is called {name}: it could change the new account's jobs.",
                    f"Take another name, or end that token with `farm token revoke {name}`.",
                )
        if number:
            raise ConflictError(
                f"The name {name} has {number} job{'s' if number > 1 else ''} from before, which the new account could change.",
                "Take another name; or add --again if it is for the same person, who then has those jobs.",
            )

    def add(self, name: str, role: Role, password: str, now: float, *, again: bool = False) -> None:
        """Makes an account; `password` is the hash. `again`, and what is raised, as in `check_name`."""
        self.check_name(name, now, again=again)
        values = {"id": new_id(), "name": name, "role": role, "password": password, "created_at": now}
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(schema.users).values(values))
        except IntegrityError as error:
            raise _taken(name) from error

    def remove(self, name: str, now: float) -> None:
        """Takes an account away, and with it its sessions and tokens. Its jobs stay, and its name is kept for who had it.

        Raises:
            NotFoundError: there is none of this name.
        """
        tokens, users = schema.tokens, schema.users
        with self._engine.begin() as connection:
            user_id = connection.scalar(sa.select(users.c.id).where(users.c.name == name))
            if user_id is None:
                raise no_user(name)
            its_own = tokens.c.user_id == user_id
            connection.execute(
                sa.update(tokens).where(its_own, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
            )
            connection.execute(sa.update(tokens).where(its_own).values(user_id=None))
            connection.execute(sa.delete(users).where(users.c.id == user_id))

    def signed_in(self, name: str, now: float) -> None:
        """Notes when a person last came in with the password."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(schema.users).where(schema.users.c.name == name).values(signed_in_at=now)
            )


def _good(now: float) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """Of tokens: neither revoked nor expired."""
    tokens = schema.tokens
    return tokens.c.revoked_at.is_(None), sa.or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now)


def _of_a_program(name: str, now: float) -> sa.Select[tuple[str]]:
    """The good tokens of this name that belong to no account, and so own the jobs that are submitted with them."""
    tokens = schema.tokens
    mine = (tokens.c.name == name, tokens.c.kind == TokenKind.API, tokens.c.user_id.is_(None))
    return sa.select(tokens.c.id).where(*mine, *_good(now)).limit(1)


def _taken(name: str) -> ConflictError:
    return ConflictError(f"There is an account {name} already.", "`farm user remove` takes it away first.")


def no_user(name: str) -> NotFoundError:
    """There is no such account."""
    return NotFoundError(f"There is no account {name[:80]!r}.", "`farm user list` shows those there are.")
