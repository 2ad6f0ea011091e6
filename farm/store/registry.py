"""The farm's machines and credentials: nodes, cards, tokens and facts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from farm.auth import Credential, Role, Scope, TokenKind, hash_token
from farm.errors import ConflictError
from farm.ids import new_id
from farm.model import Card, Node
from farm.store import schema
from farm.store.users import no_user


@dataclass(frozen=True, slots=True)
class Heard:
    """A node was heard `at` (wall seconds), with these cards; `ram_free_gib` is None where it did not say."""

    node_id: str
    at: float
    card_ids: tuple[str, ...] = ()
    ram_free_gib: float | None = None


class Registry:
    """Writes nodes, cards, tokens and facts, on an engine opened with `writes=True`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def see_node(self, node: Node, cards: Sequence[Card], now: float) -> None:
        """Notes what a node says of itself and its cards."""
        with self._engine.begin() as connection:
            self._see(connection, node, cards, now)

    def _see(self, connection: Connection, node: Node, cards: Sequence[Card], now: float) -> None:
        self._upsert(
            connection,
            schema.nodes,
            {
                "id": node.id,
                "name": node.name,
                "address": node.address,
                "versions": node.versions,
                "joined_at": now,
                "last_seen": now,
                "ram_gib": node.ram_gib,
                "ram_free_gib": node.ram_free_gib,
                "owner_rules": node.owner_rules,
                "forgotten_at": None,  # whoever speaks is there
            },
            keep=("joined_at",),
        )
        for card in cards:
            capability = card.compute_capability
            self._upsert(
                connection,
                schema.cards,
                {
                    "id": card.id,
                    "node_id": node.id,
                    "kind": card.kind,
                    "name": card.name,
                    "vram_gib": card.vram_gib,
                    "usable_gib": card.usable_gib,
                    "band": card.band,
                    "compute_capability": f"{capability[0]}.{capability[1]}" if capability else None,
                    "models": sorted(card.models),
                    "last_seen": now,
                    "trouble": card.trouble,
                    "driver": card.driver,
                    "pcie_generation": card.pcie.generation if card.pcie else None,
                    "pcie_lanes": card.pcie.lanes if card.pcie else None,
                    "pcie_lanes_most": card.pcie.lanes_most if card.pcie else None,
                    "bus_gb_s": card.bus_gb_s,
                    "ram_gib": card.ram_gib,
                    "notice": card.notice,
                    "kept": card.kept,
                    "others_gib": card.others_gib,
                    "tags": sorted(card.tags),
                    "facts": asdict(card.facts) if card.facts is not None else None,
                    "coming": [asdict(one) for one in card.coming] or None,
                },
            )

    def keep_out(self, node_id: str, why: str | None) -> None:
        """Notes why a PC that asks to be a node cannot be one now, with what helps; None when nothing is in its way."""
        nodes = schema.nodes
        with self._engine.begin() as connection:
            changed = nodes.c.kept_out.is_distinct_from(
                why
            )  # a PC asks again and again, and is mostly told the same
            connection.execute(sa.update(nodes).where(nodes.c.id == node_id, changed).values(kept_out=why))

    def hear_nodes(self, heard: Sequence[Heard]) -> None:
        """Notes that nodes say what they said before, all in one transaction: of 200 PCs there are twenty a second."""
        nodes, cards = schema.nodes, schema.cards
        free: sa.ColumnElement[float] = sa.func.coalesce(sa.bindparam("free_gib"), nodes.c.ram_free_gib)
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(nodes)
                .where(nodes.c.id == sa.bindparam("node_id"))
                .values(last_seen=sa.bindparam("at"), ram_free_gib=free),
                [{"node_id": one.node_id, "at": one.at, "free_gib": one.ram_free_gib} for one in heard],
            )
            seen = [{"card_id": card_id, "at": one.at} for one in heard for card_id in one.card_ids]
            if seen:
                connection.execute(
                    sa.update(cards)
                    .where(cards.c.id == sa.bindparam("card_id"))
                    .values(last_seen=sa.bindparam("at")),
                    seen,
                )

    def pause_card(self, card_id: str, reason: str, now: float) -> None:
        """Notes why the farm gives a card no work until it has passed a test."""
        self._set_card(card_id, paused=reason, paused_at=now)

    def clear_card(self, card_id: str, now: float) -> None:
        """Ends a card's pause; what failed on it before counts against it no longer."""
        self._set_card(card_id, paused=None, paused_at=None, cleared_at=now)

    def _set_card(self, card_id: str, **values: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.update(schema.cards).where(schema.cards.c.id == card_id).values(**values))

    def add_token(
        self,
        token: str,
        kind: TokenKind,
        name: str,
        now: float,
        *,
        expires_at: float | None = None,
        node_id: str | None = None,
        scope: Scope | None = None,
        user: str | None = None,
    ) -> str:
        """Stores the hash of a token, of the account called `user` where there is one; returns its id.

        An admin token has the scope of its kind, others the one that is given.

        Raises:
            NotFoundError: there is no such account (any more).
            ConflictError: a program's token shall be called as an account is, whose jobs would be the program's too.
        """
        if kind == TokenKind.ADMIN:
            scope = Scope.ADMIN
        with self._engine.begin() as connection:
            user_id = None
            if user is not None:
                user_id = connection.scalar(sa.select(schema.users.c.id).where(schema.users.c.name == user))
                if user_id is None:
                    raise no_user(user)
            elif kind == TokenKind.API:
                namesake = sa.select(schema.users.c.name).where(schema.users.c.name == name.lower())
                if connection.scalar(namesake) is not None:
                    raise ConflictError(
                        f"{name.lower()} is an account: a program's token of this name could change its jobs.",
                        f"Say --user {name.lower()} if it is that account's token, or choose another --name.",
                    )
            return _add(
                connection,
                token,
                kind,
                name,
                now,
                expires_at=expires_at,
                node_id=node_id,
                scope=scope,
                user_id=user_id,
            )

    def token(self, token: str) -> Credential | None:
        """What is known of a token; None for one that was never given out."""
        with self._engine.begin() as connection:
            return find_token(connection, token)

    def let_in(self, code: str, node: Node, token: str, now: float) -> bool:
        """Makes a PC a node with `token` for its credential, and uses up its single-use code: all of it or nothing.

        False if the code was used before, so that of two racing uses one wins.
        """
        tokens = schema.tokens
        with self._engine.begin() as connection:
            unused = tokens.c.sha256 == hash_token(code), tokens.c.used_at.is_(None)
            if not connection.execute(sa.update(tokens).where(*unused).values(used_at=now)).rowcount:
                return False
            self._see(connection, node, [], now)
            _add(connection, token, TokenKind.NODE, node.name, now, node_id=node.id)
            return True

    def revoke(self, kind: TokenKind, now: float, *, node_id: str | None = None) -> None:
        """Revokes every token of a kind (of one node, where given)."""
        with self._engine.begin() as connection:
            statement = sa.update(schema.tokens).where(
                schema.tokens.c.kind == kind, schema.tokens.c.revoked_at.is_(None)
            )
            if node_id is not None:
                statement = statement.where(schema.tokens.c.node_id == node_id)
            connection.execute(statement.values(revoked_at=now))

    def revoke_one(self, token: str, now: float) -> None:
        """Revokes this one token; unknown ones and ones revoked before stay as they are."""
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(schema.tokens)
                .where(schema.tokens.c.sha256 == hash_token(token), schema.tokens.c.revoked_at.is_(None))
                .values(revoked_at=now)
            )

    def fact(self, key: str, default: str) -> str:
        """A fact of the farm; stores and returns `default` where there is none yet."""
        with self._engine.begin() as connection:
            found = connection.scalar(sa.select(schema.facts.c.value).where(schema.facts.c.key == key))
            if found is not None:
                return str(found)
            connection.execute(sa.insert(schema.facts).values(key=key, value=default))
            return default

    def _upsert(
        self, connection: Connection, table: sa.Table, values: dict[str, object], keep: tuple[str, ...] = ()
    ) -> None:
        dialect = sqlite if self._engine.dialect.name == "sqlite" else postgresql
        statement = dialect.insert(table).values(**values)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["id"],
                set_={key: value for key, value in values.items() if key not in ("id", *keep)},
            )
        )


