"""The tables of the database, and how those of an earlier format become these."""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["FORMAT", "migrate", "prepare"]

FORMAT = 2
_TABLES = {
    "settings": """
CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID""",
    "namespaces": """
CREATE TABLE namespaces (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'organisation'))
) WITHOUT ROWID""",
    "tokens": """
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    user TEXT NOT NULL REFERENCES namespaces (name),
    role TEXT NOT NULL CHECK (role IN ('read', 'write')),
    organisations TEXT NOT NULL,
    created TEXT NOT NULL,
    revoked TEXT
) WITHOUT ROWID""",
    # bytes: the sum over its grants, which triggers keep.
    "repositories": """
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('model', 'dataset')),
    owner TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL,
    gated TEXT NOT NULL CHECK (gated IN ('', 'auto', 'manual')),
    created TEXT NOT NULL,
    modified TEXT NOT NULL,
    bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, owner, name)
)""",
    # base: the nearest commit, itself or before it, whose entries are its whole tree. depth: how
    # many commits lie between; each of those has as entries what it changed, and no more.
    "commits": """
CREATE TABLE commits (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    oid TEXT NOT NULL,
    parent INTEGER,
    base INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    author TEXT NOT NULL,
    date TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    card TEXT NOT NULL,
    UNIQUE (repository, oid)
)""",
    # sha256 and oid are null where a commit deleted the file.
    "entries": """
CREATE TABLE entries (
    commit_id INTEGER NOT NULL REFERENCES commits (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 BLOB,
    size INTEGER NOT NULL,
    oid BLOB,
    lfs INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    PRIMARY KEY (commit_id, path)
) WITHOUT ROWID""",
    "refs": """
CREATE TABLE refs (
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('branch', 'tag')),
    commit_id INTEGER NOT NULL REFERENCES commits (id) ON DELETE CASCADE,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID""",
    # added: seconds since 1970.
    "grants": """
CREATE TABLE grants (
    sha256 BLOB NOT NULL,
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    size INTEGER NOT NULL,
    added INTEGER NOT NULL,
    PRIMARY KEY (sha256, repository)
) WITHOUT ROWID""",
    # The names that a repository had before.
    "moves": """
CREATE TABLE IF NOT EXISTS moves (
    kind TEXT NOT NULL,
    owner TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    PRIMARY KEY (kind, owner, name)
) WITHOUT ROWID""",
    "labels": """
CREATE TABLE labels (
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    label TEXT NOT NULL COLLATE NOCASE,
    PRIMARY KEY (repository, label)
) WITHOUT ROWID""",
}
_BESIDE_THEM = (
    "CREATE INDEX repositories_modified ON repositories (kind, modified, id)",
    "CREATE INDEX refs_commit ON refs (commit_id)",
    "CREATE TRIGGER granted AFTER INSERT ON grants BEGIN"
    " UPDATE repositories SET bytes = bytes + NEW.size WHERE id = NEW.repository; END",
    "CREATE TRIGGER dropped AFTER DELETE ON grants BEGIN"
    " UPDATE repositories SET bytes = bytes - OLD.size WHERE id = OLD.repository; END",
)
# The columns of format 1 as those of format 2; what is not here stays as it is.
_FROM_FORMAT_1 = {
    "repositories": "*, (SELECT coalesce(sum(size), 0) FROM grants WHERE repository = old.id)",
    "commits": "id, repository, oid, parent, id, 0, author, date, title, message, card",
    "entries": "commit_id, path, from_hex(sha256), size, from_hex(oid), lfs, changed",
    "grants": "from_hex(sha256), repository, size, CAST(strftime('%s', 'now') AS INTEGER)",
}


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of a new database. Call it in a transaction."""
    for statement in (*_TABLES.values(), *_BESIDE_THEM):
        connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {FORMAT}")
    connection.execute("INSERT INTO settings VALUES ('secret', ?)", (secrets.token_bytes(32),))
    connection.execute("INSERT INTO settings VALUES ('written', 0)")


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Bring an older database to this format; what it was stays beside it, as PATH.format1.

    Raises SecondaryLearnersError for a newer one.
    """
    number = connection.execute("PRAGMA user_version").fetchone()[0]
    if number == FORMAT:
        connection.execute(_TABLES["moves"])  # which it may be older than
    if number in (0, FORMAT):
        return
    if number != 1:
        raise SecondaryLearnersError(
            f"{path} has format {number}, this version reads {FORMAT}. "
            "Try `pip install --upgrade secondary-learners`."
        )
    before = path.with_name(f"{path.name}.format1")
    if not before.exists():
        connection.execute("VACUUM INTO ?", (str(before),))
        before.chmod(0o600)
    connection.create_function("from_hex", 1, bytes.fromhex, deterministic=True)
    connection.execute("PRAGMA foreign_keys = OFF")  # tables go and come under their names
    connection.execute("BEGIN IMMEDIATE")
    try:
        if connection.execute("PRAGMA user_version").fetchone()[0] == 1:  # none was faster
            _from_format_1(connection)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("PRAGMA foreign_keys = ON")


def _from_format_1(connection: sqlite3.Connection) -> None:
    for table, columns in _FROM_FORMAT_1.items():
        made = _TABLES[table].replace(f"TABLE {table} ", f"TABLE new_{table} ")
        connection.execute(made)
        connection.execute(f"INSERT INTO new_{table} SELECT {columns} FROM {table} AS old")
    connection.execute(  # a number that a deleted repository had is never given again
        "UPDATE sqlite_sequence SET seq = (SELECT seq FROM sqlite_sequence"
        " WHERE name = 'repositories') WHERE name = 'new_repositories'"
    )
    for table in _FROM_FORMAT_1:
        connection.execute(f"DROP TABLE {table}")
        connection.execute(f"ALTER TABLE new_{table} RENAME TO {table}")
    connection.execute(_TABLES["moves"])
    for statement in _BESIDE_THEM:
        if "refs_commit" not in statement:  # its table stayed
            connection.execute(statement)
    connection.execute("INSERT INTO settings VALUES ('written', 0)")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
