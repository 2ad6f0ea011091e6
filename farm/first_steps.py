"""What a data directory needs before the head can start: directories, schema, secrets, and the link for signing in."""

import secrets
import time

from farm.auth import TokenKind, new_token
from farm.secret_files import ensure_private_directory, keep_secret, write_secret
from farm.settings import DataDirectory
from farm.store.engine import migrate, open_engine
from farm.store.registry import Registry
from farm.store.users import THIS_PC

SIGN_IN_DAYS = 30
"""The link in the terminal of a farm that runs for weeks must still work, so it lives as long as a browser's session does; it ends
earlier when the farm is started anew. Whoever can read that terminal can make tokens anyway."""


def prepare(data: DataDirectory, now: float | None = None) -> str:
    """Makes the data directory fit for a start; returns the token of this run's sign-in link. Safe to call again."""
    now = time.time() if now is None else now
    ensure_private_directory(data.root)
    ensure_private_directory(data.secrets)
    for directory in (data.run, data.logs, data.artifacts, data.previews):
        directory.mkdir(parents=True, exist_ok=True)
    migrate(data.database_url)
    data.database.chmod(0o600)
    keep_secret(data.ray_token, lambda: secrets.token_hex(32))
    engine = open_engine(data.database_url, writes=True)
    try:
        registry = Registry(engine)
        _keep_admin_token(data, registry, now)
        sign_in = new_token()
        registry.revoke(TokenKind.SIGN_IN, now)
        registry.add_token(
            sign_in, TokenKind.SIGN_IN, "farm up", now, expires_at=now + SIGN_IN_DAYS * 24 * 3600.0
        )
    finally:
        engine.dispose()
    return sign_in


def _keep_admin_token(data: DataDirectory, registry: Registry, now: float) -> None:
    """This PC's own token, also where the database or the file was lost or the token was revoked."""
    token = keep_secret(data.admin_token, new_token)
    known = registry.token(token)
    if known is not None and known.revoked_at is not None:
        token = new_token()
        write_secret(data.admin_token, token)
        known = None
    if known is None:
        registry.add_token(token, TokenKind.ADMIN, THIS_PC, now)
