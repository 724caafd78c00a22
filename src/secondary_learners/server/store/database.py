"""The SQLite file: tables, a connection for reading in each thread and one for writing.

Readers see the last committed state at once, what another process (`learners serve-token`) wrote
included. Writers come one after the other. A commit is on disk before it is answered.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from secondary_learners.errors import SecondaryLearnersError

__all__ = ["Database", "make_root"]

_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE namespaces (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'organisation'))
) WITHOUT ROWID;
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    user TEXT NOT NULL REFERENCES namespaces (name),
    role TEXT NOT NULL CHECK (role IN ('read', 'write')),
    organisations TEXT NOT NULL,
    created TEXT NOT NULL,
    revoked TEXT
) WITHOUT ROWID;
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('model', 'dataset')),
    owner TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL,
    gated TEXT NOT NULL CHECK (gated IN ('', 'auto', 'manual')),
    created TEXT NOT NULL,
    modified TEXT NOT NULL,
    UNIQUE (kind, owner, name)
);
CREATE INDEX repositories_modified ON repositories (kind, modified, id);
CREATE TABLE commits (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    oid TEXT NOT NULL,
    parent INTEGER REFERENCES commits (id) ON DELETE CASCADE,
    author TEXT NOT NULL,
    date TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    card TEXT NOT NULL,
    UNIQUE (repository, oid)
);
CREATE INDEX commits_parent ON commits (parent);
CREATE TABLE entries (
    commit_id INTEGER NOT NULL REFERENCES commits (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    oid TEXT NOT NULL,
    lfs INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    PRIMARY KEY (commit_id, path)
) WITHOUT ROWID;
CREATE TABLE refs (
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('branch', 'tag')),
    commit_id INTEGER NOT NULL REFERENCES commits (id) ON DELETE CASCADE,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID;
CREATE INDEX refs_commit ON refs (commit_id);
CREATE TABLE grants (
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (repository, sha256)
) WITHOUT ROWID;
CREATE INDEX grants_sha256 ON grants (sha256);
CREATE TABLE labels (
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    label TEXT NOT NULL COLLATE NOCASE,
    PRIMARY KEY (repository, label)
) WITHOUT ROWID;
"""


def make_root(root: Path) -> None:
    """Make the storage folder, if need be, for its owner alone: it holds private repositories."""
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(mode=0o700, exist_ok=True)


class Database:
    """ROOT/hub.sqlite3, made when it is not there. Only its owner reads it: it holds the secret."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        _keep_to_owner(path)
        self._writer = _connect(path)
        with self.transaction() as connection:
            _prepare(connection, path)
        self._readers: list[sqlite3.Connection] = []
        self._local = threading.local()

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        return self._reader().execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._reader().execute(sql, values).fetchone()
        return row

    def version(self) -> int:
        """A number that changes whenever anyone, in any process, has committed a change.

        It is this thread's own: compare it only with what the same thread got.
        """
        return int(self._reader().execute("PRAGMA data_version").fetchone()[0])

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The only way to write: all of the block or nothing, on disk when it ends.

        It waits for its turn, so an event loop calls it in a thread.
        """
        with self._lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def secret(self) -> bytes:
        """32 random bytes, drawn when the file was made, that sign links across restarts."""
        row = self.row("SELECT value FROM settings WHERE key = 'secret'")
        assert row is not None
        return bytes(row["value"])

    def close(self) -> None:
        for connection in (*self._readers, self._writer):
            connection.close()

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self._path)
            self._readers.append(connection)
        return connection


def _keep_to_owner(path: Path) -> None:
    """Mode 0600 for the file, which SQLite gives to those it makes beside it, and for old ones.

    An existing file is not opened: closing it would let go of SQLite's locks in this process.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        file = path.with_name(name)
        # Another user's file, which that user lets a group use, stays as it is.
        with suppress(FileNotFoundError, PermissionError):
            if file.stat().st_mode & 0o077:
                file.chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == 0:
        for statement in _SCHEMA.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        connection.execute("INSERT INTO settings VALUES ('secret', ?)", (secrets.token_bytes(32),))
    elif found != _SCHEMA_VERSION:
        raise SecondaryLearnersError(
            f"{path} has format {found}, this version reads {_SCHEMA_VERSION}. "
            "Try `pip install --upgrade secondary-learners`."
        )