def _add(connection: Connection, token: str, kind: TokenKind, name: str, now: float, **more: object) -> str:
    """Stores the hash of a token; returns its id."""
    token_id = new_id()
    row = {"id": token_id, "sha256": hash_token(token), "kind": kind, "name": name, "created_at": now}
    connection.execute(sa.insert(schema.tokens).values(**row, **more))
    return token_id


_TOKEN = (
    sa.select(schema.tokens, schema.users.c.name.label("user"), schema.users.c.role)
    .outerjoin(schema.users, schema.tokens.c.user_id == schema.users.c.id)
    .where(schema.tokens.c.sha256 == sa.bindparam("sha256"))
)
"""Asked at every request, so it is made once: that takes longer than SQLite's answer."""


def find_token(connection: Connection, token: str) -> Credential | None:
    """What is known of a token, on any connection (the web reads with this on its reading engine)."""
    row = connection.execute(_TOKEN, {"sha256": hash_token(token)}).mappings().one_or_none()
    if row is None:
        return None
    scope = Scope(row["scope"]) if row["scope"] else None
    if scope is not None and row["role"] is not None:
        of_role = Role(row["role"]).scope
        scope = of_role if scope.covers(of_role) else scope
    return Credential(
        id=row["id"],
        kind=TokenKind(row["kind"]),
        name=row["name"],
        node_id=row["node_id"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
        revoked_at=row["revoked_at"],
        scope=scope,
        user=row["user"],
    )
