"""Access tokens: made once, shown once, kept as a digest."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from secondary_learners.errors import SecondaryLearnersError, UnknownNameError
from secondary_learners.server.errors import Refused
from secondary_learners.server.store.clock import now
from secondary_learners.server.store.database import Database, make_root, plain_errors
from secondary_learners.server.store.names import check_namespace

__all__ = [
    "Token",
    "create_token",
    "find_token",
    "list_tokens",
    "revoke_token",
    "token_by_id",
    "token_is_live",
]

_ORGANIZATION = "organisation"  # as the first format of the database spells it


@dataclass(frozen=True)
class Token:
    """What is known of a token. `namespaces`: where it reads private files and may write."""

    id: str
    user: str
    role: str
    organizations: tuple[str, ...]
    created: str
    revoked: str | None

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.user, *self.organizations)


def create_token(root: Path, user: str, role: str, organizations: Iterable[str] = ()) -> str:
    """A new token for `user`, who is made when new. The text is returned here and never again.

    Raises SecondaryLearnersError for a name that cannot be used, or that is in use by the other
    kind: an organization named like a user would open that user's repositories.
    """
    joined = tuple(dict.fromkeys(organizations))
    text = f"sl_{secrets.token_urlsafe(32)}"
    with _opened(root) as database, database.transaction() as connection:
        user = _namespace(connection, user, "user")
        joined = tuple(_namespace(connection, name, _ORGANIZATION) for name in joined)
        connection.execute(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (secrets.token_hex(4), _digest(text), user, role, json.dumps(joined), now()),
        )
    return text


def list_tokens(root: Path) -> list[Token]:
    """Every token ever made, oldest first, the revoked ones too."""
    with _opened(root) as database:
        return [_token(row) for row in database.rows("SELECT * FROM tokens ORDER BY created, id")]


def revoke_token(root: Path, identifier: str) -> None:
    """From now on the token is refused, by a running server too. Raises UnknownNameError."""
    known = [token.id for token in list_tokens(root)]
    if identifier not in known:
        raise UnknownNameError("token", identifier, known, f"learners serve-token list {root}")
    with _opened(root) as database, database.transaction() as connection:
        connection.execute(
            "UPDATE tokens SET revoked = coalesce(revoked, ?) WHERE id = ?", (now(), identifier)
        )


def find_token(database: Database, text: str) -> Token | None:
    """The live token that reads `text`."""
    row = database.row("SELECT * FROM tokens WHERE digest = ?", _digest(text))
    return _token(row) if row is not None and row["revoked"] is None else None


def token_by_id(database: Database, identifier: str) -> Token | None:
    """The live token with this id, which is not a secret."""
    row = database.row("SELECT * FROM tokens WHERE id = ?", identifier)
    return _token(row) if row is not None and row["revoked"] is None else None


def token_is_live(database: Database, identifier: str) -> bool:
    return token_by_id(database, identifier) is not None


@contextmanager
def _opened(root: Path) -> Iterator[Database]:
    make_root(root)
    database = Database(root / "hub.sqlite3")
    try:
        with plain_errors(root / "hub.sqlite3"):
            yield database
    finally:
        database.close()


def _namespace(connection: sqlite3.Connection, name: str, kind: str) -> str:
    try:
        check_namespace(name)
    except Refused as error:
        raise SecondaryLearnersError(error.message) from error
    connection.execute("INSERT OR IGNORE INTO namespaces VALUES (?, ?)", (name, kind))
    row = connection.execute("SELECT * FROM namespaces WHERE name = ?", (name,)).fetchone()
    if (row["name"], row["kind"]) != (name, kind):
        old, new = (
            "an organization" if kind == _ORGANIZATION else "a user" for kind in (row["kind"], kind)
        )
        raise SecondaryLearnersError(
            f"{name!r} cannot be {new}: there is {old} named {row['name']!r}. Choose another name."
        )
    return name


def _token(row: sqlite3.Row) -> Token:
    return Token(
        row["id"],
        row["user"],
        row["role"],
        tuple(json.loads(row["organisations"])),
        row["created"],
        row["revoked"],
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
